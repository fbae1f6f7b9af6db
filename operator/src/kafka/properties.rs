//! Lets librdkafka judge the properties, because the workers use it: a value that it refuses must be reported
//! before a worker starts and fails. In: properties. Out: an error that names the property. Connects to
//! nothing.

use crds::{client_config::Properties, spec::ALLOWED_CLIENT_CONFIG};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaError;

use super::model::KafkaProblem;

/// Blocks for some milliseconds.
pub(super) fn check(properties: &Properties) -> Result<(), KafkaProblem> {
    let mut config = ClientConfig::new();
    for (key, value) in properties {
        // Without brokers librdkafka checks everything and connects to nothing.
        if key != "bootstrap.servers" {
            config.set(key, value);
        }
    }
    config.set_log_level(RDKafkaLogLevel::Emerg);
    let opened: Result<BaseConsumer, KafkaError> = config.create();
    match opened {
        Ok(_) => Ok(()),
        Err(error) => Err(KafkaProblem::InvalidConfiguration(explain(&error))),
    }
}

/// The text of the rdkafka crate would show the property's value, which may be a private key; only values of
/// the allow-list are shown.
fn explain(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, message, key, value) => {
            let message = message.trim();
            if ALLOWED_CLIENT_CONFIG.contains(&key.as_str()) {
                format!("property {key}={value}: {message}")
            } else {
                format!("property {key}")
            }
        }
        KafkaError::ClientCreation(message) => message.trim().to_string(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_property_is_named_and_a_secret_value_is_not_shown() {
        let shown = Properties::from([("fetch.min.bytes".to_string(), "many".to_string())]);
        let problem = check(&shown).unwrap_err();
        assert_eq!(problem.reason(), "InvalidClientConfig");
        assert!(problem.to_string().contains("fetch.min.bytes=many"), "{problem}");
        let secret = Properties::from([
            ("security.protocol".to_string(), "ssl".to_string()),
            ("ssl.key.pem".to_string(), "not a key 4711".to_string()),
            (
                "ssl.certificate.pem".to_string(),
                "not a certificate 4711".to_string(),
            ),
        ]);
        let problem = check(&secret).unwrap_err();
        assert_eq!(problem.reason(), "InvalidClientConfig");
        assert!(!problem.to_string().contains("4711"), "{problem}");
        let good = Properties::from([("bootstrap.servers".to_string(), "a:1".to_string())]);
        assert_eq!(check(&good), Ok(()));
    }
}
