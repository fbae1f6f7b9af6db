//! Requests to the API server with the kubeconfig of the user. In: paths and patches. Out: JSON and text, or an
//! [`Error`]. Knows nothing of groups; has no cache.

use std::time::Duration;

use axum::http::{Method, Request};
use futures::AsyncBufRead;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::Value;

use super::args::Target;
use super::error::Error;

/// Field manager of changes by the plugin.
const MANAGER: &str = "kubectl-kcg";
/// Longer than the API server itself lets a request wait in its queues (60 s is its limit for all of it), no user
/// waits for more.
const ANSWER: Duration = Duration::from_secs(60);
/// Objects in one answer of a list: groups have up to some 100 kB.
const PAGE: usize = 100;

/// A cluster.
pub struct Cluster {
    client: Client,
    /// Host and port, for messages.
    server: String,
    /// The namespace of the arguments, or of the context.
    pub namespace: String,
}

impl Cluster {
    /// Reads the kubeconfig; does not connect yet.
    pub async fn connect(target: &Target) -> Result<Self, Error> {
        let config = config(target).await?;
        let namespace = target.namespace.clone();
        let namespace = namespace.unwrap_or_else(|| config.default_namespace.clone());
        Self::new(config, namespace)
    }

    fn new(mut config: Config, namespace: String) -> Result<Self, Error> {
        // The client would repeat requests that were answered with 429, 503 or 504, also those that create: after a
        // 504 the object may exist, and a second reset would move the offsets twice.
        config.default_retry = false;
        let url = &config.cluster_url;
        // Not the whole URL: it may have a login.
        let host = url.host().unwrap_or_default();
        let server = match url.port_u16() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_string(),
        };
        let client = Client::try_from(config).map_err(|error| Error::Kubeconfig(error.to_string()))?;
        Ok(Self {
            client,
            server,
            namespace,
        })
    }

    #[cfg(test)]
    pub fn at(address: std::net::SocketAddr) -> Self {
        let config = Config::new(format!("http://{address}").parse().unwrap());
        Self::new(config, "shop".into()).unwrap()
    }

    /// Reads an object.
    pub async fn get(&self, path: &str) -> Result<Value, Error> {
        self.json(Request::get(path), "get", path, Vec::new()).await
    }

    /// Reads all objects of a list, page by page.
    pub async fn list(&self, path: &str, query: &str) -> Result<Vec<Value>, Error> {
        let mut items = Vec::new();
        let mut next = String::new();
        loop {
            let page = format!("{path}?limit={PAGE}{query}{next}");
            let mut list = self.json(Request::get(&page), "list", path, Vec::new()).await?;
            if let Value::Array(found) = list["items"].take() {
                items.extend(found);
            }
            match list["metadata"]["continue"].as_str() {
                Some(token) if !token.is_empty() => next = format!("&continue={}", escaped(token)),
                _ => return Ok(items),
            }
        }
    }

    /// Creates an object in the collection at a path.
    pub async fn create(&self, path: &str, object: &Value) -> Result<Value, Error> {
        let request = Request::post(format!("{path}?fieldManager={MANAGER}"));
        let request = request.header("content-type", "application/json");
        self.json(request, "create", path, object.to_string().into_bytes())
            .await
    }

    /// Sends a merge patch.
    pub async fn patch(&self, path: &str, change: &Value) -> Result<Value, Error> {
        let request = Request::builder()
            .method(Method::PATCH)
            .uri(format!("{path}?fieldManager={MANAGER}"))
            .header("content-type", "application/merge-patch+json");
        self.json(request, "patch", path, change.to_string().into_bytes())
            .await
    }

    /// Reads text, such as a log.
    pub async fn text(&self, path: &str) -> Result<String, Error> {
        self.send(Request::get(path), "get", path, Vec::new()).await
    }

    /// Reads text for as long as it comes.
    pub async fn stream(&self, path: &str) -> Result<impl AsyncBufRead + use<>, Error> {
        let request = Request::get(path).body(Vec::new()).map_err(unsendable)?;
        let stream = self.client.request_stream(request).await;
        stream.map_err(|error| Error::of(error, &self.server, "get", path))
    }

    async fn json(
        &self,
        request: axum::http::request::Builder,
        verb: &str,
        path: &str,
        body: Vec<u8>,
    ) -> Result<Value, Error> {
        let text = self.send(request, verb, path, body).await?;
        serde_json::from_str(&text).map_err(|error| Error::Unreadable(error.to_string()))
    }

    async fn send(
        &self,
        request: axum::http::request::Builder,
        verb: &str,
        path: &str,
        body: Vec<u8>,
    ) -> Result<String, Error> {
        let request = request.body(body).map_err(unsendable)?;
        let answer = tokio::time::timeout(ANSWER, self.client.request_text(request)).await;
        let answer = answer.map_err(|_| Error::NoAnswer {
            seconds: ANSWER.as_secs(),
        })?;
        answer.map_err(|error| Error::of(error, &self.server, verb, path))
    }
}

/// Names from arguments are part of paths.
fn unsendable(error: axum::http::Error) -> Error {
    Error::Impossible(format!("a name or namespace is not valid in Kubernetes: {error}"))
}

async fn config(target: &Target) -> Result<Config, Error> {
    let options = KubeConfigOptions {
        context: target.context.clone(),
        ..KubeConfigOptions::default()
    };
    let read = match &target.kubeconfig {
        Some(file) => {
            let kubeconfig = Kubeconfig::read_from(file).map_err(|error| Error::Kubeconfig(chain(&error)))?;
            Config::from_custom_kubeconfig(kubeconfig, &options).await
        }
        None => Config::from_kubeconfig(&options).await,
    };
    read.or_else(|error| {
        // In a pod there is no kubeconfig.
        let chosen = target.kubeconfig.is_some() || target.context.is_some();
        let in_pod = (!chosen).then(Config::incluster).and_then(Result::ok);
        in_pod.ok_or_else(|| Error::Kubeconfig(chain(&error)))
    })
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.contains(&message) {
            text = format!("{text}: {message}");
        }
        cause = error.source();
    }
    text
}

/// Percent-encodes what a query may not have as it is.
pub fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let encode = |byte: u8| match plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_a_query_are_escaped() {
        assert_eq!(escaped("a=b,c/d e"), "a%3Db%2Cc%2Fd%20e");
        assert_eq!(escaped("orders-worker_1.2~"), "orders-worker_1.2~");
    }

    #[tokio::test]
    async fn a_kubeconfig_that_does_not_exist_is_named() {
        let target = Target {
            kubeconfig: Some("/does/not/exist".into()),
            ..Target::default()
        };
        let error = Cluster::connect(&target).await.map(drop).unwrap_err().to_string();
        assert!(
            error.contains("/does/not/exist") && error.contains("--kubeconfig"),
            "{error}"
        );
    }
}
