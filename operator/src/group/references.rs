//! Secrets and ConfigMaps that a spec references. In: a spec, the data that was found. Out: the list of
//! references, the Kafka credentials, a hash of everything mounted, or the first reference that is missing
//! and how to create it. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crds::client_config::KafkaCredentials;
use crds::spec::{CaSource, ConfigMapKey, KafkaConsumerGroupSpec, SaslCredentials, SecretKey};

use super::rejection::Rejection;
use crate::digest::hash;

/// The kind of a referenced object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKind {
    Secret,
    ConfigMap,
}

impl ObjectKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Secret => "Secret",
            Self::ConfigMap => "ConfigMap",
        }
    }
}

/// One key of one object, and the field that references it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    pub kind: ObjectKind,
    pub name: String,
    pub key: String,
    /// Path in the resource, for messages.
    pub field: String,
    /// False: the content is copied into the worker's configuration instead of being mounted.
    pub mounted: bool,
    /// True: the key is used if it exists, and it is no problem if it does not.
    pub optional: bool,
}

/// A Secret or ConfigMap that a volume of `spec.worker` mounts as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeSource {
    pub kind: ObjectKind,
    pub name: String,
    /// Name of the volume.
    pub volume: String,
}

/// The sources of the volumes of `spec.worker`.
pub fn volume_sources(spec: &KafkaConsumerGroupSpec) -> Vec<VolumeSource> {
    let sources = spec.worker.volumes.iter().filter_map(|volume| {
        let secret = volume
            .secret
            .as_ref()
            .map(|it| (ObjectKind::Secret, it.secret_name.clone()));
        let config_map = volume
            .config_map
            .as_ref()
            .map(|it| (ObjectKind::ConfigMap, it.name.clone()));
        let (kind, name) = secret.or(config_map)?;
        Some(VolumeSource {
            kind,
            name,
            volume: volume.name.clone(),
        })
    });
    sources.collect()
}

impl VolumeSource {
    /// The pods cannot start without it.
    pub fn missing(&self, namespace: &str) -> Rejection {
        let Self { kind, name, volume } = self;
        let (reason, command) = match kind {
            ObjectKind::Secret => ("SecretMissing", "secret generic"),
            ObjectKind::ConfigMap => ("ConfigMapMissing", "configmap"),
        };
        let kind = kind.as_str();
        Rejection::new(
            reason,
            format!(
                "{kind} {name} does not exist (spec.worker.volumes[{volume}]), so worker pods cannot start; create it: kubectl create {command} {name} -n {namespace} --from-file=FILE"
            ),
        )
    }
}

/// Data by object; None: the object does not exist.
pub type ReferencedData = BTreeMap<(ObjectKind, String), Option<BTreeMap<String, Vec<u8>>>>;

/// Every reference of one spec, in the order of its fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct References(Vec<Reference>);

/// The key beside a PostgreSQL URL with the CA certificate that `sslmode=verify-ca` and `verify-full` check
/// against.
const POSTGRES_CA: &str = "ca.crt";

impl References {
    /// Lists the references of `spec`.
    pub fn of(spec: &KafkaConsumerGroupSpec) -> Self {
        let mut list = Self::default();
        if let Some(tls) = &spec.kafka.tls {
            list.ca(tls.ca.as_ref(), "spec.kafka.tls.ca");
            if let Some(certificate) = &tls.client_certificate {
                for key in ["tls.crt", "tls.key"] {
                    list.secret(&certificate.secret_name, key, "spec.kafka.tls.clientCertificate");
                }
            }
        }
        if let Some(sasl) = &spec.kafka.sasl {
            list.login(Some(&sasl.credentials), "spec.kafka.sasl.credentials");
        }
        for transform in &spec.transforms {
            if let Some(program) = transform.vrl.as_ref().and_then(|vrl| vrl.config_map.as_ref()) {
                list.0.push(Reference::to_program(&transform.name, program));
            }
        }
        for writer in &spec.writers {
            let field = |member: &str| format!("spec.writers[{}].{member}", writer.name);
            if let Some(http) = &writer.http {
                list.key(http.bearer_token.as_ref(), &field("http.bearerToken"));
                list.login(http.basic_auth.as_ref(), &field("http.basicAuth"));
                list.ca(http.ca.as_ref(), &field("http.ca"));
            }
            if let Some(postgres) = &writer.postgres {
                list.key(Some(&postgres.connection), &field("postgres.connection"));
                list.secret(
                    &postgres.connection.secret_name,
                    POSTGRES_CA,
                    &field("postgres.connection"),
                );
                if let Some(authority) = list.0.last_mut() {
                    authority.optional = true;
                }
            }
        }
        list
    }

    pub fn iter(&self) -> impl Iterator<Item = &Reference> {
        self.0.iter()
    }

    /// Those of `spec.kafka`.
    pub fn of_kafka(&self) -> impl Iterator<Item = &Reference> {
        self.iter()
            .filter(|reference| reference.field.starts_with("spec.kafka."))
    }

    /// Each referenced object once, in a stable order.
    pub fn objects(&self) -> BTreeSet<(ObjectKind, String)> {
        self.iter().map(Reference::object).collect()
    }

    /// Each mounted object once, in a stable order.
    pub fn mounted_objects(&self) -> BTreeSet<(ObjectKind, String)> {
        let mounted = self.iter().filter(|reference| reference.mounted);
        mounted.map(Reference::object).collect()
    }

    /// Ok if everything required exists; otherwise the first reference that is missing.
    pub fn check(&self, namespace: &str, data: &ReferencedData) -> Result<(), Rejection> {
        self.iter()
            .filter(|reference| !reference.optional)
            .try_for_each(|reference| reference.text(data, namespace).map(drop))
    }

    /// What the Kafka clients need, once everything that `spec.kafka` references exists.
    pub fn credentials(
        &self,
        spec: &KafkaConsumerGroupSpec,
        namespace: &str,
        data: &ReferencedData,
    ) -> Result<KafkaCredentials, Rejection> {
        let mut credentials = KafkaCredentials::default();
        for reference in self.of_kafka() {
            let text = reference.text(data, namespace)?;
            let slot = match reference.field.as_str() {
                "spec.kafka.tls.ca" => &mut credentials.ca_pem,
                "spec.kafka.tls.clientCertificate" if reference.key == "tls.crt" => {
                    &mut credentials.certificate_pem
                }
                "spec.kafka.tls.clientCertificate" => &mut credentials.key_pem,
                _ if Some(&reference.key)
                    == spec
                        .kafka
                        .sasl
                        .as_ref()
                        .map(|sasl| &sasl.credentials.username_key) =>
                {
                    &mut credentials.username
                }
                _ => &mut credentials.password,
            };
            *slot = Some(text);
        }
        Ok(credentials)
    }

    /// Changes exactly when something mounted into the workers changes.
    pub fn mounted_hash(&self, data: &ReferencedData) -> String {
        let mut mounted: Vec<_> = self
            .iter()
            .filter(|reference| reference.mounted)
            .map(|reference| (reference, reference.bytes(data)))
            // An optional key that does not exist leaves no trace: a release that looks for more keys
            // restarts no workers.
            .filter(|(reference, bytes)| bytes.is_some() || !reference.optional)
            .map(|(Reference { kind, name, key, .. }, bytes)| (kind, name, key, bytes))
            .collect();
        mounted.sort();
        mounted.dedup();
        hash(format!("{mounted:?}").as_bytes())
    }

    fn secret(&mut self, name: &str, key: &str, field: &str) {
        self.push(ObjectKind::Secret, name, key, field);
    }

    fn push(&mut self, kind: ObjectKind, name: &str, key: &str, field: &str) {
        let (name, key, field) = (name.to_string(), key.to_string(), field.to_string());
        self.0.push(Reference {
            kind,
            name,
            key,
            field,
            mounted: true,
            optional: false,
        });
    }

    fn key(&mut self, reference: Option<&SecretKey>, field: &str) {
        if let Some(SecretKey { secret_name, key }) = reference {
            self.secret(secret_name, key, field);
        }
    }

    fn login(&mut self, credentials: Option<&SaslCredentials>, field: &str) {
        if let Some(SaslCredentials {
            secret_name,
            username_key,
            password_key,
        }) = credentials
        {
            self.secret(secret_name, username_key, field);
            self.secret(secret_name, password_key, field);
        }
    }

    fn ca(&mut self, source: Option<&CaSource>, field: &str) {
        let Some(CaSource {
            secret_name,
            config_map_name,
            key,
        }) = source
        else {
            return;
        };
        if let Some(name) = secret_name {
            self.push(ObjectKind::Secret, name, key, field);
        }
        if let Some(name) = config_map_name {
            self.push(ObjectKind::ConfigMap, name, key, field);
        }
    }
}

impl Reference {
    /// The program of a VRL transform; it is copied, not mounted.
    pub fn to_program(transform: &str, program: &ConfigMapKey) -> Self {
        Self {
            kind: ObjectKind::ConfigMap,
            name: program.name.clone(),
            key: program.key.clone(),
            field: format!("spec.transforms[{transform}].vrl.configMap"),
            mounted: false,
            optional: false,
        }
    }

    /// The connection URL of a Postgres writer.
    pub fn to_postgres_url(writer: &str, url: &SecretKey) -> Self {
        Self {
            kind: ObjectKind::Secret,
            name: url.secret_name.clone(),
            key: url.key.clone(),
            field: format!("spec.writers[{writer}].postgres.connection"),
            mounted: true,
            optional: false,
        }
    }

    fn object(&self) -> (ObjectKind, String) {
        (self.kind, self.name.clone())
    }

    fn bytes<'a>(&self, data: &'a ReferencedData) -> Option<&'a Vec<u8>> {
        data.get(&self.object())?.as_ref()?.get(&self.key)
    }

    /// The referenced text, or what is missing.
    pub fn text(&self, data: &ReferencedData, namespace: &str) -> Result<String, Rejection> {
        let Reference {
            kind,
            name,
            key,
            field,
            ..
        } = self;
        let (kind_name, reason, option) = match kind {
            ObjectKind::Secret => ("Secret", "SecretMissing", "generic "),
            ObjectKind::ConfigMap => ("ConfigMap", "ConfigMapMissing", ""),
        };
        let lower = kind_name.to_lowercase();
        let Some(Some(data)) = data.get(&self.object()) else {
            return Err(Rejection::new(
                reason,
                format!(
                    "{kind_name} {name} with key {key} does not exist ({field}); create it: kubectl create {lower} {option}{name} -n {namespace} --from-file={key}=FILE"
                ),
            ));
        };
        let Some(bytes) = data.get(key) else {
            let has: Vec<&str> = data.keys().map(String::as_str).collect();
            return Err(Rejection::new(
                reason,
                format!(
                    "{kind_name} {name} has no key {key} ({field}), it has: {}; add the key to the {kind_name} or reference another key in {field}",
                    if has.is_empty() {
                        "none".into()
                    } else {
                        has.join(", ")
                    }
                ),
            ));
        };
        let invalid = |problem: &str| {
            Rejection::new(
                match kind {
                    ObjectKind::Secret => "SecretInvalid",
                    ObjectKind::ConfigMap => "ConfigMapInvalid",
                },
                format!("key {key} of {kind_name} {name} is {problem} ({field}); store text in it"),
            )
        };
        let text = String::from_utf8(bytes.clone()).map_err(|_| invalid("not UTF-8 text"))?;
        // As the worker reads it: a newline at the end comes from an editor or from echo and is not meant.
        match text.trim_end_matches(['\n', '\r']) {
            "" => Err(invalid("empty")),
            text => Ok(text.to_string()),
        }
    }
}

#[cfg(test)]
mod tests;
