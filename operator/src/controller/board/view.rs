//! What Kafka has answered about a group. Plain data.

use std::collections::BTreeMap;

use crate::kafka::model::KafkaProblem;

/// The last answer.
#[derive(Debug, Default)]
pub enum View {
    /// Nothing yet, or this operator stands by.
    #[default]
    NotRead,
    /// The last answer is too old to be shown.
    Outdated,
    Failed(KafkaProblem),
    Known {
        topics: BTreeMap<String, Option<i32>>,
        /// All offsets could be read.
        has_lag: bool,
    },
}
