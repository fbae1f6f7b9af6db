//! What an error of librdkafka means for the records it came with. Pure.

use rdkafka::error::RDKafkaErrorCode as Code;

use super::SendError;
use crate::record::failure::FailureClass;

/// True when the broker says this of a whole record batch although one record is at fault.
pub(super) fn blames_a_batch(code: Code) -> bool {
    class(code) == FailureClass::Record
}

fn class(code: Code) -> FailureClass {
    match code {
        Code::MessageSizeTooLarge
        | Code::MessageBatchTooLarge
        | Code::InvalidMessage
        | Code::InvalidMessageSize
        | Code::InvalidRecord
        | Code::InvalidDifferentRecord
        | Code::InvalidTimestamp
        | Code::BadMessage
        | Code::KeySerialization => FailureClass::Record,
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

/// What to do about it, beside the broker's own words.
fn advice(code: Code) -> Option<&'static str> {
    Some(match code {
        Code::UnknownTopic | Code::UnknownTopicOrPartition => {
            "the topic does not exist; create it, or correct its name in the KafkaConsumerGroup"
        }
        Code::InvalidTopic => "this is no valid topic name; correct it in the KafkaConsumerGroup",
        Code::UnknownPartition => "the topic has no such partition any more; it is looked up again",
        Code::TopicAuthorizationFailed => {
            "the user may not write to this topic; grant it Write and Describe on the topic"
        }
        Code::ClusterAuthorizationFailed => {
            "the user may not produce idempotently; grant it Write on the topic, or IdempotentWrite on the cluster for brokers before 3.0"
        }
        Code::MessageSizeTooLarge | Code::InvalidMessageSize | Code::MessageBatchTooLarge => {
            "the record is larger than the topic's max.message.bytes or the client's message.max.bytes; raise them (kafka.clientConfig message.max.bytes for the client)"
        }
        Code::InvalidRecord | Code::InvalidMessage => {
            "the broker refuses the record; a compacted topic, for example, refuses records without a key"
        }
        Code::InvalidTimestamp => {
            "its timestamp lies outside what the topic's message.timestamp settings accept"
        }
        Code::KeySerialization => "the name of a header is not UTF-8 and would be changed on the way",
        Code::Authentication | Code::SaslAuthenticationFailed => {
            "the login is refused; correct the Secret that kafka.sasl.credentials names"
        }
        Code::SSL => "the TLS handshake failed; check kafka.tls and its Secrets",
        Code::MessageTimedOut => "no broker confirmed it in time; it is sent again",
        Code::PurgeQueue | Code::PurgeInflight => "the client gave it up before a broker confirmed it",
        _ => return None,
    })
}

/// What to do about an error of a transaction, beside the broker's own words.
pub(super) fn transaction_advice(code: Code) -> Option<&'static str> {
    Some(match code {
        Code::TransactionalIdAuthorizationFailed => {
            "the user may not use this transactional.id; grant it Write and Describe on the TransactionalId with the prefix of the group id and a dot"
        }
        Code::GroupAuthorizationFailed => "the user may not commit offsets; grant it Read on the group",
        Code::InvalidTransactionTimeout => {
            "the broker's transaction.max.timeout.ms is too small; raise it, or shorten processing.commitIntervalMilliseconds"
        }
        Code::ProducerFenced | Code::InvalidProducerEpoch => {
            "another client has used the same transactional.id, or the transaction took longer than its timeout; a new client is started"
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

/// An error of one record. `problem` is what the client complained about last.
pub(super) fn error(topic: &str, code: Code, problem: Option<&str>) -> SendError {
    let class = class(code);
    let mut message = describe(topic, code);
    if let (FailureClass::Transient, Some(problem)) = (class, problem) {
        message.push_str("; latest trouble: ");
        message.push_str(problem);
    }
    SendError {
        message,
        class,
        fatal: false,
        in_doubt: false,
    }
}

/// An error that made the client unusable; `code` and `reason` are of the client, not of the record.
pub(super) fn fatal(topic: &str, code: Code, reason: &str) -> SendError {
    let class = match class(code) {
        // A client that broke cannot tell that a record is at fault.
        FailureClass::Record => FailureClass::Transient,
        other => other,
    };
    SendError {
        message: format!("{} ({reason}); a new client is started", describe(topic, code)),
        class,
        fatal: true,
        in_doubt: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_record_itself_can_be_a_record_error() {
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
    fn a_broken_client_never_blames_the_record() {
        let error = fatal("t", Code::InvalidRecord, "out of order");
        assert!(error.fatal && error.class == FailureClass::Transient);
        assert_eq!(
            fatal("t", Code::ClusterAuthorizationFailed, "no").class,
            FailureClass::Systemic
        );
    }
}
