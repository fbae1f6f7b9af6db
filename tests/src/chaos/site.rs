//! Where runs take place.

use std::{net::SocketAddr, path::PathBuf};

/// The systems and files that a run uses.
#[derive(Clone, Debug)]
pub struct Site {
    /// Plaintext brokers.
    pub bootstrap: String,
    /// The listener whose clients go through a proxy, and the address where that proxy listens. Only
    /// scenarios that cut connections need it, and only one of them can run at a time.
    pub proxied: Option<(String, SocketAddr)>,
    /// URL of a database that its user owns; only scenarios that write to tables need it. Each run creates
    /// its own schema.
    pub postgres: Option<String>,
    /// Called with `restart-broker SIGNAL SECONDS`, it ends the broker with this signal, starts it again
    /// after this time, and returns when the broker is ready. Only scenarios that restart the broker need it.
    pub broker: Option<PathBuf>,
    /// Performs faults of a cluster of three brokers: stop, kill, freeze, thaw, start, isolate and join as
    /// tests/cluster/broker.sh does; `move-leaders NUMBER` and `move-coordinators NUMBER` let all partitions of
    /// all topics, or of the internal ones, prefer the next broker as their leader, NUMBER times in a row.
    /// Only scenarios with such faults need it.
    pub brokers: Option<PathBuf>,
    /// The worker to test.
    pub worker: PathBuf,
    /// For configuration files and logs.
    pub folder: PathBuf,
}
