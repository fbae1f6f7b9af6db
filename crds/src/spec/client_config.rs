//! The rules of `spec.kafka.clientConfig`: which librdkafka properties users may set, and when.

/// Properties that users may set in `spec.kafka.clientConfig`, sorted. It leaves out the librdkafka
/// properties that run shell commands, load libraries, read files or dial URLs, and those that the worker's
/// guarantees depend on.
pub const ALLOWED_CLIENT_CONFIG: &[&str] = &[
    "broker.address.family",
    "broker.address.ttl",
    "check.crcs",
    "client.dns.lookup",
    "client.id",
    "client.rack",
    "connections.max.idle.ms",
    "fetch.error.backoff.ms",
    "fetch.max.bytes",
    "fetch.message.max.bytes",
    "fetch.min.bytes",
    "fetch.queue.backoff.ms",
    "fetch.wait.max.ms",
    "heartbeat.interval.ms",
    "linger.ms",
    "max.partition.fetch.bytes",
    "max.poll.interval.ms",
    "message.max.bytes",
    "metadata.max.age.ms",
    "queued.max.messages.kbytes",
    "queued.min.messages",
    "receive.message.max.bytes",
    "reconnect.backoff.max.ms",
    "reconnect.backoff.ms",
    "retry.backoff.max.ms",
    "retry.backoff.ms",
    "session.timeout.ms",
    "socket.connection.setup.timeout.ms",
    "socket.keepalive.enable",
    "socket.nagle.disable",
    "socket.receive.buffer.bytes",
    "socket.send.buffer.bytes",
    "socket.timeout.ms",
    "ssl.cipher.suites",
    "ssl.endpoint.identification.algorithm",
    "statistics.interval.ms",
    "topic.metadata.refresh.interval.ms",
];

/// The message for a key that is not on the list.
pub const CLIENT_CONFIG_MESSAGE: &str = "clientConfig has a key that is not on the allow-list (docs/client-config.md): security, offsets and group membership have their own fields, and keys that read files or run programs are not allowed; remove the key, or use the field";

/// The CEL rule for `spec.kafka` that enforces [`ALLOWED_CLIENT_CONFIG`].
pub(super) fn client_config_rule() -> String {
    let keys: Vec<String> = ALLOWED_CLIENT_CONFIG
        .iter()
        .map(|key| format!("'{key}'"))
        .collect();
    format!(
        "!has(self.clientConfig) || self.clientConfig.all(k, k in [{}])",
        keys.join(",")
    )
}

/// Properties that the broker decides with `groupProtocol: Consumer`; librdkafka rejects them then.
pub const CLASSIC_ONLY_CLIENT_CONFIG: &[&str] = &["heartbeat.interval.ms", "session.timeout.ms"];

/// The message for one of [`CLASSIC_ONLY_CLIENT_CONFIG`] with `groupProtocol: Consumer`.
pub const GROUP_PROTOCOL_MESSAGE: &str = "with consumer.groupProtocol Consumer the broker decides session timeout and heartbeat (its group.consumer.session.timeout.ms and group.consumer.heartbeat.interval.ms); remove session.timeout.ms and heartbeat.interval.ms from kafka.clientConfig, or use groupProtocol Classic";

/// The CEL rule for `spec` that allows [`CLASSIC_ONLY_CLIENT_CONFIG`] with `groupProtocol: Classic` only.
pub(super) fn group_protocol_rule() -> String {
    let keys: Vec<String> = CLASSIC_ONLY_CLIENT_CONFIG
        .iter()
        .map(|key| format!("!('{key}' in self.kafka.clientConfig)"))
        .collect();
    format!(
        "!has(self.consumer) || !has(self.consumer.groupProtocol) || self.consumer.groupProtocol != 'Consumer' || \
         !has(self.kafka.clientConfig) || ({})",
        keys.join(" && ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_allow_list_is_sorted_and_holds_no_dangerous_key() {
        assert!(ALLOWED_CLIENT_CONFIG.is_sorted());
        for key in ALLOWED_CLIENT_CONFIG {
            for part in [
                "location",
                "library",
                "cmd",
                "password",
                "url",
                "verification",
                "commit",
                "store",
                "pem",
            ] {
                assert!(!key.contains(part), "{key} contains {part}");
            }
        }
    }
}
