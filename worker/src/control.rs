//! Watches the [`Control`] document while the worker runs: reads it every second and sends the engine whether
//! to pause. A missing document means Running. An unreadable document changes nothing and is logged once.
//! This module never writes.

use std::{io, path::PathBuf, time::Duration};

use crds::worker_config::Control;
use thiserror::Error;
use tokio::sync::watch;

/// Users expect a pause to work within seconds. Reading a few bytes once a second costs nothing.
const INTERVAL: Duration = Duration::from_secs(1);

/// Why the document cannot be used.
#[derive(Debug, Error)]
enum UnreadableControl {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it is not a control document ({0}); write {{\"paused\": true}} or {{\"paused\": false}}")]
    Json(#[from] serde_json::Error),
}

/// Follows the document at `path`.
#[derive(Debug)]
pub struct ControlWatcher {
    path: PathBuf,
    warned: bool,
}

impl ControlWatcher {
    /// A watcher of the document at `path`, which need not exist.
    pub fn new(path: PathBuf) -> Self {
        Self { path, warned: false }
    }

    /// Reads the document once. None when it cannot be used: then the present value stays.
    pub fn read(&mut self) -> Option<Control> {
        match self.parse() {
            Ok(control) => {
                self.warned = false;
                Some(control)
            }
            Err(error) => {
                if !self.warned {
                    tracing::warn!(path = %self.path.display(), "ignoring the control document {}: {error}", self.path.display());
                    self.warned = true;
                }
                None
            }
        }
    }

    /// Reads the document every second and sends every change, until all receivers of `paused` are dropped.
    pub async fn run(mut self, paused: watch::Sender<bool>) {
        let mut tick = tokio::time::interval(INTERVAL);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                _ = paused.closed() => return,
            }
            self.check(&paused);
        }
    }

    fn check(&mut self, paused: &watch::Sender<bool>) {
        let Some(control) = self.read() else { return };
        let changed =
            paused.send_if_modified(|paused| std::mem::replace(paused, control.paused) != control.paused);
        if changed {
            tracing::info!(
                paused = control.paused,
                "{}",
                if control.paused { "paused" } else { "resumed" }
            );
        }
    }

    fn parse(&self) -> Result<Control, UnreadableControl> {
        match std::fs::read(&self.path) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Control::default()),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_document_means_running() {
        let mut watcher = ControlWatcher::new("/nowhere/control.json".into());
        assert_eq!(watcher.read(), Some(Control { paused: false }));
    }

    #[test]
    fn an_invalid_document_changes_nothing_and_is_logged_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.json");
        std::fs::write(&path, r#"{"paused": tru"#).unwrap();
        let mut watcher = ControlWatcher::new(path.clone());
        assert_eq!(watcher.read(), None);
        assert!(watcher.warned);
        std::fs::write(&path, r#"{"paused": true}"#).unwrap();
        assert_eq!(watcher.read(), Some(Control { paused: true }));
        assert!(!watcher.warned);
    }

    #[test]
    fn changes_reach_the_engine_and_only_changes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.json");
        let (sender, mut paused) = watch::channel(false);
        let mut watcher = ControlWatcher::new(path.clone());
        watcher.check(&sender);
        assert!(!paused.has_changed().unwrap());
        std::fs::write(&path, r#"{"paused": true}"#).unwrap();
        watcher.check(&sender);
        assert!(paused.has_changed().unwrap() && *paused.borrow_and_update());
        std::fs::write(&path, "").unwrap();
        watcher.check(&sender);
        assert!(!paused.has_changed().unwrap());
        std::fs::remove_file(&path).unwrap();
        watcher.check(&sender);
        assert!(paused.has_changed().unwrap() && !*paused.borrow_and_update());
    }

    #[tokio::test]
    async fn the_watcher_ends_when_all_receivers_are_dropped() {
        let (sender, paused) = watch::channel(false);
        let task = tokio::spawn(ControlWatcher::new("/nowhere/control.json".into()).run(sender));
        drop(paused);
        task.await.unwrap();
    }
}
