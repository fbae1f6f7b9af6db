//! The product's programs as processes of the test, for local mode: finding them, reading what they say, Ctrl-C.

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

/// Longest end after Ctrl-C: the grace period that the tests give workers (20 s), what local mode adds (10 s), and as
/// much again for a busy machine.
const END: Duration = Duration::from_secs(60);

/// A program of this workspace, built with the same profile as the tests. Builds nothing.
pub fn program(name: &str) -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    // <target>/<profile>/deps/<test>
    let profile = test
        .ancestors()
        .nth(2)
        .context("the test binary is in no target folder")?;
    let path = profile.join(name);
    ensure!(
        path.is_file(),
        "{} is not built: run `cargo build --workspace --bins` with the same profile first, as `make test` does",
        path.display()
    );
    Ok(path)
}

/// A running program; it is killed when the value is dropped before its end.
pub struct Process {
    child: Child,
    output: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts a program; what it says on both streams is collected.
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

    /// Everything said so far.
    pub fn output(&self) -> String {
        self.output.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for a line that contains `text`, and returns the line.
    pub async fn until_says(&mut self, text: &str) -> Result<String> {
        until(&format!("the program says {text:?}"), async || {
            let output = self.output();
            if let Some(line) = output.lines().find(|line| line.contains(text)) {
                return Ok(Ok(line.to_string()));
            }
            if let Some(status) = self.child.try_wait()? {
                return Ok(Err(anyhow!("it has ended with {status} and said:\n{output}")));
            }
            bail!("it said:\n{output}")
        })
        .await?
    }

    /// Ctrl-C.
    pub async fn interrupt(&self) -> Result<()> {
        let pid = self.child.id().context("the program has ended already")?;
        command::run("kill", &["-INT", &pid.to_string()], None)
            .await?
            .ok("kill -INT")
            .map(drop)
    }

    /// Waits for the end; the exit code and everything that was said.
    pub async fn end(mut self) -> Result<(i32, String)> {
        let Ok(status) = tokio::time::timeout(END, self.child.wait()).await else {
            bail!(
                "it did not end within {} s and said:\n{}",
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
            .with_context(|| format!("it was ended by a signal and said:\n{output}"))?;
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
