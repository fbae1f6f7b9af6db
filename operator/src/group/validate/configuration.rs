//! The size of the workers' configuration. In: spec and transforms. Out: nothing, or the program that is too
//! long. Kubernetes refuses a ConfigMap beyond its limit, and would name only the ConfigMap.

use crds::WorkerConfig;
use crds::spec::{KafkaConsumerGroupSpec, Transform};

use crate::group::rejection::Rejection;

/// Kubernetes' limit for a ConfigMap is 1 MiB; the rest is for metadata and the control document.
pub const MAX_BYTES: usize = (1 << 20) - (16 << 10);

pub(super) fn check(
    namespace: &str,
    name: &str,
    spec: &KafkaConsumerGroupSpec,
    transforms: &[Transform],
) -> Result<(), Rejection> {
    let config = WorkerConfig::from_spec(namespace, name, spec, transforms.to_vec());
    let bytes = serde_json::to_string_pretty(&config).map_or(0, |json| json.len());
    if bytes <= MAX_BYTES {
        return Ok(());
    }
    let mut programs: Vec<(usize, &str)> = transforms
        .iter()
        .filter_map(|transform| Some((transform.vrl.as_ref()?.source.as_ref()?.len(), &*transform.name)))
        .collect();
    programs.sort_unstable_by(|a, b| b.cmp(a));
    let longest: Vec<String> = programs
        .iter()
        .take(3)
        .map(|(bytes, name)| format!("spec.transforms[{name}] with {bytes} bytes"))
        .collect();
    Err(Rejection::new(
        "ConfigurationTooLong",
        format!(
            "the workers' configuration has {bytes} bytes, and a ConfigMap holds at most {MAX_BYTES}; shorten the longest programs: {}",
            longest.join(", ")
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::secured_group;

    #[test]
    fn programs_that_do_not_fit_into_a_config_map_are_named() {
        let spec = secured_group().spec;
        let transforms = |count: usize, bytes: usize| -> Vec<Transform> {
            let transform = |number: usize| {
                serde_json::json!({
                    "name": format!("t{number}"), "type": "Vrl", "vrl": {"source": "#".repeat(bytes + number)},
                })
            };
            let list = (0..count).map(transform).collect::<Vec<_>>();
            serde_json::from_value(list.into()).unwrap()
        };
        assert_eq!(check("shop", "orders", &spec, &transforms(3, 250_000)), Ok(()));
        let rejection = check("shop", "orders", &spec, &transforms(5, 250_000)).unwrap_err();
        assert_eq!(rejection.reason, "ConfigurationTooLong");
        assert!(
            rejection
                .message
                .contains("spec.transforms[t4] with 250004 bytes"),
            "{}",
            rejection.message
        );
    }
}
