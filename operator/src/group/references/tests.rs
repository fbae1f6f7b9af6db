//! References of a spec: listed, checked, hashed.

use super::*;
use crate::fixtures::{data, secured_group};

#[test]
fn every_reference_of_a_secured_group_is_listed() {
    let fields: Vec<_> = References::of(&secured_group().spec)
        .iter()
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
    let spec = secured_group().spec;
    let credentials = References::of(&spec).credentials(&spec, "shop", &data()).unwrap();
    assert_eq!(credentials.ca_pem.as_deref(), Some("CA"));
    assert_eq!(credentials.certificate_pem.as_deref(), Some("CERTIFICATE"));
    assert_eq!(credentials.key_pem.as_deref(), Some("KEY"));
    assert_eq!(credentials.username.as_deref(), Some("alice"));
    assert_eq!(credentials.password.as_deref(), Some("wonder"));
}

#[test]
fn the_hash_depends_on_mounted_data_only() {
    let (references, before) = (References::of(&secured_group().spec), data());
    let change = |kind, name: &str, key: &str| {
        let mut after = before.clone();
        let data = after
            .get_mut(&(kind, name.to_string()))
            .unwrap()
            .as_mut()
            .unwrap();
        data.insert(key.into(), b"new".to_vec());
        references.mounted_hash(&after)
    };
    let hash = references.mounted_hash(&before);
    assert_eq!(hash, references.mounted_hash(&before.clone()));
    assert_ne!(hash, change(ObjectKind::Secret, "orders-kafka", "password"));
    assert_ne!(hash, change(ObjectKind::ConfigMap, "kafka-ca", "ca.crt"));
    assert_ne!(hash, change(ObjectKind::Secret, "db", "url"));
    assert_ne!(
        hash,
        change(ObjectKind::Secret, "db", "ca.crt"),
        "the CA certificate that the Postgres writer checks"
    );
    assert_eq!(hash, change(ObjectKind::Secret, "orders-kafka", "unrelated"));
    assert_eq!(hash, change(ObjectKind::ConfigMap, "programs", "clean.vrl"));
}

#[test]
fn the_ca_certificate_beside_a_postgres_url_is_optional() {
    let (references, data) = (References::of(&secured_group().spec), data());
    let authority = references.iter().last().unwrap();
    assert_eq!((authority.key.as_str(), authority.bytes(&data)), ("ca.crt", None));
    assert_eq!(references.check("shop", &data), Ok(()));
}
