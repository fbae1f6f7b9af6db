//! Debian's Chromium without a window, driven over WebDriver. The protocol is a few JSON requests; client
//! libraries switch on features of serde_json that what ships does not have, so tests would test another
//! program.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::systems::{local::Process, wait::until};

const DRIVER: &str = "/usr/bin/chromedriver";

/// One page of a browser. Dropping the value ends the browser.
pub struct Browser {
    http: reqwest::Client,
    session: String,
    _driver: Process,
}

impl Browser {
    /// Starts the driver and the browser.
    pub async fn start() -> Result<Self> {
        let mut driver = Process::start(Path::new(DRIVER), &["--port=0"])
            .context("apt-get install chromium chromium-driver")?;
        let line = driver.until_prints("started successfully on port").await?;
        let port = line
            .trim_end_matches('.')
            .rsplit(' ')
            .next()
            .context("no port")?
            .to_string();
        let http = reqwest::Client::builder().no_proxy().build()?;
        let mut browser = Self {
            http,
            session: format!("http://127.0.0.1:{port}/session"),
            _driver: driver,
        };
        // A container has no user namespaces for the sandbox, and a small /dev/shm.
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-proxy-server",
        ];
        let options = json!({"args": arguments});
        let wanted = json!({"capabilities": {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": options}}});
        let answer = browser.post("", wanted).await?;
        let id = answer["sessionId"].as_str().context("no session")?;
        browser.session = format!("{}/{id}", browser.session);
        Ok(browser)
    }

    async fn post(&self, path: &str, body: Value) -> Result<Value> {
        let request = self
            .http
            .post(format!("{}{path}", self.session))
            .header("content-type", "application/json")
            .body(body.to_string());
        Self::answer(request).await
    }

    async fn answer(request: reqwest::RequestBuilder) -> Result<Value> {
        let response = request.send().await?;
        let (status, text) = (response.status(), response.text().await?);
        let answer: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
        if !status.is_success() {
            bail!("WebDriver: {}", answer["value"]["message"]);
        }
        Ok(answer["value"].clone())
    }

    /// Opens a page.
    pub async fn open(&self, url: &str) -> Result<()> {
        self.post("/url", json!({"url": url})).await.map(drop)
    }

    /// Runs the body of an async function in the page and returns its value.
    pub async fn run(&self, body: &str) -> Result<Value> {
        let script = format!(
            "const done = arguments[arguments.length - 1]; (async () => {{ {body} }})().then((value) => done({{value}}), (error) => done({{error: String(error)}}));"
        );
        let answer = self
            .post("/execute/async", json!({"script": script, "args": []}))
            .await?;
        if let Some(error) = answer["error"].as_str() {
            bail!("{error}\nin: {body}");
        }
        Ok(answer["value"].clone())
    }

    /// Waits until an expression of the page is true; the error shows the text of the page.
    pub async fn until(&self, what: &str, expression: &str) -> Result<()> {
        until(what, async || {
            let body = format!("return [Boolean({expression}), document.body.innerText]");
            let answer = self.run(&body).await?;
            anyhow::ensure!(
                answer[0] == true,
                "the page shows:\n{}",
                answer[1].as_str().unwrap_or_default()
            );
            Ok(())
        })
        .await
    }

    /// A command of Chromium's DevTools.
    pub async fn devtools(&self, command: &str, parameters: Value) -> Result<Value> {
        self.post("/goog/cdp/execute", json!({"cmd": command, "params": parameters}))
            .await
    }

    /// Light or dark.
    pub async fn theme(&self, theme: &str) -> Result<()> {
        let features = json!([{"name": "prefers-color-scheme", "value": theme}]);
        self.devtools("Emulation.setEmulatedMedia", json!({"features": features}))
            .await
            .map(drop)
    }

    /// The size of the page in CSS pixels.
    pub async fn size(&self, width: u32, height: u32) -> Result<()> {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.devtools("Emulation.setDeviceMetricsOverride", size)
            .await
            .map(drop)
    }

    /// Presses a key where the focus is.
    pub async fn key(&self, key: char) -> Result<()> {
        let presses = json!([{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]);
        let actions = json!({"actions": [{"type": "key", "id": "keyboard", "actions": presses}]});
        self.post("/actions", actions).await.map(drop)
    }

    /// Writes the visible page as a PNG file.
    pub async fn screenshot(&self, path: &Path) -> Result<()> {
        let answer = Self::answer(self.http.get(format!("{}/screenshot", self.session))).await?;
        let text = answer.as_str().context("no picture")?;
        let bytes = openssl::base64::decode_block(text)?;
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(path, bytes).with_context(|| path.display().to_string())
    }
}

impl Drop for Browser {
    /// The driver ends the browser with the session. The browser would outlive a driver that is killed.
    fn drop(&mut self) {
        let Some((address, path)) = self.session.trim_start_matches("http://").split_once('/') else {
            return;
        };
        let end = || -> std::io::Result<()> {
            let mut stream = TcpStream::connect(address)?;
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            // The driver ignores requests of HTTP/1.0.
            write!(
                stream,
                "DELETE /{path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
            )?;
            stream.read(&mut [0]).map(drop)
        };
        if let Err(error) = end() {
            eprintln!("the browser may still run: {error}");
        }
    }
}

/// Keys as WebDriver names them.
pub mod keys {
    pub const TAB: char = '\u{E004}';
    pub const ENTER: char = '\u{E007}';
    pub const ESCAPE: char = '\u{E00C}';
}
