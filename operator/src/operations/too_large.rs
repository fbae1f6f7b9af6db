//! Whether a plan fits into its resource. In: a resource and a plan, or why the API server has not stored it. Out: a
//! refusal that ends the operation, because no later attempt could succeed. Pure.

use serde::Serialize;

use crate::controller::apply::error::in_words;
use crate::group::rejection::Rejection;
use crate::group::wording::count;

/// Most bytes of a resource as JSON. etcd accepts 1.5 MiB; the rest is for the end of the operation, and
/// managedFields.
const MAX_RESOURCE: usize = 1280 * 1024;

/// A plan as it is to be stored: its partitions, and the bytes of what is added to each of them later.
pub struct Planned<'a, P> {
    pub partitions: &'a [P],
    pub added: usize,
    /// What the user can do, such as "reset".
    pub verb: &'static str,
}

/// Refuses a plan that does not fit into the resource.
pub fn fits<P: Serialize>(resource: &impl Serialize, plan: &Planned<'_, P>) -> Result<(), Rejection> {
    let length = |json: Result<Vec<u8>, serde_json::Error>| json.map_or(0, |json| json.len());
    let plan_size = length(serde_json::to_vec(plan.partitions)) + plan.partitions.len() * plan.added;
    if length(serde_json::to_vec(resource)) + plan_size <= MAX_RESOURCE {
        return Ok(());
    }
    let partitions = count(plan.partitions.len(), "partition");
    let why = format!("the plan of {partitions} does not fit into the resource");
    Err(too_large(&why, plan.verb))
}

/// Why the API server will never store a plan of this number of partitions. None: another attempt may succeed.
pub fn refused(partitions: usize, verb: &str, error: &kube::Error) -> Option<Rejection> {
    let kube::Error::Api(status) = error else {
        return None;
    };
    // The last two are etcd's words, with code 500.
    let final_words = ["too large", "larger than max"];
    let is_final = matches!(status.code, 413 | 422)
        || (status.code != 409 && final_words.iter().any(|words| status.message.contains(words)));
    is_final.then(|| {
        let partitions = count(partitions, "partition");
        let why = format!(
            "the API server does not store the plan of {partitions}: {}",
            in_words(error)
        );
        too_large(&why, verb)
    })
}

/// The refusal of a plan that is too large.
pub fn too_large(why: &str, verb: &str) -> Rejection {
    Rejection::new(
        "PlanTooLarge",
        format!(
            "{why}; nothing was changed; select some of the topics or partitions, and {verb} the others after it"
        ),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fixtures::reset;
    use crds::offset_reset::{PartitionOffset, PlannedPartition};

    fn plan(partitions: usize) -> Vec<PlannedPartition> {
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
        vec![planned; partitions]
    }

    #[test]
    fn a_plan_fits_together_with_its_resource() {
        let mut reset = reset("again", json!({}));
        let judge = |reset: &_, partitions, added| {
            let partitions = plan(partitions);
            let planned = Planned {
                partitions: &partitions,
                added,
                verb: "reset",
            };
            fits(reset, &planned)
        };
        assert_eq!(judge(&reset, 4096, 48), Ok(()));
        assert!(judge(&reset, 4096, 480).is_err(), "what is added later counts");
        let why = judge(&reset, 6000, 48).unwrap_err();
        assert_eq!(why.reason, "PlanTooLarge");
        assert!(why.message.contains("6000 partitions") && why.message.contains("reset the others"));
        // The offsets that were asked for are in the same object.
        let given = PartitionOffset {
            topic: "o".repeat(150),
            partition: 0,
            offset: 1,
        };
        reset.spec.to.offsets = Some(vec![given; 4096]);
        assert!(judge(&reset, 4096, 48).is_err());
    }

    #[test]
    fn an_answer_that_no_attempt_changes_ends_the_operation() {
        let answered = |code: u16, message: &str| {
            let status = json!({"status": "Failure", "message": message, "code": code});
            let error = kube::Error::Api(serde_json::from_value(status).unwrap());
            refused(1, "reset", &error)
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
