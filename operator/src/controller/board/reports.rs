//! Whether the workers of a group report. In: the status. Out: why their numbers are not known, if so. Pure.

use std::borrow::Cow;

use crds::KafkaConsumerGroupStatus;

/// Why the numbers of the workers are not known; None: they are, or there shall be no worker.
pub fn missing(status: &KafkaConsumerGroupStatus) -> Option<Cow<'static, str>> {
    let totals = status.worker_totals.as_ref();
    // With many workers, the totals count more than those that the status lists.
    let reported = totals.map_or(!status.workers.is_empty(), |all| all.reporting > 0);
    if reported || status.replicas == Some(0) {
        return None;
    }
    let silent = totals.filter(|all| all.silent > 0);
    Some(match silent.and_then(|all| all.silent_reason.as_ref()) {
        Some(why) => format!("no worker reports: {why}").into(),
        None => "no worker has reported yet".into(),
    })
}

#[cfg(test)]
mod tests {
    use crds::status::{WorkerStatus, WorkerTotals};

    use super::*;

    #[test]
    fn numbers_are_known_if_a_worker_reports_or_none_shall_run() {
        let mut status = KafkaConsumerGroupStatus {
            replicas: Some(3),
            ..Default::default()
        };
        assert_eq!(missing(&status).as_deref(), Some("no worker has reported yet"));
        status.worker_totals = Some(WorkerTotals {
            silent: 3,
            silent_reason: Some("pod w-1: no answer".into()),
            ..Default::default()
        });
        // An entry of a worker that does not report any more stays in the list for a while.
        status.workers = vec![WorkerStatus::default()];
        assert_eq!(
            missing(&status).as_deref(),
            Some("no worker reports: pod w-1: no answer")
        );
        status.replicas = Some(0);
        assert_eq!(missing(&status), None);
        status.replicas = Some(3);
        status.worker_totals.as_mut().unwrap().reporting = 1;
        assert_eq!(missing(&status), None);
        status.worker_totals = None;
        assert_eq!(missing(&status), None, "workers write their entries");
    }
}
