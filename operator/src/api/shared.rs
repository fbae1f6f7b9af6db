//! What the handlers of requests share. Plain handles; does nothing.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::board::Board;
use super::command::Commands;

/// Streams at the same time; a browser tab has one.
const STREAMS: usize = 200;
/// What the handlers use.
#[derive(Clone)]
pub struct Shared {
    pub board: Arc<Board>,
    pub commands: Commands,
    /// What runs the groups: `local`.
    pub mode: &'static str,
    pub(super) streams: Arc<Semaphore>,
}

impl Shared {
    pub fn new(board: Arc<Board>, commands: Commands, mode: &'static str) -> Self {
        Self {
            board,
            commands,
            mode,
            streams: Arc::new(Semaphore::new(STREAMS)),
        }
    }
}
