//! Headers of style Connect. In: an origin or headers. Out: the other. All values are text. The headers of a
//! connector can be read as well: its stages that no worker has are unknown.

use super::origin::{DeadLetterOrigin, Found, Header, NotADeadLetter, Stage, text};
use super::trace;
use crate::spec::HeaderStyle;

pub(super) const TOPIC: &str = "__connect.errors.topic";
const PARTITION: &str = "__connect.errors.partition";
const OFFSET: &str = "__connect.errors.offset";
const CONNECTOR_NAME: &str = "__connect.errors.connector.name";
const TASK_ID: &str = "__connect.errors.task.id";
const STAGE: &str = "__connect.errors.stage";
const CLASS_NAME: &str = "__connect.errors.class.name";
const EXCEPTION_CLASS_NAME: &str = "__connect.errors.exception.class.name";
const EXCEPTION_MESSAGE: &str = "__connect.errors.exception.message";
const EXCEPTION_STACKTRACE: &str = "__connect.errors.exception.stacktrace";

pub(super) const ALL: [&str; 10] = [
    TOPIC,
    PARTITION,
    OFFSET,
    CONNECTOR_NAME,
    TASK_ID,
    STAGE,
    CLASS_NAME,
    EXCEPTION_CLASS_NAME,
    EXCEPTION_MESSAGE,
    EXCEPTION_STACKTRACE,
];

const STAGES: [(&str, Stage); 4] = [
    ("VALUE_CONVERTER", Stage::Decode),
    ("KEY_CONVERTER", Stage::Decode),
    ("TRANSFORMATION", Stage::Transform),
    ("TASK_PUT", Stage::Write),
];

pub(super) fn write(origin: &DeadLetterOrigin) -> Vec<Header> {
    let optional = |value: &Option<String>| text(value.as_deref().unwrap_or_default());
    let stage = match (origin.stage, origin.component.as_deref()) {
        (Some(Stage::Decode), Some("key")) => "KEY_CONVERTER",
        (Some(Stage::Decode), _) => "VALUE_CONVERTER",
        (Some(Stage::Transform), _) => "TRANSFORMATION",
        (Some(Stage::Write), _) => "TASK_PUT",
        (None, _) => "",
    };
    vec![
        (TOPIC, text(&origin.topic)),
        (PARTITION, text(origin.partition)),
        (OFFSET, text(origin.offset)),
        (CONNECTOR_NAME, optional(&origin.group)),
        (TASK_ID, optional(&origin.worker)),
        (STAGE, text(stage)),
        (CLASS_NAME, optional(&origin.component)),
        (EXCEPTION_CLASS_NAME, optional(&origin.error_class)),
        (EXCEPTION_MESSAGE, optional(&origin.error_message)),
        (EXCEPTION_STACKTRACE, text(trace::write(origin))),
    ]
}

pub(super) fn read(found: &Found<'_>) -> Result<DeadLetterOrigin, NotADeadLetter> {
    let stage = found.text(STAGE);
    let known = |name: String| STAGES.iter().find(|(stage, _)| *stage == name);
    let of_trace = found.text(EXCEPTION_STACKTRACE);
    let of_trace = of_trace.and_then(|trace| trace::read(&trace));
    Ok(DeadLetterOrigin {
        style: HeaderStyle::Connect,
        topic: found.must(TOPIC, found.text(TOPIC))?,
        partition: found.must(PARTITION, found.number(PARTITION))?,
        offset: found.must(OFFSET, found.number(OFFSET))?,
        timestamp: None,
        timestamp_type: None,
        group: found.text(CONNECTOR_NAME),
        worker: found.text(TASK_ID),
        stage: stage.and_then(known).map(|(_, stage)| *stage),
        component: found.text(CLASS_NAME),
        attempts: of_trace.map(|(.., attempts)| attempts),
        error_class: found.text(EXCEPTION_CLASS_NAME),
        error_message: found.text(EXCEPTION_MESSAGE),
    })
}
