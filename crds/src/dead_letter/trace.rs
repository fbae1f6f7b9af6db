//! What replaces a stack trace in the styles of others. In: an origin, or such a text. Out: stage, component, worker
//! and attempts in the format of a stack trace, or these. Pure.

use super::origin::{DeadLetterOrigin, Stage};

const AT: &str = "\n\tat ";
const WORKER: &str = " (worker ";
const ATTEMPTS: &str = ", attempts ";

pub(super) fn write(origin: &DeadLetterOrigin) -> String {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    format!(
        "{}: {}{AT}{}.{}{WORKER}{}{ATTEMPTS}{})",
        text(&origin.error_class),
        text(&origin.error_message),
        origin.stage.map_or("", Stage::as_str),
        text(&origin.component),
        text(&origin.worker),
        origin.attempts.unwrap_or_default()
    )
}

/// Stage, component, worker and attempts.
pub(super) fn read(trace: &str) -> Option<(Stage, String, String, u32)> {
    let (_, place) = trace.rsplit_once(AT)?;
    let (stage, rest) = place.split_once('.')?;
    let (component, rest) = rest.rsplit_once(WORKER)?;
    let (worker, attempts) = rest.strip_suffix(')')?.rsplit_once(ATTEMPTS)?;
    Some((
        Stage::parse(stage)?,
        component.into(),
        worker.into(),
        attempts.parse().ok()?,
    ))
}
