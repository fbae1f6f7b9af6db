//! Where local mode finds groups and what they reference: the flags that its commands share. In: arguments. Out:
//! the brokers, the folders, the document of one group. Reads files only.

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;

use super::load::{Document, Loaded};
use super::prepare::{Brokers, Folders};
use crate::group::wording::count;

/// The sources beside the files of the groups.
#[derive(Args, Clone, Debug)]
pub struct Source {
    /// Use these brokers instead of spec.kafka.bootstrapServers, "host:port", separated by commas.
    #[arg(long, value_name = "HOST:PORT,...", value_delimiter = ',')]
    pub bootstrap_servers: Vec<String>,

    /// Folder with Secrets as files, DIR/SECRET/KEY, for Secrets that are not in the given files.
    #[arg(long, value_name = "DIR")]
    pub secrets_dir: Option<PathBuf>,

    /// Folder with ConfigMaps as files, DIR/CONFIGMAP/KEY, for ConfigMaps that are not in the given files.
    #[arg(long, value_name = "DIR")]
    pub config_maps_dir: Option<PathBuf>,

    /// Namespace of resources that set none; part of the default group id "NAMESPACE.NAME".
    #[arg(short = 'n', long, default_value = "default", value_name = "NAME")]
    pub namespace: String,
}

impl Source {
    pub fn brokers(&self) -> Brokers {
        match self.bootstrap_servers.is_empty() {
            true => Brokers::AsWritten,
            false => Brokers::At(self.bootstrap_servers.clone()),
        }
    }

    pub fn folders(&self) -> Folders {
        Folders {
            secrets: self.secrets_dir.clone(),
            config_maps: self.config_maps_dir.clone(),
        }
    }
}

/// One group in files.
#[derive(Args, Clone, Debug)]
pub struct GroupSource {
    /// File or folder with the KafkaConsumerGroup, and its Secrets and ConfigMaps; may be repeated.
    #[arg(short = 'f', long = "file", value_name = "FILE|DIR", required = true)]
    pub files: Vec<PathBuf>,

    /// Name of the KafkaConsumerGroup, or its consumer group id. Default: the only group in the files.
    #[arg(long, value_name = "NAME")]
    pub group: Option<String>,

    #[command(flatten)]
    pub source: Source,
}

impl GroupSource {
    /// Everything in the files, if all of it can be read.
    pub fn load(&self) -> anyhow::Result<Loaded> {
        let loaded = super::load::load(&self.files, &self.source.namespace);
        if !loaded.problems.is_empty() {
            bail!("{}", loaded.problems.join("\n"));
        }
        Ok(loaded)
    }

    /// The document of the group with the requested name or group id.
    pub fn select<'a>(&self, loaded: &'a Loaded) -> anyhow::Result<&'a Document> {
        let text = |document: &Document, path: &str| -> Option<String> {
            Some(document.object.pointer(path)?.as_str()?.to_string())
        };
        let name = |document: &Document| text(document, "/metadata/name").unwrap_or_default();
        let matches = |document: &&Document, wanted: &str| {
            let namespace = text(document, "/metadata/namespace");
            let namespace = namespace.unwrap_or_else(|| self.source.namespace.clone());
            let id = text(document, "/spec/groupId");
            let id = id.unwrap_or_else(|| format!("{namespace}.{}", name(document)));
            wanted == name(document) || wanted == id
        };
        let found: Vec<&Document> = match &self.group {
            Some(wanted) => loaded
                .groups
                .iter()
                .filter(|group| matches(group, wanted))
                .collect(),
            None => loaded.groups.iter().collect(),
        };
        let names: Vec<String> = loaded.groups.iter().map(name).collect();
        match (&found[..], &self.group) {
            ([only], _) => Ok(only),
            ([], Some(wanted)) => bail!(
                "--group {wanted}: no such KafkaConsumerGroup in the files, which have {}",
                names.join(", ")
            ),
            (_, Some(wanted)) => bail!(
                "--group {wanted}: {} in the files match; use the consumer group id, NAMESPACE.NAME or spec.groupId",
                count(found.len() as u64, "KafkaConsumerGroup")
            ),
            (_, None) => bail!(
                "the files have several KafkaConsumerGroups; choose one with --group: {}",
                names.join(", ")
            ),
        }
    }
}
