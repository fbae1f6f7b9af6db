//! How the API server answers to a resource without storing it: a server-side dry run with strict field
//! validation, as `kubectl apply` requests it. Changes nothing.

use std::fmt;

use anyhow::{Context, Result, bail};
use crds::{KafkaConsumerGroup, KafkaOffsetReset, KafkaReplay};
use kube::{Resource, api::PostParams, core::Request};
use serde_json::Value;

use crate::systems::world::World;

/// Why the API server refuses a resource.
#[derive(Clone, Debug)]
pub struct Refusal {
    pub message: String,
    /// Field and message of each cause; empty if the API server could not parse the resource.
    pub causes: Vec<(String, String)>,
}

impl Refusal {
    /// Whether the API server refuses the field with a message that contains `text`.
    pub fn says(&self, field: &str, text: &str) -> bool {
        let mut causes = self.causes.iter();
        causes.any(|(path, message)| path == field && message.contains(text))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl World {
    /// Asks the API server to create one of our resources: `Ok`, or the reason why not.
    pub async fn dry_run(&self, object: &Value) -> Result<Result<(), Refusal>> {
        let url = match object["kind"].as_str() {
            Some("KafkaOffsetReset") => KafkaOffsetReset::url_path(&(), Some(&self.namespace)),
            Some("KafkaReplay") => KafkaReplay::url_path(&(), Some(&self.namespace)),
            _ => KafkaConsumerGroup::url_path(&(), Some(&self.namespace)),
        };
        let parameters = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        let mut request = Request::new(url)
            .create(&parameters, serde_json::to_vec(object)?)
            .context("no request")?;
        *request.uri_mut() = format!("{}&fieldValidation=Strict", request.uri()).parse()?;
        match self.kube.request::<Value>(request).await {
            Ok(_) => Ok(Ok(())),
            Err(kube::Error::Api(status)) if (400..500).contains(&status.code) => {
                let causes = status.details.iter().flat_map(|details| &details.causes);
                Ok(Err(Refusal {
                    message: status.message.clone(),
                    causes: causes
                        .map(|cause| (cause.field.clone(), cause.message.clone()))
                        .collect(),
                }))
            }
            Err(error) => bail!("unexpected answer of the API server: {error}"),
        }
    }
}
