//! Headers of style Native. In: an origin or headers. Out: the other. All values are text.

use super::origin::{DeadLetterOrigin, Found, Header, NotADeadLetter, Stage, text};
use crate::spec::HeaderStyle;

pub(super) const TOPIC: &str = "kafka-consumer.dev/topic";
const PARTITION: &str = "kafka-consumer.dev/partition";
const OFFSET: &str = "kafka-consumer.dev/offset";
const TIMESTAMP: &str = "kafka-consumer.dev/timestamp";
const GROUP: &str = "kafka-consumer.dev/group";
const WORKER: &str = "kafka-consumer.dev/worker";
const STAGE: &str = "kafka-consumer.dev/stage";
const COMPONENT: &str = "kafka-consumer.dev/component";
const ATTEMPTS: &str = "kafka-consumer.dev/attempts";
const ERROR_CLASS: &str = "kafka-consumer.dev/error-class";
const ERROR_MESSAGE: &str = "kafka-consumer.dev/error-message";

pub(super) const ALL: [&str; 11] = [
    TOPIC,
    PARTITION,
    OFFSET,
    TIMESTAMP,
    GROUP,
    WORKER,
    STAGE,
    COMPONENT,
    ATTEMPTS,
    ERROR_CLASS,
    ERROR_MESSAGE,
];

pub(super) fn write(origin: &DeadLetterOrigin) -> Vec<Header> {
    let optional = |value: &Option<String>| text(value.as_deref().unwrap_or_default());
    vec![
        (TOPIC, text(&origin.topic)),
        (PARTITION, text(origin.partition)),
        (OFFSET, text(origin.offset)),
        (TIMESTAMP, text(origin.timestamp.unwrap_or(-1))),
        (GROUP, optional(&origin.group)),
        (WORKER, optional(&origin.worker)),
        (STAGE, text(origin.stage.map_or("", Stage::as_str))),
        (COMPONENT, optional(&origin.component)),
        (ATTEMPTS, text(origin.attempts.unwrap_or_default())),
        (ERROR_CLASS, optional(&origin.error_class)),
        (ERROR_MESSAGE, optional(&origin.error_message)),
    ]
}

pub(super) fn read(found: &Found<'_>) -> Result<DeadLetterOrigin, NotADeadLetter> {
    Ok(DeadLetterOrigin {
        style: HeaderStyle::Native,
        topic: found.must(TOPIC, found.text(TOPIC))?,
        partition: found.must(PARTITION, found.number(PARTITION))?,
        offset: found.must(OFFSET, found.number(OFFSET))?,
        timestamp: found.number(TIMESTAMP),
        timestamp_type: None,
        group: found.text(GROUP),
        worker: found.text(WORKER),
        stage: found.text(STAGE).and_then(|stage| Stage::parse(&stage)),
        component: found.text(COMPONENT),
        attempts: found.number(ATTEMPTS),
        error_class: found.text(ERROR_CLASS),
        error_message: found.text(ERROR_MESSAGE),
    })
}
