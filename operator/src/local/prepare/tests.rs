//! What becomes a file, what becomes a note, and what is refused.

use super::super::load::ObjectData;
use super::*;

fn group(spec: &str) -> KafkaConsumerGroup {
    let spec = format!("{{topics: [{{name: orders}}], writers: [{{name: out, type: Stdout}}], {spec}}}");
    let mut group = KafkaConsumerGroup::new("orders", serde_yaml::from_str(&spec).unwrap());
    group.metadata.namespace = Some("shop".into());
    group
}

const SASL: &str = "kafka: {bootstrapServers: ['k:9092'], tls: {}, sasl: {mechanism: PLAIN, credentials: {secretName: login}}}";

fn run(group: KafkaConsumerGroup, loaded: &Loaded, brokers: &Brokers) -> Result<PreparedGroup, String> {
    prepare(group, loaded, brokers, &Folders::default(), &Programs::default())
}

fn with_login(namespace: &str) -> Loaded {
    let keys = [("username", "alice"), ("password", "hunter2")];
    let keys = keys.map(|(key, value)| (key.to_string(), value.as_bytes().to_vec()));
    let mut loaded = Loaded::default();
    loaded
        .secrets
        .insert((namespace.into(), "login".into()), ObjectData(keys.into()));
    loaded
}

#[test]
fn secrets_become_files_and_are_never_in_the_configuration() {
    let prepared = run(group(SASL), &with_login("shop"), &Brokers::AsWritten).unwrap();
    assert_eq!(prepared.files[Path::new("secrets/login/password")], b"hunter2");
    assert!(!prepared.config.contains("hunter2"));
    assert_eq!(prepared.valid.group_id, "shop.orders");
}

#[test]
fn a_postgres_url_is_checked_and_the_ca_certificate_beside_it_becomes_a_file_too() {
    let postgres = "kafka: {bootstrapServers: ['k:9092']}, writers: [{name: db, type: Postgres, postgres: {connection: {secretName: db, key: url}, table: t, keyColumns: [id]}}]";
    let group = || {
        let mut group = group("kafka: {bootstrapServers: ['k:9092']}");
        group.spec = serde_yaml::from_str(&format!("{{topics: [{{name: orders}}], {postgres}}}")).unwrap();
        group
    };
    let with = |keys: &[(&str, &str)]| {
        let keys = keys
            .iter()
            .map(|(key, value)| (key.to_string(), value.as_bytes().to_vec()))
            .collect();
        let mut loaded = Loaded::default();
        loaded
            .secrets
            .insert(("shop".into(), "db".into()), ObjectData(keys));
        loaded
    };
    let files = |keys: &[(&str, &str)]| run(group(), &with(keys), &Brokers::AsWritten).unwrap().files;
    let authority = Path::new("secrets/db/ca.crt");
    let url = "postgresql://db/shop";
    assert_eq!(files(&[("url", url), ("ca.crt", "CA")])[authority], b"CA");
    assert!(!files(&[("url", url)]).contains_key(authority));
    // The check finds a URL that no worker could use, if it is given.
    let check = |loaded: &Loaded| given_postgres_urls(&group(), loaded, &Folders::default());
    assert_eq!(check(&Loaded::default()), Ok(()));
    assert_eq!(check(&with(&[("url", url)])), Ok(()));
    let error = check(&with(&[("url", "host=db password=s3cret")])).unwrap_err();
    assert!(
        error.contains("Secret db key url is not a PostgreSQL URL") && !error.contains("s3cret"),
        "{error}"
    );
}

#[test]
fn a_secret_of_another_namespace_is_not_found_and_the_message_says_how_to_provide_it() {
    let error = run(group(SASL), &with_login("other"), &Brokers::AsWritten).unwrap_err();
    for part in [
        "Secret login",
        "key username",
        "namespace shop",
        "--secrets-dir",
        "DIR/login/username",
    ] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn secrets_can_come_from_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    for (key, value) in [("username", "alice"), ("password", "wonder")] {
        replace(&dir.path().join("login").join(key), value.as_bytes()).unwrap();
    }
    let folders = Folders {
        secrets: Some(dir.path().into()),
        config_maps: None,
    };
    let prepared = prepare(
        group(SASL),
        &Loaded::default(),
        &Brokers::At(vec!["other:9092".into()]),
        &folders,
        &Programs::default(),
    )
    .unwrap();
    assert_eq!(prepared.valid.credentials.password.as_deref(), Some("wonder"));
    assert_eq!(prepared.valid.spec.kafka.bootstrap_servers, ["other:9092"]);
    assert!(prepared.valid.spec.kafka.sasl.is_some());
}

#[test]
fn the_embedded_broker_needs_no_secrets_and_a_note_says_so() {
    let brokers = Brokers::Embedded("127.0.0.1:1".into());
    let prepared = run(group(SASL), &Loaded::default(), &brokers).unwrap();
    assert!(
        prepared.notes.iter().any(|note| note.contains("spec.kafka.sasl")),
        "{:?}",
        prepared.notes
    );
    assert!(prepared.config.contains("127.0.0.1:1"));
    assert_eq!(
        prepared.valid.spec.kafka.client_config["session.timeout.ms"].0,
        "4000"
    );
    let new = group("kafka: {bootstrapServers: ['k:1']}, consumer: {groupProtocol: Consumer}");
    let prepared = run(new, &Loaded::default(), &brokers).unwrap();
    assert!(
        prepared.valid.spec.kafka.client_config.is_empty(),
        "the broker decides"
    );
}

#[test]
fn the_version_depends_on_what_workers_read() {
    let version = |loaded: &Loaded| run(group(SASL), loaded, &Brokers::AsWritten).unwrap().version;
    let mut changed = with_login("shop");
    let key = ("shop".to_string(), "login".to_string());
    changed
        .secrets
        .get_mut(&key)
        .unwrap()
        .0
        .insert("password".into(), b"new".to_vec());
    assert_eq!(version(&with_login("shop")), version(&with_login("shop")));
    assert_ne!(version(&with_login("shop")), version(&changed));
}

#[cfg(feature = "vrl")]
#[test]
fn a_broken_program_is_refused_before_a_worker_starts() {
    let broken = "kafka: {bootstrapServers: ['k:9092']}, transforms: [{name: t, type: Vrl, vrl: {source: '.a = to_flot!(.b)'}}]";
    let error = run(group(broken), &Loaded::default(), &Brokers::AsWritten).unwrap_err();
    assert!(error.contains("undefined function"), "{error}");
}

#[test]
fn files_are_private_and_replaced_atomically() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b");
    replace(&path, b"long content").unwrap();
    replace(&path, b"short").unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"short");
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(
        dir.path().join("a").metadata().unwrap().permissions().mode() & 0o777,
        0o700
    );
}
