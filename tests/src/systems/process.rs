//! Child processes that end with this program, among them the real worker: started with a configuration
//! document, as local mode and the kubelet start it. The worker treats the end of its stdin as SIGTERM, which
//! happens even if this program is killed.

use std::{
    fs::{self, File},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use crds::WorkerConfig;

/// Pause between two checks for the end of a process.
const PAUSE: Duration = Duration::from_millis(10);

/// A started process. Dropping the value kills it.
pub(crate) struct Running(pub Child);

impl Running {
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Fails if the process has ended although it should run.
    pub fn check(&mut self) -> Result<()> {
        match self.0.try_wait()? {
            Some(status) => bail!("it ended unexpectedly: {status}"),
            None => Ok(()),
        }
    }

    /// Waits for the end, and calls `look` meanwhile.
    pub fn wait(&mut self, limit: Duration, mut look: impl FnMut()) -> Result<ExitStatus> {
        let started = Instant::now();
        loop {
            look();
            if let Some(status) = self.0.try_wait()? {
                return Ok(status);
            }
            if started.elapsed() > limit {
                bail!("it has not ended after {} s", limit.as_secs());
            }
            thread::sleep(PAUSE);
        }
    }

    /// Sends a signal by its name, such as STOP.
    pub fn signal(&self, name: &str) -> Result<()> {
        let status = Command::new("kill")
            .args(["-s", name, &self.pid().to_string()])
            .status()
            .context("cannot run kill")?;
        ensure!(status.success(), "kill -s {name} {} failed", self.pid());
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A worker process.
pub(crate) struct WorkerProcess {
    pub process: Running,
    pub log: PathBuf,
}

impl WorkerProcess {
    /// Starts `binary` under a name that is unique in its group. `folder` holds configuration and log; a
    /// worker that is restarted under its name appends to its log. `address` is the address of its pages;
    /// port 0 takes any port. `environment` is added to ours. Its Secrets, if any, are below
    /// [`WorkerProcess::secrets`].
    pub fn start(
        binary: &Path,
        name: &str,
        (folder, address): (&Path, SocketAddr),
        config: &WorkerConfig,
        environment: &[(&str, &str)],
    ) -> Result<Self> {
        let document = folder.join(format!("{name}.json"));
        fs::write(&document, serde_json::to_string_pretty(config)?)?;
        let log = folder.join(format!("{name}.log"));
        let process = Command::new(binary)
            .args(["--exit-on-stdin-eof", "--no-report-status", "--name", name])
            .args(["--http-address", &address.to_string()])
            .arg("--config")
            .arg(&document)
            .arg("--secrets-dir")
            .arg(Self::secrets(folder, name))
            .env_remove("RUST_LOG")
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(File::options().create(true).append(true).open(&log)?)
            .spawn()
            .with_context(|| format!("cannot start {}", binary.display()))?;
        Ok(Self {
            process: Running(process),
            log,
        })
    }

    /// Where a worker of this name finds its Secrets: a folder for each Secret, a file for each key.
    pub fn secrets(folder: &Path, name: &str) -> PathBuf {
        folder.join(format!("{name}.secrets"))
    }

    /// The last lines of its log.
    pub fn last_words(log: &Path, lines: usize) -> String {
        let text = fs::read_to_string(log).unwrap_or_default();
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

/// A line of /proc/PID/status, in MiB: VmRSS is the memory that the process has in RAM, VmHWM its maximum.
/// None after the end of the process.
pub(crate) fn memory_mib(pid: u32, field: &str) -> Option<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    let kib: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib / 1024.0)
}

/// An address that no process listens on. If another process takes it first, the user of the address fails to
/// bind and reports it.
pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?)
}
