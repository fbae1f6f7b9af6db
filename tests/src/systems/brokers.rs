//! A Kafka cluster of three brokers for one test, which stops, kills and freezes single ones. In: the scripts
//! of the test cluster. Out: bootstrap servers. The brokers end with the value.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::systems::{command, env::Env};

/// Three running brokers.
pub struct Brokers {
    scripts: PathBuf,
    state: TempDir,
    /// Addresses of all three, separated by commas.
    pub bootstrap: String,
}

impl Brokers {
    /// Starts them; takes some 20 s.
    pub async fn start(env: &Env) -> Result<Self> {
        // A short path: the scripts limit its length.
        let state = tempfile::Builder::new()
            .prefix("kcg-brokers-")
            .tempdir_in("/tmp")?;
        let mut brokers = Self {
            scripts: env.cluster_scripts.clone(),
            state,
            bootstrap: String::new(),
        };
        let printed = brokers.run("three-brokers.sh", &["start"]).await?;
        let line = printed
            .lines()
            .next()
            .context("three-brokers.sh printed nothing")?;
        brokers.bootstrap = line.trim().to_string();
        Ok(brokers)
    }

    /// `broker.sh COMMAND NUMBER`: stop, kill, freeze, thaw or start.
    pub async fn fault(&self, command: &str, number: usize) -> Result<()> {
        println!("  {command} broker {number}");
        self.run("broker.sh", &[command, &number.to_string()])
            .await
            .map(drop)
    }

    async fn run(&self, script: &str, arguments: &[&str]) -> Result<String> {
        let state = format!("KCG_STATE={}", self.state.path().display());
        let path = self.scripts.join(script);
        let path = path.to_str().context("the path of the scripts is not text")?;
        let mut all = vec![state.as_str(), path];
        all.extend(arguments);
        command::run("env", &all, None).await?.ok(script)
    }
}

impl Drop for Brokers {
    fn drop(&mut self) {
        // A failing test must not leave brokers behind, and there is nobody to report to.
        let _ = Command::new(self.scripts.join("three-brokers.sh"))
            .arg("stop")
            .env("KCG_STATE", self.state.path())
            .output();
    }
}
