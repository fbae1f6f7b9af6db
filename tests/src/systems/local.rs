//! The product's programs as child processes of the test, for local mode: paths, output, Ctrl-C.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::{Child, Command},
    task::JoinHandle,
};

use crate::systems::{command, wait::until};

/// Longest time from Ctrl-C to the end: the grace period that the tests give workers (20 s), the time that
/// local mode adds (10 s), and the same again for a busy machine.
const END: Duration = Duration::from_secs(60);

/// The path of a program of this workspace, built with the same profile as the tests. Builds nothing.
pub fn program(name: &str) -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    // <target>/<profile>/deps/<test>
    let profile = test
        .ancestors()
        .nth(2)
        .context("the test binary is not in a target folder")?;
    let path = profile.join(name);
    ensure!(
        path.is_file(),
        "{} is not built: run `cargo build --workspace --bins` with the same profile first, as `make test` does",
        path.display()
    );
    Ok(path)
}

/// A running program. Dropping the value kills it.
pub struct Process {
    child: Child,
    output: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts a program and collects both of its output streams.
    pub fn start(program: &Path, arguments: &[&str]) -> Result<Self> {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} cannot be started", program.display()))?;
        let output = Arc::new(Mutex::new(String::new()));
        let mut readers = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            readers.push(tokio::spawn(listen(stdout, output.clone())));
        }
        if let Some(stderr) = child.stderr.take() {
            readers.push(tokio::spawn(listen(stderr, output.clone())));
        }
        Ok(Self {
            child,
            output,
            readers,
        })
    }

    /// Everything printed so far.
    pub fn output(&self) -> String {
        self.output.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for a line that contains `text`, and returns the line.
    pub async fn until_prints(&mut self, text: &str) -> Result<String> {
        until(&format!("the program prints {text:?}"), async || {
            let output = self.output();
            if let Some(line) = output.lines().find(|line| line.contains(text)) {
                return Ok(Ok(line.to_string()));
            }
            if let Some(status) = self.child.try_wait()? {
                return Ok(Err(anyhow!("it has ended with {status} and printed:\n{output}")));
            }
            bail!("it printed:\n{output}")
        })
        .await?
    }

    /// Fails if the program has ended.
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("it has ended with {status} and printed:\n{}", self.output()),
        }
    }

    /// Its process id.
    pub fn id(&self) -> Result<u32> {
        self.child.id().context("the program has already ended")
    }

    /// Ctrl-C.
    pub async fn interrupt(&self) -> Result<()> {
        command::run("kill", &["-INT", &self.id()?.to_string()], None)
            .await?
            .ok("kill -INT")
            .map(drop)
    }

    /// Waits for the end. Returns the exit code and everything printed.
    pub async fn end(mut self) -> Result<(i32, String)> {
        let Ok(status) = tokio::time::timeout(END, self.child.wait()).await else {
            bail!(
                "it did not end within {} s and printed:\n{}",
                END.as_secs(),
                self.output()
            );
        };
        for reader in self.readers.drain(..) {
            reader.await?;
        }
        let output = self.output();
        let code = status?
            .code()
            .with_context(|| format!("a signal ended it; it printed:\n{output}"))?;
        Ok((code, output))
    }
}

async fn listen(stream: impl AsyncRead + Unpin, output: Arc<Mutex<String>>) {
    let mut lines = BufReader::new(stream).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
        output.push_str(&line);
        output.push('\n');
    }
}
