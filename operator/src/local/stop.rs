//! Stop signals of a session: Ctrl-C and SIGTERM. In: signals. Out: one `true` per signal.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// Ctrl-C or SIGTERM.
pub struct StopSignals {
    signals: mpsc::UnboundedReceiver<()>,
}

impl StopSignals {
    pub fn new() -> anyhow::Result<Self> {
        let (sender, received) = mpsc::unbounded_channel();
        for kind in [SignalKind::interrupt(), SignalKind::terminate()] {
            let (mut signals, sender) = (signal(kind)?, sender.clone());
            tokio::spawn(async move { while signals.recv().await.is_some() && sender.send(()).is_ok() {} });
        }
        Ok(Self { signals: received })
    }

    /// True once for each signal.
    pub fn received(&mut self) -> bool {
        self.signals.try_recv().is_ok()
    }
}
