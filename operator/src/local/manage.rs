//! The API of a session: its address, what it shows, and what users change through it. In: groups and messages
//! of the session. Out: commands of users. Without the feature `api`, nothing listens.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::args::{ApiListen, LocalArgs};
use crate::api::board::Board;
use crate::api::command::{self, SetState};
use crate::api::model::{EventKind, Group};
use crate::api::places::{Place, Places};
use crate::kafka::model::GroupKey;

pub struct Manage {
    pub board: Arc<Board>,
    places: Places,
    commands: mpsc::Receiver<SetState>,
    server: Option<(SocketAddr, JoinHandle<()>)>,
}

impl Manage {
    /// Listens as the arguments say.
    pub async fn open(args: &LocalArgs) -> anyhow::Result<Self> {
        let board = Arc::new(Board::default());
        let (sender, commands) = command::channel();
        if let Some(ApiListen::At(address)) = args.api_listen {
            anyhow::ensure!(
                address.ip().is_loopback() || args.api_allow_remote,
                "--api-listen {address} can be reached from other machines, and there is no login: use 127.0.0.1, or add --api-allow-remote if everybody who reaches it may read it, also the records in dead letter topics, and stop groups"
            );
        }
        let places = Places::default();
        let server = serve(args.api_listen, &board, sender, &places).await?;
        Ok(Self {
            board,
            places,
            commands,
            server,
        })
    }

    /// Where a browser finds the dashboard.
    pub fn url(&self) -> Option<String> {
        let (address, _) = self.server.as_ref()?;
        let shown = if address.ip().is_unspecified() {
            SocketAddr::from(([127, 0, 0, 1], address.port()))
        } else {
            *address
        };
        Some(format!("http://{shown}/"))
    }

    /// Shows these groups, whose dead letters are at these places.
    pub fn publish(&self, groups: Vec<Group>, places: BTreeMap<GroupKey, Option<Place>>) {
        self.places.set(places);
        self.board.publish(groups, Timestamp::now());
    }

    pub fn event(&self, key: &GroupKey, kind: EventKind, reason: &'static str, message: &str) {
        self.board.event(key, kind, reason, message, Timestamp::now());
    }

    /// The next command, if one waits.
    pub fn next_command(&mut self) -> Option<SetState> {
        self.commands.try_recv().ok()
    }

    /// Says goodbye to pages that are open.
    pub fn close(&self) {
        self.board.close();
    }
}

impl Drop for Manage {
    fn drop(&mut self) {
        if let Some((_, task)) = &self.server {
            task.abort();
        }
    }
}

#[cfg(feature = "api")]
async fn serve(
    listen: Option<ApiListen>,
    board: &Arc<Board>,
    commands: command::Commands,
    places: &Places,
) -> anyhow::Result<Option<(SocketAddr, JoinHandle<()>)>> {
    use anyhow::Context as _;

    use crate::api::server;
    use crate::api::shared::{Backend, Shared};

    /// 8080 is the operator's port for probes and metrics, and popular.
    const DEFAULT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8081);

    let address = match listen {
        Some(ApiListen::Off) => return Ok(None),
        Some(ApiListen::At(address)) => address,
        None => DEFAULT,
    };
    let listener = server::bind(address, listen.is_none()).await.with_context(|| {
        format!("cannot listen on {address}; choose another address with --api-listen, or off")
    })?;
    let address = listener.local_addr()?;
    let shared = Shared::new(Arc::clone(board), Backend::Local(commands), places.find());
    let mut first = board.subscribe();
    let served = tokio::spawn(async move {
        // Until something is known, connections wait: no groups would look like an empty session.
        if first.changed().await.is_ok() {
            server::serve(listener, shared).await;
        }
    });
    Ok(Some((address, served)))
}

#[cfg(not(feature = "api"))]
async fn serve(
    listen: Option<ApiListen>,
    _: &Arc<Board>,
    _: command::Commands,
    _: &Places,
) -> anyhow::Result<Option<(SocketAddr, JoinHandle<()>)>> {
    match listen {
        Some(ApiListen::At(_)) => {
            anyhow::bail!("--api-listen: this program was built without the feature api")
        }
        _ => Ok(None),
    }
}
