//! Prepares everything that the workers of a checked resource need on this machine: the worker configuration,
//! Secrets and ConfigMaps as files, environment variables. In: resource, loaded files, the brokers. Out:
//! [`PreparedGroup`], or what is missing and how to provide it. The validation is the same as the
//! controller's; only the sources differ. Starts nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crds::client_config::KafkaCredentials;
use crds::names;
use crds::spec::{ClientConfigValue, GroupProtocol, Kafka};
use crds::{KafkaConsumerGroup, WorkerConfig};
use kube::ResourceExt;

use super::load::Loaded;
use crate::compiler::{Programs, Verdict};
use crate::digest::hash;
use crate::group::observed::Observed;
use crate::group::references::{ObjectKind, Reference, ReferencedData, References};
use crate::group::validate::{ReportMode, ValidatedGroup, WorkerDefaults, check_postgres_url, validate};
use crate::kafka::model::KafkaView;

/// In the embedded broker every classic rebalance takes one second less than the session timeout, even if all
/// members have answered.
const EMBEDDED_CLIENT_CONFIG: [(&str, &str); 2] =
    [("session.timeout.ms", "4000"), ("heartbeat.interval.ms", "500")];

/// The brokers that workers use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Brokers {
    /// Those of spec.kafka.
    AsWritten,
    /// These addresses, with the security settings of spec.kafka.
    At(Vec<String>),
    /// This address, without TLS and SASL.
    Embedded(String),
}

/// Folders with Secrets and ConfigMaps that are not in the files.
#[derive(Clone, Debug, Default)]
pub struct Folders {
    pub secrets: Option<PathBuf>,
    pub config_maps: Option<PathBuf>,
}

/// A group that can run here.
#[derive(Clone, Debug)]
pub struct PreparedGroup {
    pub valid: ValidatedGroup,
    /// The worker's configuration document.
    pub config: String,
    /// Referenced data, by path below the folder of the group.
    pub files: BTreeMap<PathBuf, Vec<u8>>,
    pub env: Vec<(String, String)>,
    /// Changes exactly when workers must be restarted.
    pub version: String,
    /// Differences from a cluster.
    pub notes: Vec<String>,
}

pub fn prepare(
    mut group: KafkaConsumerGroup,
    loaded: &Loaded,
    brokers: &Brokers,
    folders: &Folders,
    programs: &Programs,
) -> Result<PreparedGroup, String> {
    let mut notes = Vec::new();
    let classic = group.spec.consumer.group_protocol == GroupProtocol::Classic;
    find_kafka(&mut group.spec.kafka, brokers, classic, &mut notes);
    let references = References::of(&group.spec);
    let namespace = group.namespace().unwrap_or_default();
    let data = find_data(references.iter(), loaded, folders, &namespace)?;
    let observed = Observed {
        credentials: references.credentials(&group.spec, &namespace, &data),
        references,
        data,
        kafka: KafkaView::NotAsked,
        deployment: None,
        pods: Vec::new(),
        replicas_set_by: None,
        missing_volumes: Vec::new(),
        started: Default::default(),
    };
    // Local mode runs no image, so none is required.
    let defaults = WorkerDefaults {
        image: String::new(),
        image_pull_policy: None,
        reports: ReportMode::Pull,
    };
    let valid = validate(&group, &observed, programs, &defaults).map_err(|rejection| rejection.message)?;
    notes.extend(valid.warning.iter().map(|warning| warning.message.clone()));
    let config = WorkerConfig::from_spec(
        &valid.namespace,
        &valid.name,
        &valid.spec,
        valid.transforms.clone(),
    );
    let config = serde_json::to_string_pretty(&config).map_err(|error| error.to_string())?;
    let files = files(&valid.references, &observed.data);
    let env = env(&group, &mut notes);
    if valid.spec.writers.iter().any(|writer| writer.file.is_some()) {
        notes.push("File writers write to their directory on this machine, not in a container".into());
    }
    let version = hash(format!("{config}\n{files:?}\n{env:?}").as_bytes());
    Ok(PreparedGroup {
        valid,
        config,
        files,
        env,
        version,
        notes,
    })
}

/// How to reach the group's brokers: nothing but that has to be prepared for an operation on its offsets.
pub fn connection(
    group: &KafkaConsumerGroup,
    loaded: &Loaded,
    brokers: &Brokers,
    folders: &Folders,
) -> Result<(Kafka, KafkaCredentials), String> {
    let mut kafka = group.spec.kafka.clone();
    let classic = group.spec.consumer.group_protocol == GroupProtocol::Classic;
    find_kafka(&mut kafka, brokers, classic, &mut Vec::new());
    let references = References::of(&group.spec);
    let namespace = group.namespace().unwrap_or_default();
    let data = find_data(references.of_kafka(), loaded, folders, &namespace)?;
    let credentials = references.credentials(&group.spec, &namespace, &data);
    Ok((kafka, credentials.map_err(|rejection| rejection.message)?))
}

/// Programs in the resource or in the given ConfigMaps, each with the name of its transform.
pub fn programs(group: &KafkaConsumerGroup, loaded: &Loaded, folders: &Folders) -> Vec<(String, String)> {
    let namespace = group.namespace().unwrap_or_default();
    let found = group.spec.transforms.iter().filter_map(|transform| {
        let vrl = transform.vrl.as_ref()?;
        let source = match &vrl.config_map {
            None => vrl.source.clone(),
            Some(at) => loaded
                .config_maps
                .get(&(namespace.clone(), at.name.clone()))
                .map(|keys| keys.0.clone())
                .or_else(|| read_folder(&folders.config_maps.as_ref()?.join(&at.name)))
                .and_then(|keys| String::from_utf8(keys.get(&at.key)?.clone()).ok()),
        };
        Some((transform.name.clone(), source?))
    });
    found.collect()
}

/// The checks that need no Secrets: of the [`programs`].
pub fn without_secrets(found: &[(String, String)], programs: &Programs) -> Result<(), String> {
    for (transform, source) in found {
        if let Verdict::Invalid(message) | Verdict::Unknown(message) = programs.verdict(source) {
            return Err(format!("transform {transform}: {message}"));
        }
    }
    Ok(())
}

/// The check of the URLs of PostgreSQL in Secrets that are given.
pub fn given_postgres_urls(
    group: &KafkaConsumerGroup,
    loaded: &Loaded,
    folders: &Folders,
) -> Result<(), String> {
    let namespace = group.namespace().unwrap_or_default();
    for writer in &group.spec.writers {
        let Some(postgres) = &writer.postgres else {
            continue;
        };
        let name = &postgres.connection.secret_name;
        let given = loaded.secrets.get(&(namespace.clone(), name.clone()));
        let found = given
            .map(|keys| keys.0.clone())
            .or_else(|| read_folder(&folders.secrets.as_ref()?.join(name)));
        if found.is_some() {
            let data = ReferencedData::from([((ObjectKind::Secret, name.clone()), found)]);
            check_postgres_url(writer, &data, &namespace).map_err(|rejection| rejection.message)?;
        }
    }
    Ok(())
}

fn find_kafka(kafka: &mut Kafka, brokers: &Brokers, classic: bool, notes: &mut Vec<String>) {
    match brokers {
        Brokers::AsWritten => {}
        Brokers::At(servers) => kafka.bootstrap_servers = servers.clone(),
        Brokers::Embedded(server) => {
            kafka.bootstrap_servers = vec![server.clone()];
            for (key, value) in EMBEDDED_CLIENT_CONFIG.iter().filter(|_| classic) {
                kafka
                    .client_config
                    .entry((*key).into())
                    .or_insert_with(|| ClientConfigValue((*value).into()));
            }
            if kafka.tls.take().is_some() | kafka.sasl.take().is_some() {
                notes.push(
                    "spec.kafka.tls and spec.kafka.sasl are ignored: the embedded broker supports neither"
                        .into(),
                );
            }
        }
    }
}

/// The data of these references: from the given files first, then from the folders.
fn find_data<'a>(
    references: impl Iterator<Item = &'a Reference>,
    loaded: &Loaded,
    folders: &Folders,
    namespace: &str,
) -> Result<ReferencedData, String> {
    let mut data = ReferencedData::new();
    for Reference {
        kind,
        name,
        key,
        field,
        ..
    } in references
    {
        let (given, folder, option) = match kind {
            ObjectKind::Secret => (&loaded.secrets, &folders.secrets, "--secrets-dir"),
            ObjectKind::ConfigMap => (&loaded.config_maps, &folders.config_maps, "--config-maps-dir"),
        };
        let found = match given.get(&(namespace.to_string(), name.clone())) {
            Some(keys) => Some(keys.0.clone()),
            None => folder.as_ref().and_then(|folder| read_folder(&folder.join(name))),
        };
        let kind_name = kind.as_str();
        if found.is_none() {
            return Err(format!(
                "{kind_name} {name} with key {key} is missing ({field}); add it to a file of -f as kind: {kind_name} in namespace {namespace}, or create the file DIR/{name}/{key} and pass {option} DIR"
            ));
        }
        data.insert((*kind, name.clone()), found);
    }
    Ok(data)
}

fn read_folder(folder: &Path) -> Option<BTreeMap<String, Vec<u8>>> {
    let entries = std::fs::read_dir(folder).ok()?;
    let keys = entries.filter_map(|entry| {
        let path = entry.ok()?.path();
        let key = path.file_name()?.to_str()?.to_string();
        path.is_file().then_some(())?;
        Some((key, std::fs::read(path).ok()?))
    });
    Some(keys.collect())
}

/// `secrets/<name>/<key>` and `config-maps/<name>/<key>`: the layout of the mounts in a pod. Only referenced
/// keys.
fn files(references: &References, data: &ReferencedData) -> BTreeMap<PathBuf, Vec<u8>> {
    let mounted = references.iter().filter(|reference| reference.mounted);
    mounted
        .filter_map(|Reference { kind, name, key, .. }| {
            let bytes = data.get(&(*kind, name.clone()))?.as_ref()?.get(key)?.clone();
            let folder = match kind {
                ObjectKind::Secret => "secrets",
                ObjectKind::ConfigMap => "config-maps",
            };
            Some((PathBuf::from(folder).join(name).join(key), bytes))
        })
        .collect()
}

fn env(group: &KafkaConsumerGroup, notes: &mut Vec<String>) -> Vec<(String, String)> {
    let mut env = Vec::new();
    for variable in &group.spec.worker.env {
        match (&variable.value, &variable.value_from) {
            (_, Some(_)) => notes.push(format!(
                "worker.env {} is taken from the environment of this process, not from valueFrom",
                variable.name
            )),
            (value, None) => env.push((variable.name.clone(), value.clone().unwrap_or_default())),
        }
    }
    env
}

/// The folder of the group below the folder of the session. Unique, because neither name contains a '_'.
pub fn folder_name(valid: &ValidatedGroup) -> String {
    format!("{}_{}", valid.namespace, valid.name)
}

/// Writes the files of a group, readable by this user only. Each file is replaced atomically, because running
/// workers reread credentials.
pub fn write(folder: &Path, prepared: &PreparedGroup) -> std::io::Result<()> {
    for (path, bytes) in &prepared.files {
        replace(&folder.join(path), bytes)?;
    }
    replace(&folder.join(names::WORKER_CONFIG_KEY), prepared.config.as_bytes())
}

/// Writes `bytes` to `path` atomically; creates missing folders, readable by this user only.
pub fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};

    if let Some(parent) = path.parent() {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)?;
    }
    let mut name = path.as_os_str().to_os_string();
    name.push(".new");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&name)?;
    file.write_all(bytes)?;
    std::fs::rename(&name, path)
}

#[cfg(test)]
mod tests;
