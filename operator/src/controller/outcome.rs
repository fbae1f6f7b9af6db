//! What a reconcile did, for the status. Decides nothing.

use super::apply::ApplyError;
use super::build::{Applied, Resources};
use super::provision::ProvisionOutcome;
use super::worker_reports::ReadReports;
use crate::group::members::SharedGroup;
use crate::group::scaling;

/// What a reconcile did.
pub struct ReconcileOutcome {
    pub provisioned: ProvisionOutcome,
    pub decision: Option<scaling::Decision>,
    pub applied: Result<Option<Resources<Applied>>, ApplyError>,
    /// The new default image, while other groups roll out first.
    pub waiting_image: Option<String>,
    /// Topics whose start position must be committed before the workers get their configuration.
    pub withheld: Vec<String>,
    /// Other members of the consumer group.
    pub shared: Option<SharedGroup>,
    /// The offset reset that holds the group at 0 workers.
    pub hold: Option<String>,
    /// What the workers report. None: they write it into the status themselves.
    pub reports: Option<ReadReports>,
}

impl ReconcileOutcome {
    /// Nothing was decided or applied.
    pub fn untouched(stopped: Result<(), ApplyError>) -> Self {
        Self {
            provisioned: ProvisionOutcome::default(),
            decision: None,
            applied: stopped.map(|()| None),
            waiting_image: None,
            withheld: Vec::new(),
            shared: None,
            hold: None,
            reports: None,
        }
    }
}
