//! What a request may change. In: commands from the API. Out: an answer for each, from whoever runs the groups.

use crds::spec::DesiredState;
use tokio::sync::{mpsc, oneshot};

use crate::kafka::model::GroupKey;

/// More than these waiting at the same time are refused.
const WAITING: usize = 16;

/// A change of one group.
#[derive(Debug)]
pub struct SetState {
    pub key: GroupKey,
    pub state: DesiredState,
    pub answer: oneshot::Sender<Result<Changed, Refusal>>,
}

/// The change was accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// False: the group had this state already.
    pub changed: bool,
    /// What the user has to know, for example that a file says something else.
    pub warning: Option<String>,
}

/// The change was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such group.
    NotFound,
    /// The program is ending.
    Ending,
    /// The group cannot take it, for this reason.
    Invalid(String),
}

pub type Commands = mpsc::Sender<SetState>;

/// Where the API sends commands, and where whoever runs the groups receives them.
pub fn channel() -> (Commands, mpsc::Receiver<SetState>) {
    mpsc::channel(WAITING)
}
