//! What the handlers of requests share. Plain handles; does nothing.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::board::Board;
use super::cluster::Cluster;
use super::command::Commands;

/// Streams at the same time; a browser tab has one.
const STREAMS: usize = 200;

/// Who runs the groups, and so who decides about requests and changes.
#[derive(Clone)]
pub enum Backend {
    /// Local mode: everybody who reaches the address may read, and changes are commands.
    Local(Commands),
    /// The operator: users have tokens and rights, and changes are requests to the API server.
    Cluster(Arc<Cluster>),
}

/// What the handlers use.
#[derive(Clone)]
pub struct Shared {
    pub board: Arc<Board>,
    pub backend: Backend,
    pub(super) streams: Arc<Semaphore>,
}

impl Shared {
    pub fn new(board: Arc<Board>, backend: Backend) -> Self {
        Self {
            board,
            backend,
            streams: Arc::new(Semaphore::new(STREAMS)),
        }
    }
}
