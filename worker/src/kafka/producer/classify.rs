//! What an error of librdkafka means for its records. Pure.

use rdkafka::error::RDKafkaErrorCode as Code;

use super::{Refusal, SendError};
use crate::record::failure::FailureClass;

/// True if the broker reports this for a whole record batch although one record causes it.
pub(super) fn rejects_whole_batches(code: Code) -> bool {
    class(code) == FailureClass::Record
}

/// What of a record the broker or librdkafka refuses.
fn refusal(code: Code) -> Option<Refusal> {
    Some(match code {
        Code::MessageSizeTooLarge | Code::MessageBatchTooLarge | Code::InvalidMessageSize => {
            Refusal::TooLarge
        }
        Code::InvalidTimestamp => Refusal::Timestamp,
        Code::KeySerialization => Refusal::HeaderName,
        Code::InvalidMessage | Code::InvalidRecord | Code::InvalidDifferentRecord | Code::BadMessage => {
            Refusal::Record
        }
        _ => return None,
    })
}

fn class(code: Code) -> FailureClass {
    if refusal(code).is_some() {
        return FailureClass::Record;
    }
    match code {
        Code::UnknownTopic
        | Code::UnknownTopicOrPartition
        | Code::InvalidTopic
        | Code::TopicAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed
        | Code::Authentication
        | Code::SaslAuthenticationFailed
        | Code::UnsupportedSASLMechanism
        | Code::IllegalSASLState
        | Code::SSL
        | Code::PolicyViolation
        | Code::InvalidRequiredAcks
        | Code::InvalidArgument
        | Code::InvalidConfig
        | Code::UnsupportedVersion
        | Code::UnsupportedForMessageFormat
        | Code::UnsupportedCompressionType
        | Code::UnsupportedFeature
        | Code::SecurityDisabled => FailureClass::Systemic,
        _ => FailureClass::Transient,
    }
}

/// What to do about an error, in addition to the broker's own text.
fn advice(code: Code) -> Option<&'static str> {
    Some(match code {
        Code::UnknownTopic | Code::UnknownTopicOrPartition => {
            "the topic does not exist; create it, or correct its name in the KafkaConsumerGroup"
        }
        Code::InvalidTopic => "this is not a valid topic name; correct it in the KafkaConsumerGroup",
        Code::UnknownPartition => {
            "the topic no longer has this partition; the worker reads the partition count again"
        }
        Code::TopicAuthorizationFailed => {
            "the user may not write to this topic; grant it Write and Describe on the topic"
        }
        Code::ClusterAuthorizationFailed => {
            "the user may not produce idempotently; grant it Write on the topic, or IdempotentWrite on the \
             cluster for brokers before 3.0"
        }
        Code::MessageSizeTooLarge | Code::InvalidMessageSize | Code::MessageBatchTooLarge => {
            "the record is larger than the topic's max.message.bytes or the client's message.max.bytes; \
             raise them (kafka.clientConfig message.max.bytes for the client)"
        }
        Code::InvalidRecord | Code::InvalidMessage => {
            "the broker rejects the record; a compacted topic, for example, rejects records without a key"
        }
        Code::InvalidTimestamp => {
            "its timestamp is outside the range that the topic's message.timestamp settings accept"
        }
        Code::KeySerialization => "the name of a header is not UTF-8, so it cannot be written unchanged",
        Code::Authentication | Code::SaslAuthenticationFailed => {
            "the login is refused; correct the Secret that kafka.sasl.credentials names"
        }
        Code::SSL => "the TLS handshake failed; check kafka.tls and its Secrets",
        Code::MessageTimedOut => "no broker confirmed the record in time; the worker sends it again",
        Code::PurgeQueue | Code::PurgeInflight => {
            "the client dropped the record before a broker confirmed it"
        }
        _ => return None,
    })
}

/// What to do about an error of a transaction, in addition to the broker's own text.
pub(super) fn transaction_advice(code: Code) -> Option<&'static str> {
    Some(match code {
        Code::TransactionalIdAuthorizationFailed => {
            "the user may not use this transactional.id; grant it Write and Describe on the TransactionalId \
             with the prefix of the group id and a dot"
        }
        Code::GroupAuthorizationFailed => "the user may not commit offsets; grant it Read on the group",
        Code::InvalidTransactionTimeout => {
            "the broker's transaction.max.timeout.ms is too small; raise it, or shorten \
             processing.commitIntervalMilliseconds"
        }
        Code::ProducerFenced | Code::InvalidProducerEpoch => {
            "another client has used the same transactional.id, or the transaction took longer than its \
             timeout; the worker starts a new client"
        }
        _ => return None,
    })
}

fn describe(topic: &str, code: Code) -> String {
    match advice(code) {
        Some(advice) => format!("topic {topic:?}: {code}: {advice}"),
        None => format!("topic {topic:?}: {code}"),
    }
}

/// An error of one record. `problem` is the client's latest problem.
pub(super) fn error(topic: &str, code: Code, problem: Option<&str>) -> SendError {
    let class = class(code);
    let mut message = describe(topic, code);
    if let (FailureClass::Transient, Some(problem)) = (class, problem) {
        message.push_str("; latest problem: ");
        message.push_str(problem);
    }
    SendError {
        message,
        class,
        refusal: refusal(code),
        fatal: false,
        in_doubt: false,
    }
}

/// An error that made the client unusable; `code` and `reason` belong to the client, not to the record.
pub(super) fn fatal(topic: &str, code: Code, reason: &str) -> SendError {
    let class = match class(code) {
        // A fatal error of the client does not show that the record causes it.
        FailureClass::Record => FailureClass::Transient,
        other => other,
    };
    SendError {
        message: format!(
            "{} ({reason}); the worker starts a new client",
            describe(topic, code)
        ),
        class,
        refusal: None,
        fatal: true,
        in_doubt: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_errors_of_the_record_itself_have_class_record() {
        for (code, expected) in [
            (Code::MessageSizeTooLarge, FailureClass::Record),
            (Code::InvalidRecord, FailureClass::Record),
            (Code::InvalidDifferentRecord, FailureClass::Record),
            (Code::UnknownTopic, FailureClass::Systemic),
            (Code::UnknownTopicOrPartition, FailureClass::Systemic),
            (Code::TopicAuthorizationFailed, FailureClass::Systemic),
            (Code::SaslAuthenticationFailed, FailureClass::Systemic),
            (Code::MessageTimedOut, FailureClass::Transient),
            (Code::AllBrokersDown, FailureClass::Transient),
            (Code::NotEnoughReplicas, FailureClass::Transient),
            (Code::UnknownPartition, FailureClass::Transient),
            (Code::PurgeQueue, FailureClass::Transient),
        ] {
            assert_eq!(error("t", code, None).class, expected, "{code:?}");
        }
    }

    #[test]
    fn a_missing_topic_is_named_with_what_to_do() {
        let message = error("orders-clean", Code::UnknownTopic, Some("noise")).message;
        assert!(
            message.contains("\"orders-clean\"") && message.contains("create it"),
            "{message}"
        );
        assert!(!message.contains("noise"), "{message}");
    }

    #[test]
    fn a_fatal_error_never_has_class_record() {
        let error = fatal("t", Code::InvalidRecord, "out of order");
        assert!(error.fatal && error.class == FailureClass::Transient);
        assert_eq!(
            fatal("t", Code::ClusterAuthorizationFailed, "no").class,
            FailureClass::Systemic
        );
    }
}
