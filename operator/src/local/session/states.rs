//! States that users request through the API. In: commands. Out: groups that start, pause or stop. A requested
//! state is stronger than the file until the file says something new about it, or until the session ends.

use crds::spec::DesiredState;
use serde_json::{Value, json};

use super::Session;
use crate::api::command::{Changed, Refusal};
use crate::api::model::EventKind;
use crate::kafka::model::GroupKey;
use crate::local::load::Document;

/// A state that differs from the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestedState {
    state: DesiredState,
    /// What the file said at that time.
    written: DesiredState,
}

impl RequestedState {
    /// Whether the file still says what it said when the state was requested.
    fn holds(&self, object: &Value) -> bool {
        state_of(object) == Some(self.written)
    }
}

impl Session {
    /// Carries out what users have requested.
    pub(super) fn take_commands(&mut self) {
        while let Some(command) = self.manage.next_command() {
            if command.answer.is_closed() {
                // The client was told that it has not happened.
                continue;
            }
            let done = self.set_state(&command.key, command.state);
            // The client may have gone meanwhile.
            let _ = command.answer.send(done);
        }
    }

    fn set_state(&mut self, key: &GroupKey, state: DesiredState) -> Result<Changed, Refusal> {
        let group = self.groups.get_mut(key).ok_or(Refusal::NotFound)?;
        if !self.running {
            return Err(Refusal::Ending);
        }
        let current = group.prepared.valid.spec.desired_state;
        let written = self.requested.get(key).map_or(current, |earlier| earlier.written);
        let warning = (state != written).then(|| {
            format!(
                "{} says desiredState {written:?}; it applies again when you change it there, and at the next start",
                group.origin
            )
        });
        if state == current {
            let changed = false;
            return Ok(Changed { changed, warning });
        }
        let object = with_state(&group.object, state);
        self.rules.check(&object, Some(&group.object)).map_err(|errors| {
            let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
            Refusal::Invalid(errors.join("; "))
        })?;
        group
            .set_state(state, object)
            .map_err(|error| Refusal::Invalid(format!("cannot write the workers' control file: {error}")))?;
        if state == written {
            self.requested.remove(key);
        } else {
            self.requested
                .insert(key.clone(), RequestedState { state, written });
        }
        let message = format!("{}: {state:?}, as requested through the API", key.name);
        self.screen.say(&message);
        self.manage
            .event(key, EventKind::Normal, "StateRequested", &message);
        let changed = true;
        Ok(Changed { changed, warning })
    }

    /// The document with the requested state, unless the file has changed its own.
    pub(super) fn with_requested_state(&self, key: &GroupKey, document: &Document) -> Document {
        let mut document = document.clone();
        if let Some(requested) = self.requested.get(key).filter(|it| it.holds(&document.object)) {
            document.object = with_state(&document.object, requested.state);
        }
        document
    }

    /// The document is valid: a requested state ends if the file has changed its own.
    pub(super) fn forget_outdated_state(&mut self, key: &GroupKey, document: &Document) {
        if self
            .requested
            .get(key)
            .is_some_and(|it| !it.holds(&document.object))
        {
            self.requested.remove(key);
        }
    }
}

/// None: the file has an invalid state, which the checks report.
fn state_of(object: &Value) -> Option<DesiredState> {
    match object.pointer("/spec/desiredState") {
        None | Some(Value::Null) => Some(DesiredState::default()),
        Some(state) => serde_json::from_value(state.clone()).ok(),
    }
}

fn with_state(object: &Value, state: DesiredState) -> Value {
    let mut object = object.clone();
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        spec.insert("desiredState".into(), json!(state));
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_requested_state_holds_until_the_file_says_something_new() {
        let requested = RequestedState {
            state: DesiredState::Paused,
            written: DesiredState::Running,
        };
        for (spec, holds) in [
            (json!({}), true),
            (json!({"desiredState": null}), true),
            (json!({"desiredState": "Running", "replicas": 3}), true),
            (json!({"desiredState": "Stopped"}), false),
            (json!({"desiredState": "Paused"}), false),
            (json!({"desiredState": "running"}), false),
        ] {
            assert_eq!(requested.holds(&json!({"spec": spec})), holds, "{spec}");
        }
        let paused = with_state(&json!({"spec": {"replicas": 3}}), DesiredState::Paused);
        assert_eq!(paused, json!({"spec": {"replicas": 3, "desiredState": "Paused"}}));
    }
}
