//! One librdkafka client for one cluster and one set of credentials: opens it, reads partition counts, and
//! derives from its error events whether the brokers are unreachable or refuse the login. All calls block and
//! have deadlines; they belong on blocking threads. A metadata request never creates a topic.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crds::{client_config::Properties, spec::ALLOWED_CLIENT_CONFIG};
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use super::model::KafkaProblem;
use crate::sync::lock;

/// Timeouts of the first request, connection included, and of every other request.
#[derive(Clone, Copy)]
pub(super) struct Timeouts {
    pub(super) connect: Duration,
    pub(super) answer: Duration,
}

/// A new TLS and SASL connection, a coordinator lookup and a request take well under a second on a healthy
/// cluster. Both timeouts together stay below the 10 s that one reconcile may spend on Kafka.
pub(super) const TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_secs(5),
    answer: Duration::from_secs(4),
};

/// First wait for metadata. A refused login returns in well under a second, so it is reported within about 2
/// s. Each further wait is twice as long, for slow brokers.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// The event queue counts as drained after this long without an event: librdkafka's thread queues the events
/// and needs far less than this to get scheduled.
const QUIET: Duration = Duration::from_millis(10);

/// An open client.
pub(super) struct Cluster {
    pub(super) consumer: BaseConsumer<ClientErrors>,
}

impl Cluster {
    pub(super) fn open(properties: &Properties) -> Result<Self, KafkaProblem> {
        let mut config = ClientConfig::new();
        config.set("client.id", "kafka-consumer-operator");
        for (key, value) in properties {
            config.set(key, value);
        }
        config
            .set("enable.auto.commit", "false")
            .set_log_level(RDKafkaLogLevel::Info);
        match BaseConsumer::from_config_and_context(&config, ClientErrors::default()) {
            Ok(consumer) => Ok(Self { consumer }),
            Err(error) => Err(KafkaProblem::InvalidConfiguration(explain(&error))),
        }
    }

    /// Number of partitions of `topic`; None: the topic does not exist.
    pub(super) fn partitions(&self, topic: &str, deadline: Instant) -> Result<Option<i32>, KafkaProblem> {
        let mut wait = FIRST_WAIT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let started = Instant::now();
            let error = match self.consumer.fetch_metadata(Some(topic), wait.min(left)) {
                Ok(metadata) => {
                    self.consumer.context().forget();
                    let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else {
                        return Ok(None);
                    };
                    let code = found.error().map(Code::from);
                    match code {
                        None => return Ok(Some(count(found.partitions().len()))),
                        Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => return Ok(None),
                        Some(code) => match refusal(code, &format!("topic \"{topic}\": {code}")) {
                            Some(problem) => return Err(problem),
                            None => code.to_string(),
                        },
                    }
                }
                Err(error) => error
                    .rdkafka_error_code()
                    .map_or_else(|| error.to_string(), |code| code.to_string()),
            };
            self.serve_events();
            if let Some(problem) = self.consumer.context().login_refused() {
                return Err(problem);
            }
            if Instant::now() >= deadline {
                let message = self.consumer.context().last().unwrap_or(error);
                return Err(KafkaProblem::Unreachable(message));
            }
            // An answer such as "leader not available" returns at once: it must not cause a busy loop.
            std::thread::sleep(Duration::from_millis(100).saturating_sub(started.elapsed()));
            wait = wait.saturating_mul(2);
        }
    }

    /// Delivers queued errors and logs to [`ClientErrors`]. The queue is short because unused clients are
    /// closed.
    pub(super) fn serve_events(&self) {
        for _ in 0..1000 {
            if self.consumer.poll(QUIET).is_none() {
                break;
            }
        }
    }

    /// What a failed call means: a refusal by its code, a login that was refused meanwhile, or None if it is
    /// unclear.
    pub(super) fn refused(&self, code: Option<Code>, what: &str) -> Option<KafkaProblem> {
        if let Some(problem) = code.and_then(|code| refusal(code, &format!("{what}: {code}"))) {
            return Some(problem);
        }
        self.serve_events();
        self.consumer.context().login_refused()
    }
}

fn count(partitions: usize) -> i32 {
    i32::try_from(partitions).unwrap_or(i32::MAX)
}

/// Codes of a permanent refusal.
pub(super) fn refusal(code: Code, message: &str) -> Option<KafkaProblem> {
    match code {
        Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed => Some(KafkaProblem::AuthorizationFailed(message.into())),
        Code::Authentication | Code::SaslAuthenticationFailed => {
            Some(KafkaProblem::AuthenticationFailed(message.into()))
        }
        _ => None,
    }
}

/// The text of the rdkafka crate would show the property's value, which may be a private key; only values of
/// the allow-list are shown.
pub(super) fn explain(error: &KafkaError) -> String {
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

/// Collects the errors that the client reports outside of call results.
#[derive(Default)]
pub(super) struct ClientErrors {
    seen: Mutex<SeenErrors>,
}

#[derive(Default)]
struct SeenErrors {
    login: Option<String>,
    /// The last error by broker, so that several failing brokers give one stable text instead of alternating
    /// ones.
    brokers: BTreeMap<String, String>,
}

/// Maximum number of brokers whose errors are kept; one is shown.
const MAX_BROKERS: usize = 64;

impl ClientErrors {
    /// After an answer: earlier errors no longer apply.
    fn forget(&self) {
        *lock(&self.seen) = SeenErrors::default();
    }

    /// librdkafka reports a repeated error only from time to time, so a refused login is kept until an answer
    /// arrives.
    fn login_refused(&self) -> Option<KafkaProblem> {
        let seen = lock(&self.seen);
        seen.login.clone().map(KafkaProblem::AuthenticationFailed)
    }

    pub(super) fn last(&self) -> Option<String> {
        let seen = lock(&self.seen);
        seen.brokers
            .iter()
            .next()
            .map(|(broker, message)| match broker.as_str() {
                "" => message.clone(),
                broker => format!("{broker}: {message}"),
            })
    }

    fn note(&self, code: Option<Code>, reason: &str) {
        let (broker, message) = broker_and_message(reason);
        let mut seen = lock(&self.seen);
        match code {
            Some(Code::Authentication | Code::SaslAuthenticationFailed | Code::UnsupportedSASLMechanism) => {
                seen.login = Some(message.into());
            }
            // Adds nothing to the errors that were reported already.
            Some(Code::AllBrokersDown) if !seen.brokers.is_empty() => {}
            _ if seen.brokers.len() < MAX_BROKERS || seen.brokers.contains_key(broker) => {
                seen.brokers.insert(broker.into(), message.into());
            }
            _ => {}
        }
    }
}

/// "sasl_ssl://host:9092/bootstrap: SSL handshake failed (after 5ms in state CONNECT)" to its broker and its
/// message. Times and counts are removed: the message appears in conditions, which must not change while
/// nothing changes.
fn broker_and_message(reason: &str) -> (&str, &str) {
    let reason = reason.split(" (after ").next().unwrap_or(reason);
    match reason.split_once(": ") {
        Some((broker, message)) if broker.contains('/') && !broker.contains(' ') => {
            let address = broker.rsplit("//").next().unwrap_or(broker);
            (address.split('/').next().unwrap_or(address), message)
        }
        _ => ("", reason),
    }
}

impl ClientContext for ClientErrors {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(facility, "librdkafka: {message}");
        // The cause of a disconnection, for example a wrong security.protocol, is logged and not raised.
        if facility == "FAIL" {
            let message = message.split_once("]: ").map_or(message, |(_, message)| message);
            self.note(None, message);
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.note(error.rdkafka_error_code(), reason);
    }
}

impl ConsumerContext for ClientErrors {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_login_is_kept_until_an_answer_arrives() {
        let errors = ClientErrors::default();
        errors.note(
            Some(Code::BrokerTransportFailure),
            "b:1/bootstrap: Connection refused (after 0ms in state CONNECT)",
        );
        errors.note(Some(Code::BrokerTransportFailure), "a:1/2: Disconnected");
        errors.note(Some(Code::AllBrokersDown), "2/2 brokers are down");
        assert_eq!(errors.last().as_deref(), Some("a:1: Disconnected"));
        assert_eq!(errors.login_refused(), None);
        let message = "sasl_ssl://a:1/bootstrap: invalid credentials (after 316ms in state AUTH_REQ, 1 identical error(s) suppressed)";
        errors.note(Some(Code::Authentication), message);
        errors.note(Some(Code::BrokerTransportFailure), "disconnected");
        assert_eq!(
            errors.login_refused(),
            Some(KafkaProblem::AuthenticationFailed("invalid credentials".into()))
        );
        errors.forget();
        assert_eq!(errors.login_refused(), None);
    }

    #[test]
    fn a_wrong_property_is_named_and_a_secret_value_is_not_shown() {
        let shown = Properties::from([("fetch.min.bytes".to_string(), "many".to_string())]);
        let problem = Cluster::open(&shown).err().unwrap();
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
        let problem = Cluster::open(&secret).err().unwrap();
        assert_eq!(problem.reason(), "InvalidClientConfig");
        assert!(!problem.to_string().contains("4711"), "{problem}");
    }
}
