//! Whether a plan fits into its reset. In: a reset and a plan, or why the API server has not stored it. Out: a
//! refusal that ends the reset, because no later attempt could succeed. Pure.

use crds::KafkaOffsetReset;

use crate::controller::apply::error::in_words;
use crate::group::offset_reset::Plan;
use crate::group::rejection::Rejection;
use crate::group::wording::count;

/// Most bytes of a reset as JSON. etcd accepts 1.5 MiB; the rest is for the end of the reset, and managedFields.
const MAX_RESET: usize = 1280 * 1024;
/// Bytes of the time of a record, which is added to the plan later.
const RECORD_TIME: usize = 48;

/// Refuses a plan that does not fit into the resource.
pub fn fits(reset: &KafkaOffsetReset, plan: &Plan) -> Result<(), Rejection> {
    let length = |json: Result<Vec<u8>, serde_json::Error>| json.map_or(0, |json| json.len());
    let plan_size = length(serde_json::to_vec(&plan.partitions)) + plan.partitions.len() * RECORD_TIME;
    if length(serde_json::to_vec(reset)) + plan_size <= MAX_RESET {
        return Ok(());
    }
    let partitions = count(plan.totals.partitions, "partition");
    Err(too_large(&format!(
        "the plan of {partitions} does not fit into the resource"
    )))
}

/// Why the API server will never store the plan. None: another attempt may succeed.
pub fn refused(plan: &Plan, error: &kube::Error) -> Option<Rejection> {
    let kube::Error::Api(status) = error else {
        return None;
    };
    // The last two are etcd's words, with code 500.
    let final_words = ["too large", "larger than max"];
    let is_final = matches!(status.code, 413 | 422)
        || (status.code != 409 && final_words.iter().any(|words| status.message.contains(words)));
    is_final.then(|| {
        let partitions = count(plan.totals.partitions, "partition");
        too_large(&format!(
            "the API server does not store the plan of {partitions}: {}",
            in_words(error)
        ))
    })
}

fn too_large(why: &str) -> Rejection {
    Rejection::new(
        "PlanTooLarge",
        format!("{why}; nothing was changed; select some of the topics, and reset the others after it"),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fixtures::reset;
    use crds::offset_reset::{PartitionOffset, PlannedPartition};

    fn plan(partitions: usize) -> Plan {
        let planned = PlannedPartition {
            topic: "o".repeat(150),
            partition: 0,
            committed: Some(7),
            new: 0,
            difference: Some(-7),
            log_start: 0,
            end: 9,
            record_time: None,
            clears_metadata: false,
            note: None,
        };
        Plan {
            partitions: vec![planned; partitions],
            ..Plan::default()
        }
    }

    #[test]
    fn a_plan_fits_together_with_its_reset() {
        let mut reset = reset("again", json!({}));
        assert_eq!(fits(&reset, &plan(4096)), Ok(()));
        let why = fits(&reset, &plan(6000)).unwrap_err();
        assert_eq!(why.reason, "PlanTooLarge");
        // The offsets that were asked for are in the same object.
        let given = PartitionOffset {
            topic: "o".repeat(150),
            partition: 0,
            offset: 1,
        };
        reset.spec.to.offsets = Some(vec![given; 4096]);
        assert!(fits(&reset, &plan(4096)).is_err());
    }

    #[test]
    fn an_answer_that_no_attempt_changes_ends_the_reset() {
        let answered = |code: u16, message: &str| {
            let status = json!({"status": "Failure", "message": message, "code": code});
            let error = kube::Error::Api(serde_json::from_value(status).unwrap());
            refused(&plan(1), &error)
        };
        for (code, message) in [
            (413, "Request entity too large: limit is 3145728"),
            (
                422,
                "KafkaOffsetReset \"again\" is invalid: metadata.managedFields: Too long",
            ),
            (500, "etcdserver: request is too large"),
            (
                500,
                "rpc error: code = ResourceExhausted desc = trying to send message larger than max (2097353 vs. 2097152)",
            ),
        ] {
            let why = answered(code, message).unwrap();
            assert_eq!(why.reason, "PlanTooLarge");
            assert!(why.message.contains(message), "{}", why.message);
        }
        for (code, message) in [
            (409, "the object has been modified"),
            (429, "too many requests"),
            (500, "etcdserver: request timed out"),
            (503, "unavailable"),
        ] {
            assert_eq!(answered(code, message), None, "{message}");
        }
    }
}
