//! The worker processes of a running local mode, found among its child processes: which partitions they have,
//! and their death.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::systems::{command, local::Process, worker_pages::sum};

/// Timeout of an answer of a worker on this machine.
const ANSWER: Duration = Duration::from_secs(5);

/// A worker process.
pub struct LocalWorker {
    pid: u32,
    address: SocketAddr,
}

impl LocalWorker {
    /// The running worker of this name.
    pub fn find(local: &Process, name: &str) -> Result<Self> {
        for pid in children(local.id()?)? {
            let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let arguments: Vec<&str> = command.split('\0').collect();
            let value = |flag: &str| {
                let at = arguments.iter().position(|argument| *argument == flag)?;
                arguments.get(at + 1).copied()
            };
            if value("--name") == Some(name) {
                let address = value("--http-address").context("no address")?.parse()?;
                return Ok(Self { pid, address });
            }
        }
        Err(anyhow::anyhow!("no worker {name} is running"))
    }

    /// Number of partitions that it has.
    pub fn assigned(&self) -> Result<u64> {
        let mut stream = TcpStream::connect_timeout(&self.address, ANSWER)?;
        stream.set_read_timeout(Some(ANSWER))?;
        write!(stream, "GET /metrics HTTP/1.0\r\n\r\n")?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        let assigned = sum(&page, "kcg_worker_assigned_partitions").context("no such metric")?;
        Ok(assigned as u64)
    }

    /// SIGKILL.
    pub async fn kill(&self) -> Result<()> {
        command::run("kill", &["-KILL", &self.pid.to_string()], None)
            .await?
            .ok("kill -KILL")
            .map(drop)
    }
}

/// Any thread of the process may have started a child.
fn children(pid: u32) -> Result<Vec<u32>> {
    let mut children = Vec::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(thread?.path().join("children")).unwrap_or_default();
        children.extend(
            text.split_whitespace()
                .filter_map(|child| child.parse::<u32>().ok()),
        );
    }
    ensure!(!children.is_empty(), "local mode has started no process");
    Ok(children)
}
