//! What a status is computed from: everything that a reconcile observed, decided and applied.

use std::time::Duration;

use crds::KafkaConsumerGroupStatus;
use crds::spec::KafkaConsumerGroupSpec;
use crds::status::{SkippedByRetention, WorkerStatus};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;

use crate::controller::pods::PodFacts;
use crate::controller::worker_reports::ReadReports;
use crate::group::members::SharedGroup;
use crate::group::rejection::{Finding, Rejection};
use crate::group::scaling::Decision;
use crate::kafka::model::KafkaView;

/// A step that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub reason: String,
    pub message: String,
    /// Waiting does not help; a user must act.
    pub needs_action: bool,
}

/// What a status is computed from.
#[derive(Clone, Debug)]
pub struct Inputs<'a> {
    /// This installation of the operator.
    pub operator: Option<String>,
    pub name: &'a str,
    pub generation: Option<i64>,
    pub spec: &'a KafkaConsumerGroupSpec,
    pub group_id: String,
    pub image: Option<&'a str>,
    /// Err: not accepted. Ok(Some): accepted with a warning.
    pub acceptance: Result<Option<&'a Finding>, &'a Rejection>,
    pub kafka: &'a KafkaView,
    /// The new default image, while other groups roll out first.
    pub waiting_image: Option<&'a str>,
    /// Topics whose start position must be committed before the workers get their configuration.
    pub withheld: &'a [String],
    /// How long a program of the group has waited for the compiler.
    pub unjudged_for: Option<Duration>,
    /// Other members of the consumer group.
    pub shared: Option<&'a SharedGroup>,
    /// The offset reset that holds the group at 0 workers. None if the group is to be stopped anyway.
    pub hold: Option<&'a str>,
    pub decision: Option<&'a Decision>,
    /// The Deployment as the API server returned it last.
    pub deployment: Option<&'a Deployment>,
    pub pods: &'a [PodFacts],
    /// What the operator has read from the workers. None: they write status.workers themselves.
    pub reports: Option<&'a ReadReports>,
    pub failure: Option<&'a Failure>,
    pub old: &'a KafkaConsumerGroupStatus,
    /// The group was healthy a moment ago.
    pub recently_healthy: bool,
    pub now: Timestamp,
}

impl Inputs<'_> {
    /// What is known of the workers.
    pub fn workers(&self) -> &[WorkerStatus] {
        self.reports.map_or(&self.old.workers, |reports| &reports.entries)
    }

    /// What workers report of records that retention removed.
    pub fn skipped(&self) -> Vec<&SkippedByRetention> {
        match self.reports {
            Some(reports) => reports.skipped.iter().collect(),
            None => {
                let entries = self.old.workers.iter();
                entries.flat_map(|entry| &entry.skipped_by_retention).collect()
            }
        }
    }
}
