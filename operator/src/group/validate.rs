//! Decides whether a group can run. In: the resource and what was observed. Out: a [`ValidatedGroup`] from
//! which everything can be built without errors, or a [`Rejection`] that says what is wrong, where, and what
//! to write instead. Pure; the API server checks the structural rules (schema and CEL), which are not
//! repeated here.

pub mod configuration;
mod warnings;
mod worker;

use crds::KafkaConsumerGroup;
use crds::spec::{ImagePullPolicy, KafkaConsumerGroupSpec, Transform, Writer};
use crds::worker_config::group_id;
use crds::{client_config::KafkaCredentials, postgres_url};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource, ResourceExt};

use super::observed::Observed;
use super::references::{Reference, ReferencedData, References};
use super::rejection::{Finding, Rejection};
use crate::compiler::{Programs, Verdict};
use crate::kafka::model::KafkaView;

/// The defaults for workers from the operator's flags.
#[derive(Clone, Debug)]
pub struct WorkerDefaults {
    pub image: String,
    pub image_pull_policy: Option<ImagePullPolicy>,
    pub reports: ReportMode,
}

/// How the reports of workers reach the status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReportMode {
    /// The operator reads them from the workers.
    #[default]
    Pull,
    /// Workers write them into the status of their resource.
    Push,
}

/// A group that can be built. Everything in it is resolved, so no later step can fail because of the spec.
#[derive(Clone, Debug)]
pub struct ValidatedGroup {
    pub namespace: String,
    pub name: String,
    pub owner: OwnerReference,
    pub spec: KafkaConsumerGroupSpec,
    /// What the spec references.
    pub references: References,
    pub group_id: String,
    /// The transforms of the spec, with the programs from ConfigMaps copied in.
    pub transforms: Vec<Transform>,
    pub credentials: KafkaCredentials,
    pub secrets_hash: String,
    pub image: String,
    pub image_pull_policy: Option<ImagePullPolicy>,
    pub reports: ReportMode,
    /// A warning about the accepted group.
    pub warning: Option<Finding>,
}

/// Reason while a program waits for the compiler, which time alone changes.
pub const NOT_COMPILED: &str = "TransformNotCompiled";

/// The VRL programs of a group, as far as they are known.
pub fn sources(group: &KafkaConsumerGroup, observed: &Observed) -> Vec<String> {
    let namespace = group.namespace().unwrap_or_default();
    let transforms = resolve_transforms(&group.spec, observed, &namespace).unwrap_or_default();
    let programs = transforms
        .into_iter()
        .filter_map(|transform| transform.vrl?.source);
    programs.collect()
}

/// Validates a group and reports the first error.
pub fn validate(
    group: &KafkaConsumerGroup,
    observed: &Observed,
    programs: &Programs,
    defaults: &WorkerDefaults,
) -> Result<ValidatedGroup, Rejection> {
    let namespace = group.namespace().unwrap_or_default();
    let name = group.name_any();
    let spec = &group.spec;
    worker::check(&spec.worker)?;
    observed.references.check(&namespace, &observed.data)?;
    if let Some(missing) = observed.missing_volumes.first() {
        return Err(missing.missing(&namespace));
    }
    let transforms = resolve_transforms(spec, observed, &namespace)?;
    check_programs(&transforms, programs)?;
    configuration::check(&namespace, &name, spec, &transforms)?;
    check_headers(spec)?;
    let credentials = observed.credentials.clone()?;
    for writer in &spec.writers {
        check_postgres_url(writer, &observed.data, &namespace)?;
    }
    topics_exist(spec, observed)?;
    Ok(ValidatedGroup {
        owner: group.controller_owner_ref(&()).unwrap_or_default(),
        group_id: group_id(&namespace, &name, spec),
        secrets_hash: observed.references.mounted_hash(&observed.data),
        image: spec
            .worker
            .image
            .clone()
            .unwrap_or_else(|| defaults.image.clone()),
        image_pull_policy: spec.worker.image_pull_policy.or(defaults.image_pull_policy),
        reports: defaults.reports,
        warning: warnings::warning(spec, observed),
        spec: spec.clone(),
        references: observed.references.clone(),
        namespace,
        name,
        transforms,
        credentials,
    })
}

fn resolve_transforms(
    spec: &KafkaConsumerGroupSpec,
    observed: &Observed,
    namespace: &str,
) -> Result<Vec<Transform>, Rejection> {
    let mut transforms = spec.transforms.clone();
    for transform in &mut transforms {
        let Some(vrl) = &mut transform.vrl else { continue };
        let Some(program) = vrl.config_map.take() else {
            continue;
        };
        let reference = Reference::to_program(&transform.name, &program);
        vrl.source = Some(reference.text(&observed.data, namespace)?);
    }
    Ok(transforms)
}

fn check_programs(transforms: &[Transform], programs: &Programs) -> Result<(), Rejection> {
    for transform in transforms {
        let Some(source) = transform.vrl.as_ref().and_then(|vrl| vrl.source.as_ref()) else {
            continue;
        };
        let (reason, message) = match programs.verdict(source) {
            Verdict::Valid => continue,
            Verdict::Invalid(message) => ("TransformInvalid", message),
            Verdict::Unknown(why) => (NOT_COMPILED, format!("its program is not compiled yet: {why}")),
        };
        return Err(Rejection::new(
            reason,
            format!(
                "transform {}: {message}\nworkers keep running the last valid program",
                transform.name
            ),
        ));
    }
    Ok(())
}

/// Checks the form of the URL in the Secret of a Postgres writer.
pub fn check_postgres_url(writer: &Writer, data: &ReferencedData, namespace: &str) -> Result<(), Rejection> {
    let Some(postgres) = &writer.postgres else {
        return Ok(());
    };
    let reference = Reference::to_postgres_url(&writer.name, &postgres.connection);
    let url = reference.text(data, namespace)?;
    let Err(what) = postgres_url::parse(url.trim_end()) else {
        return Ok(());
    };
    Err(Rejection::new(
        "SecretInvalid",
        format!(
            "Secret {} key {} {what} ({}); write {}",
            reference.name,
            reference.key,
            reference.field,
            postgres_url::EXAMPLE
        ),
    ))
}

fn check_headers(spec: &KafkaConsumerGroupSpec) -> Result<(), Rejection> {
    for writer in &spec.writers {
        let repeated = writer.http.as_ref().and_then(|http| http.repeated_header());
        if let Some(message) = repeated {
            let message = format!("spec.writers[{}].http.headers: {message}", writer.name);
            return Err(Rejection::new("HeaderRepeated", message));
        }
    }
    Ok(())
}

/// A missing topic is an error only if the spec does not provision it and the brokers report that it does not
/// exist.
fn topics_exist(spec: &KafkaConsumerGroupSpec, observed: &Observed) -> Result<(), Rejection> {
    let KafkaView::Known(facts) = &observed.kafka else {
        return Ok(());
    };
    for topic in &spec.topics {
        if topic.provision.is_none() && facts.topics.get(&topic.name) == Some(&None) {
            return Err(Rejection::new(
                "TopicMissing",
                format!(
                    "topic {} does not exist; create it, or let the operator create it: spec.topics: [{{name: {}, provision: {{partitions: 6}}}}]",
                    topic.name, topic.name
                ),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{data, defaults, facts, observed, secured_group};
    use crate::group::references::ObjectKind;

    type Defect = fn(&mut KafkaConsumerGroup, &mut Observed);

    fn outcome(
        edit: impl FnOnce(&mut KafkaConsumerGroup, &mut Observed),
    ) -> Result<ValidatedGroup, Rejection> {
        let (mut group, mut observed) = (secured_group(), observed());
        edit(&mut group, &mut observed);
        observed.credentials = observed
            .references
            .credentials(&group.spec, "shop", &observed.data);
        validate(&group, &observed, &Programs::default(), &defaults())
    }

    fn remove_object(observed: &mut Observed, kind: ObjectKind, name: &str) {
        observed.data.insert((kind, name.into()), None);
    }

    #[test]
    fn a_complete_group_is_accepted_and_resolved() {
        let valid = outcome(|_, _| {}).unwrap();
        assert_eq!(valid.group_id, "shop.orders");
        assert_eq!(
            valid.transforms[0].vrl.as_ref().unwrap().source.as_deref(),
            Some(".seen = true")
        );
        assert_eq!(valid.transforms[0].vrl.as_ref().unwrap().config_map, None);
        assert_eq!(valid.image, "registry/worker:1");
        assert!(valid.owner.controller.unwrap());
        // If it were set, the operator would need `update` on kafkaconsumergroups/finalizers where the
        // admission plugin OwnerReferencesPermissionEnforcement is enabled, as in OpenShift.
        assert_eq!(valid.owner.block_owner_deletion, None);
        assert_eq!(valid.warning, None);
    }

    #[test]
    fn each_defect_has_its_own_reason_and_says_what_to_do() {
        let table: &[(Defect, &str, &[&str])] = &[
            (
                |_, observed| remove_object(observed, ObjectKind::Secret, "orders-kafka"),
                "SecretMissing",
                &[
                    "orders-kafka",
                    "username",
                    "kubectl create secret generic orders-kafka -n shop",
                ],
            ),
            (
                |_, observed| {
                    let objects = &mut observed.data;
                    let data = objects.get_mut(&(ObjectKind::Secret, "db".into())).unwrap();
                    data.as_mut().unwrap().remove("url");
                },
                "SecretMissing",
                &["db has no key url", "spec.writers[db].postgres.connection"],
            ),
            (
                |_, observed| {
                    let data = observed.data.get_mut(&(ObjectKind::Secret, "db".into())).unwrap();
                    data.as_mut().unwrap().insert("url".into(), vec![0xff]);
                },
                "SecretInvalid",
                &["url", "UTF-8"],
            ),
            (
                |_, observed| {
                    let data = observed.data.get_mut(&(ObjectKind::Secret, "db".into())).unwrap();
                    let url = "postgresql://u:p@h/d?sslrootcert=/ca.pem";
                    data.as_mut().unwrap().insert("url".into(), url.into());
                },
                "SecretInvalid",
                &[
                    "Secret db key url",
                    "sslrootcert",
                    "postgresql://user:password@host",
                ],
            ),
            (
                |_, observed| remove_object(observed, ObjectKind::ConfigMap, "kafka-ca"),
                "ConfigMapMissing",
                &["kafka-ca", "kubectl create configmap kafka-ca"],
            ),
            (
                |_, observed| remove_object(observed, ObjectKind::ConfigMap, "programs"),
                "ConfigMapMissing",
                &["programs", "spec.transforms[clean].vrl.configMap"],
            ),
            (
                |group, _| {
                    let http = group
                        .spec
                        .writers
                        .iter_mut()
                        .find_map(|writer| writer.http.as_mut());
                    let headers =
                        serde_json::json!([{"name": "X-A", "value": ""}, {"name": "x-a", "value": ""}]);
                    http.unwrap().headers = serde_json::from_value(headers).unwrap();
                },
                "HeaderRepeated",
                &[
                    "spec.writers[api].http.headers",
                    "x-a occurs twice",
                    "use each name once",
                ],
            ),
            (
                |_, observed| {
                    observed
                        .missing_volumes
                        .push(crate::group::references::VolumeSource {
                            kind: ObjectKind::Secret,
                            name: "models".into(),
                            volume: "model-files".into(),
                        });
                },
                "SecretMissing",
                &[
                    "Secret models does not exist",
                    "spec.worker.volumes[model-files]",
                    "-n shop",
                ],
            ),
            (
                |_, observed| {
                    observed.kafka = KafkaView::Known(facts(&[("orders", None)]));
                },
                "TopicMissing",
                &["topic orders does not exist", "provision"],
            ),
        ];
        for (defect, reason, parts) in table {
            let rejection = outcome(defect).unwrap_err();
            assert_eq!(rejection.reason, *reason);
            for part in *parts {
                assert!(
                    rejection.message.contains(part),
                    "{} lacks {part}",
                    rejection.message
                );
            }
        }
    }

    #[cfg(feature = "vrl")]
    #[test]
    fn a_broken_program_is_rejected_with_the_compiler_message() {
        let rejection = outcome(|_, observed| {
            let data = observed
                .data
                .get_mut(&(ObjectKind::ConfigMap, "programs".into()))
                .unwrap();
            data.as_mut()
                .unwrap()
                .insert("clean.vrl".into(), b".a = to_flot!(.b)".to_vec());
        })
        .unwrap_err();
        assert_eq!(rejection.reason, "TransformInvalid");
        assert!(
            rejection.message.contains("transform clean"),
            "{}",
            rejection.message
        );
        assert!(
            rejection.message.contains("undefined function"),
            "{}",
            rejection.message
        );
    }

    #[test]
    fn a_missing_topic_that_will_be_created_is_no_error() {
        let valid = outcome(|group, observed| {
            group.spec.topics[0].provision =
                Some(serde_json::from_value(serde_json::json!({"partitions": 3})).unwrap());
            observed.kafka = KafkaView::Known(facts(&[("orders", None)]));
        });
        assert!(valid.is_ok());
    }

    #[test]
    fn a_warning_does_not_reject() {
        let valid = outcome(|group, _| group.spec.kafka.tls = None).unwrap();
        assert_eq!(valid.warning.unwrap().reason, "CredentialsInClear");
    }

    #[test]
    fn an_unreachable_kafka_does_not_reject() {
        let failed = KafkaView::Failed(crate::kafka::model::KafkaProblem::Unreachable("no route".into()));
        assert!(outcome(|_, observed| observed.kafka = failed).is_ok());
        assert_eq!(data().len(), 6);
    }
}
