//! librdkafka's mock cluster as a broker for trials: in memory, on 127.0.0.1, at a port that it chooses. It
//! runs until the value is dropped. Limits: no TLS, no SASL, no admin requests, 5 MiB per partition.

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use super::model::KafkaProblem;

pub struct EmbeddedBroker {
    cluster: MockCluster<'static, DefaultProducerContext>,
}

impl EmbeddedBroker {
    pub fn start() -> Result<Self, KafkaProblem> {
        let cluster =
            MockCluster::new(1).map_err(|error| KafkaProblem::InvalidConfiguration(error.to_string()))?;
        Ok(Self { cluster })
    }

    /// "127.0.0.1:port".
    pub fn bootstrap_servers(&self) -> String {
        self.cluster.bootstrap_servers()
    }

    /// Fails when the topic exists.
    pub fn create_topic(&self, name: &str, partitions: i32) -> Result<(), KafkaProblem> {
        self.cluster
            .create_topic(name, partitions, 1)
            .map_err(|error| KafkaProblem::ProvisionRefused(format!("topic \"{name}\": {error}")))
    }
}
