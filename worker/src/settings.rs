//! From the configuration document and the mounted Secrets to [`Settings`], the checked values, and
//! [`Parts`], the compiled transforms and the writers. All validation of a worker is in this module; it reads
//! files and connects to nothing.

pub mod memory;
pub mod writers;

mod document;
mod error;
mod from_config;
mod parts;
mod transforms;
mod validate;
mod values;

use crds::{WorkerConfig, incarnation::Incarnation};

use self::memory::MemoryBudget;
pub use self::{
    document::read,
    error::SettingsError,
    parts::Parts,
    transforms::TransformError,
    validate::FieldError,
    values::{BatchLimits, Settings},
};
use crate::{args::Args, extensions::Extensions, secrets::SecretFiles};

impl Settings {
    /// Loads the document and the Secrets that `args` name, and sizes the memory budget for this container.
    /// `extensions` are the custom transforms and writers of this binary. Reads files and connects to
    /// nothing.
    pub async fn load(args: &Args, extensions: &Extensions) -> Result<(Self, Parts), SettingsError> {
        let config = read(&args.config)?;
        let secrets = SecretFiles::new(args.secrets_dir.clone(), args.config_maps_dir.clone());
        let (mut settings, parts) = Self::build(config, &args.name, &secrets, extensions).await?;
        settings.fit_into(memory::limit());
        settings.identify(args.started_at);
        Ok((settings, parts))
    }

    /// The values of `config`, which [`read`] has checked, and the parts that are built from it. `secrets` is
    /// where Secrets and ConfigMaps are mounted; `extensions` are the custom transforms and writers of this
    /// binary.
    pub async fn build(
        config: WorkerConfig,
        worker_name: &str,
        secrets: &SecretFiles,
        extensions: &Extensions,
    ) -> Result<(Self, Parts), SettingsError> {
        let credentials = secrets.kafka_credentials(&config.kafka)?;
        let parts = Parts::build(&config, &credentials, worker_name, secrets, extensions).await?;
        Ok((Self::new(config, &credentials, worker_name), parts))
    }

    /// Names this process in its consumer's `client.id`, so that the operator recognizes its member when it
    /// is dead. A `client.id` that the user has set stays.
    fn identify(&mut self, started: i64) {
        let incarnation = Incarnation {
            worker: self.worker_name.clone(),
            started,
        };
        self.consumer_properties
            .entry("client.id".into())
            .or_insert(incarnation.to_string());
    }

    /// Sets the memory budget for a container with this limit in bytes. A value that the user has set stays.
    fn fit_into(&mut self, limit: Option<u64>) {
        self.memory = MemoryBudget::new(limit);
        let kib = (self.memory.read_ahead >> 10).to_string();
        self.consumer_properties
            .entry("queued.max.messages.kbytes".into())
            .or_insert(kib);
    }
}

#[cfg(test)]
mod tests;
