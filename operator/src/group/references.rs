//! Secrets and ConfigMaps that a spec names. In: a spec, the contents that were found. Out: the list of references, the
//! Kafka credentials, a hash of everything mounted, or the one thing that is missing and how to create it. Pure.

use std::collections::BTreeMap;

use crds::client_config::KafkaCredentials;
use crds::spec::{CaSource, KafkaConsumerGroupSpec, SaslCredentials, SecretKey};

use super::validate::Rejection;
use crate::controller::names::hash;

/// What is referenced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Secret,
    ConfigMap,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Secret => "Secret",
            Self::ConfigMap => "ConfigMap",
        }
    }
}

/// One key of one object, and the field that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    pub kind: Kind,
    pub name: String,
    pub key: String,
    /// Path in the resource, for messages.
    pub field: String,
    /// False: the content is copied into the worker's configuration instead of being mounted.
    pub mounted: bool,
    /// True: used when it is there, and nothing is wrong when it is not.
    pub optional: bool,
}

/// Contents by object; None: the object does not exist.
pub type Contents = BTreeMap<(Kind, String), Option<BTreeMap<String, Vec<u8>>>>;

/// Every reference of a spec, in the order of its fields.
pub fn references(spec: &KafkaConsumerGroupSpec) -> Vec<Reference> {
    let mut list = List(Vec::new());
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
            list.0.push(Reference {
                kind: Kind::ConfigMap,
                name: program.name.clone(),
                key: program.key.clone(),
                field: format!("spec.transforms[{}].vrl.configMap", transform.name),
                mounted: false,
                optional: false,
            });
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
    list.0
}

/// The key beside a PostgreSQL URL with the authority that `sslmode=verify-ca` and `verify-full` check against.
const POSTGRES_CA: &str = "ca.crt";

struct List(Vec<Reference>);

impl List {
    fn secret(&mut self, name: &str, key: &str, field: &str) {
        self.push(Kind::Secret, name, key, field);
    }

    fn push(&mut self, kind: Kind, name: &str, key: &str, field: &str) {
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
            self.push(Kind::Secret, name, key, field);
        }
        if let Some(name) = config_map_name {
            self.push(Kind::ConfigMap, name, key, field);
        }
    }
}

fn found<'a>(contents: &'a Contents, reference: &Reference) -> Option<&'a Vec<u8>> {
    contents
        .get(&(reference.kind, reference.name.clone()))?
        .as_ref()?
        .get(&reference.key)
}

/// Whether everything that a spec needs is there, or the first thing that is missing.
pub fn check(spec: &KafkaConsumerGroupSpec, namespace: &str, contents: &Contents) -> Result<(), Rejection> {
    references(spec)
        .iter()
        .filter(|reference| !reference.optional)
        .try_for_each(|reference| text(contents, namespace, reference).map(drop))
}

/// The text of one reference, or what is missing.
pub fn text(contents: &Contents, namespace: &str, reference: &Reference) -> Result<String, Rejection> {
    let Reference {
        kind,
        name,
        key,
        field,
        ..
    } = reference;
    let (kind_name, reason, option) = match kind {
        Kind::Secret => ("Secret", "SecretMissing", "generic "),
        Kind::ConfigMap => ("ConfigMap", "ConfigMapMissing", ""),
    };
    let lower = kind_name.to_lowercase();
    let Some(Some(data)) = contents.get(&(*kind, name.clone())) else {
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
                "{kind_name} {name} has no key {key} ({field}), it has: {}; add the key to the {kind_name} or name another one in {field}",
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
                Kind::Secret => "SecretInvalid",
                Kind::ConfigMap => "ConfigMapInvalid",
            },
            format!("key {key} of {kind_name} {name} is {problem} ({field}); store text in it"),
        )
    };
    let text = String::from_utf8(bytes.clone()).map_err(|_| invalid("not UTF-8 text"))?;
    // As the worker reads it: a newline at the end comes from an editor or from echo, not from the user's mind.
    match text.trim_end_matches(['\n', '\r']) {
        "" => Err(invalid("empty")),
        text => Ok(text.to_string()),
    }
}

/// What the Kafka clients need, once everything that `spec.kafka` names is there.
pub fn credentials(
    spec: &KafkaConsumerGroupSpec,
    namespace: &str,
    contents: &Contents,
) -> Result<KafkaCredentials, Rejection> {
    let mut credentials = KafkaCredentials::default();
    for reference in references(spec)
        .iter()
        .filter(|reference| reference.field.starts_with("spec.kafka."))
    {
        let text = text(contents, namespace, reference)?;
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
pub fn mounted_hash(spec: &KafkaConsumerGroupSpec, contents: &Contents) -> String {
    let mut mounted: Vec<_> = references(spec)
        .into_iter()
        .filter(|reference| reference.mounted)
        .map(|reference| {
            let bytes = found(contents, &reference).cloned();
            (reference, bytes)
        })
        // What may be missing and is leaves no trace: workers are not rolled because this operator looks for more keys.
        .filter(|(reference, bytes)| bytes.is_some() || !reference.optional)
        .map(|(Reference { kind, name, key, .. }, bytes)| (kind, name, key, bytes))
        .collect();
    mounted.sort();
    mounted.dedup();
    hash(format!("{mounted:?}").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{contents, secured_group};

    #[test]
    fn every_reference_of_a_secured_group_is_found() {
        let fields: Vec<_> = references(&secured_group().spec)
            .into_iter()
            .map(|reference| format!("{} {}/{}", reference.field, reference.name, reference.key))
            .collect();
        assert_eq!(
            fields,
            [
                "spec.kafka.tls.ca kafka-ca/ca.crt",
                "spec.kafka.tls.clientCertificate orders-mtls/tls.crt",
                "spec.kafka.tls.clientCertificate orders-mtls/tls.key",
                "spec.kafka.sasl.credentials orders-kafka/username",
                "spec.kafka.sasl.credentials orders-kafka/password",
                "spec.transforms[clean].vrl.configMap programs/clean.vrl",
                "spec.writers[api].http.bearerToken api/token",
                "spec.writers[db].postgres.connection db/url",
                "spec.writers[db].postgres.connection db/ca.crt",
            ]
        );
    }

    #[test]
    fn credentials_take_each_value_from_its_key() {
        let credentials = credentials(&secured_group().spec, "shop", &contents()).unwrap();
        assert_eq!(credentials.ca_pem.as_deref(), Some("CA"));
        assert_eq!(credentials.certificate_pem.as_deref(), Some("CERTIFICATE"));
        assert_eq!(credentials.key_pem.as_deref(), Some("KEY"));
        assert_eq!(credentials.username.as_deref(), Some("alice"));
        assert_eq!(credentials.password.as_deref(), Some("wonder"));
    }

    #[test]
    fn the_hash_follows_mounted_contents_and_nothing_else() {
        let (spec, before) = (secured_group().spec, contents());
        let change = |kind, name: &str, key: &str| {
            let mut after = before.clone();
            let data = after
                .get_mut(&(kind, name.to_string()))
                .unwrap()
                .as_mut()
                .unwrap();
            data.insert(key.into(), b"new".to_vec());
            mounted_hash(&spec, &after)
        };
        let hash = mounted_hash(&spec, &before);
        assert_eq!(hash, mounted_hash(&spec, &before.clone()));
        assert_ne!(hash, change(Kind::Secret, "orders-kafka", "password"));
        assert_ne!(hash, change(Kind::ConfigMap, "kafka-ca", "ca.crt"));
        assert_ne!(hash, change(Kind::Secret, "db", "url"));
        assert_ne!(
            hash,
            change(Kind::Secret, "db", "ca.crt"),
            "the authority that the Postgres writer checks"
        );
        assert_eq!(hash, change(Kind::Secret, "orders-kafka", "unrelated"));
        assert_eq!(hash, change(Kind::ConfigMap, "programs", "clean.vrl"));
    }

    #[test]
    fn the_authority_beside_a_postgres_url_may_be_missing() {
        let (spec, contents) = (secured_group().spec, contents());
        let authority = references(&spec).pop().unwrap();
        assert_eq!(
            (authority.key.as_str(), found(&contents, &authority)),
            ("ca.crt", None)
        );
        assert_eq!(check(&spec, "shop", &contents), Ok(()));
    }
}
