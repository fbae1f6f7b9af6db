//! Applies the documents of a session: checks each one, then creates, changes or removes its group. In: what
//! was loaded from the files. Out: the groups of the session. A document with errors changes nothing.

use serde_json::Value;

use super::Session;
use crate::kafka::model::GroupKey;
use crate::local::{
    load::{Document, Loaded, load},
    local_group::LocalGroup,
    plan,
    prepare::{prepare, programs},
    validate::Rules,
};

impl Session {
    /// Applies changed files. Reports errors; groups with errors keep running unchanged.
    pub(super) async fn reload(&mut self) {
        let loaded = load(&self.files, &self.namespace);
        if !loaded.problems.is_empty() {
            self.screen.say(&format!(
                "{}\nno change is applied until this is fixed",
                loaded.problems.join("\n")
            ));
            return;
        }
        for document in &loaded.groups {
            if let Err(problem) = self.accept(document, &loaded).await {
                self.screen
                    .say(&format!("{problem}\nits workers keep running unchanged"));
            }
        }
        let kept: Vec<GroupKey> = loaded
            .groups
            .iter()
            .map(|document| self.key(&document.object))
            .collect();
        let gone: Vec<GroupKey> = self
            .groups
            .keys()
            .filter(|key| !kept.contains(key))
            .cloned()
            .collect();
        for key in gone {
            self.clients.forget(&key);
            self.requested.remove(&key);
            if let Some(group) = self.groups.remove(&key) {
                self.screen.say(&format!(
                    "{}: no longer in the files, stopping its workers",
                    key.name
                ));
                self.leaving.push(group);
            }
        }
    }

    /// Checks one document and, if it is valid, creates or changes its group.
    pub(super) async fn accept(&mut self, document: &Document, loaded: &Loaded) -> Result<(), String> {
        let key = self.key(&document.object);
        let written = document;
        let document = &self.with_requested_state(&key, written);
        let old = self.groups.get(&key).map(|group| group.object.clone());
        let prepared = check(
            &self.rules,
            document,
            old.as_ref(),
            async |group| {
                let found = programs(&group, loaded, &self.folders);
                let sources = found.into_iter().map(|(_, source)| source);
                self.programs
                    .prepare_all(&self.namespace, sources.collect())
                    .await;
                prepare(group, loaded, &self.brokers, &self.folders, &self.programs)
            },
            &self.namespace,
        )
        .await?;
        if let Some(broker) = &mut self.broker {
            let topics = plan::embedded_topics(&prepared.valid.spec);
            let kept = broker
                .create(&topics)
                .await
                .map_err(|error| format!("{}: {error:#}", key.name))?;
            kept.iter().for_each(|note| self.screen.say(note));
        }
        self.forget_outdated_state(&key, written);
        let failed = |error: std::io::Error| {
            format!(
                "{}: cannot write the worker configuration: {error}",
                document.origin
            )
        };
        let (origin, object) = (document.origin.clone(), document.object.clone());
        match self.groups.get_mut(&key) {
            Some(group) => {
                if group.object == object && group.prepared.version == prepared.version {
                    return Ok(());
                }
                let restart =
                    group.change(origin, object, prepared).map_err(failed)? && group.workers.alive() > 0;
                let what = if restart {
                    "changed, workers restart one by one"
                } else {
                    "changed"
                };
                self.screen.say(&format!("{}: {what}", key.name));
            }
            None => {
                let notes = prepared.notes.clone();
                let group =
                    LocalGroup::new(origin, object, prepared, self.folder.path(), self.program.clone())
                        .map_err(failed)?;
                if group.writes_to_stdout() {
                    self.screen.leave_stdout();
                }
                notes
                    .iter()
                    .for_each(|note| self.screen.say(&format!("{}: {note}", key.name)));
                self.groups.insert(key, group);
            }
        }
        Ok(())
    }

    fn key(&self, object: &Value) -> GroupKey {
        let text = |path: &str| object.pointer(path).and_then(Value::as_str).map(str::to_string);
        GroupKey {
            namespace: text("/metadata/namespace").unwrap_or_else(|| self.namespace.clone()),
            name: text("/metadata/name").unwrap_or_default(),
        }
    }
}

/// Runs all checks of one document; every message starts with the file.
pub async fn check<T>(
    rules: &Rules,
    document: &Document,
    old: Option<&Value>,
    prepare: impl AsyncFnOnce(crds::KafkaConsumerGroup) -> Result<T, String>,
    namespace: &str,
) -> Result<T, String> {
    let name = document
        .object
        .pointer("/metadata/name")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let invalid = |reasons: &str| {
        format!(
            "{}: KafkaConsumerGroup \"{name}\" is invalid:\n  {reasons}",
            document.origin
        )
    };
    let mut group = rules.check(&document.object, old).map_err(|errors| {
        let reasons: Vec<String> = errors.iter().map(ToString::to_string).collect();
        invalid(&reasons.join("\n  "))
    })?;
    group
        .metadata
        .namespace
        .get_or_insert_with(|| namespace.to_string());
    prepare(group)
        .await
        .map_err(|reason| invalid(&reason.replace('\n', "\n  ")))
}
