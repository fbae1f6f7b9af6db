//! Sends records to a URL. [`classify`] decides what an answer means:
//!
//! - **2xx**: every record of the request is written, unless the body has a result for each record (below).
//! - **425, 429, 503 with `Retry-After`**, and connections that cannot be opened: the writer sends the request
//!   again with backoff, and not before the time that the server asks for.
//! - **408, other 5xx**, timeouts and connections that break off: the same. One record may be the cause, so the
//!   worker looks for it when this does not end although other records are written.
//! - **an answer that does not show which records are written** (a body with failures for another number of
//!   records, JSON that is too large or incomplete, 303, a status above 599): the same. This is no systemic
//!   error, because the worker repeats those with `AtMostOnce` too.
//! - **401, 403, 404, 405, 407, 410 and other redirects**: a user has to fix the cause; the writer retries
//!   at longer intervals. After a 401 or 403 it reads the Secret again, and if the Secret has changed, it
//!   sends the request again immediately.
//! - **other 4xx**: some records are rejected. The worker halves the batch until it has found them; with
//!   format Single the record is known.
//!
//! A JSON body `{"results": [{"status": 201}, {"status": 422, "error": "no such customer"}]}` with one entry
//! per record, in the order of the request, has a result for each record: 2xx is written, 408, 425, 429 and
//! 5xx are retried, anything else is rejected permanently.
//!
//! `Idempotency-Key` is the record id (format Single) or `<first record id>..<last record id>`; a repeated
//! request with the same records has the same key. The writer does not follow redirects. It sends tombstones
//! as `null`.

mod body;
mod classify;
mod retry_after;

use std::{error::Error as _, sync::Mutex, time::Duration};

use bytes::Bytes;
use crds::spec::{self, HttpFormat, HttpMethod, HttpResults};
use futures::future::BoxFuture;
use reqwest::{
    Certificate, Client, Method, RequestBuilder, StatusCode, Url,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
    redirect,
};

use self::{
    body::Body,
    classify::{HttpAnswer, Reply},
    retry_after::RetryAfter,
};
use super::{
    Rejected, WriteBatch, WriteError, Writer,
    partial_writes::{PartialWrites, id},
};
use crate::secrets::{SecretError, SecretFiles};
use crate::sync;

/// TCP and TLS handshakes need a few round trips. A request may take longer, because the server does its
/// work.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Below the usual 60 s after which servers and load balancers close idle connections.
const IDLE_TIMEOUT: Duration = Duration::from_secs(45);
/// Larger than any useful answer about the records of one batch.
const MAX_REPLY: usize = 16 * 1024 * 1024;

/// Why an HTTP writer cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum NewHttpError {
    /// A Secret or ConfigMap is missing or unreadable.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// `http.url` is not a URL.
    #[error("http.url is not a URL: {0}; write for example https://api.example.com/orders")]
    Url(String),
    /// A login in the URL would be visible in status and logs.
    #[error("http.url contains a user name or password; remove it and set http.basicAuth to a Secret")]
    UrlWithLogin,
    /// A header's name or value contains characters that HTTP does not allow.
    #[error("http.headers: the value of {0:?} contains characters that a header cannot have")]
    Header(String),
    /// The login contains characters that HTTP does not allow in a header.
    #[error("the Secret of http.bearerToken or http.basicAuth contains characters that a header cannot have")]
    Login,
    /// The CA bundle is not PEM.
    #[error("http.ca is not a bundle of PEM certificates: {0}")]
    Ca(String),
    /// Any other error of the HTTP client.
    #[error("the HTTP client cannot be created: {0}")]
    Client(String),
}

enum Login {
    None,
    Bearer(spec::SecretKey),
    Basic(spec::SaslCredentials),
}

impl Login {
    fn header(&self, secrets: &SecretFiles) -> Result<Option<HeaderValue>, NewHttpError> {
        let value = match self {
            Login::None => return Ok(None),
            Login::Bearer(key) => format!("Bearer {}", secrets.read(key)?),
            Login::Basic(credentials) => {
                let (username, password) = secrets.login(credentials)?;
                format!(
                    "Basic {}",
                    body::base64(format!("{username}:{password}").as_bytes())
                )
            }
        };
        let mut value = HeaderValue::try_from(value).map_err(|_| NewHttpError::Login)?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

/// Sends batches to one URL.
pub struct HttpWriter {
    client: Client,
    url: Url,
    /// The URL for messages: without its query, which may contain tokens.
    shown: String,
    method: Method,
    format: HttpFormat,
    headers: HeaderMap,
    login: Login,
    authorization: Mutex<Option<HeaderValue>>,
    secrets: SecretFiles,
    partial_writes: PartialWrites,
    results: HttpResults,
    retry_after: RetryAfter,
}

impl HttpWriter {
    /// Reads the Secrets; opens no connection.
    pub fn new(config: &spec::HttpWriter, secrets: SecretFiles) -> Result<Self, NewHttpError> {
        let url = Url::parse(&config.url).map_err(|error| NewHttpError::Url(error.to_string()))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(NewHttpError::UrlWithLogin);
        }
        let mut headers = HeaderMap::new();
        for header in &config.headers {
            let bad = || NewHttpError::Header(header.name.clone());
            let name = HeaderName::try_from(&header.name).map_err(|_| bad())?;
            headers.append(name, HeaderValue::try_from(&header.value).map_err(|_| bad())?);
        }
        let login = match (&config.bearer_token, &config.basic_auth) {
            (Some(token), _) => Login::Bearer(token.clone()),
            (None, Some(credentials)) => Login::Basic(credentials.clone()),
            (None, None) => Login::None,
        };
        let timeout = Duration::from_secs(config.timeout_seconds.max(1).unsigned_abs().into());
        let mut client = Client::builder()
            .user_agent(concat!("kafka-consumer-worker/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .timeout(timeout)
            .connect_timeout(timeout.min(CONNECT_TIMEOUT))
            .pool_idle_timeout(IDLE_TIMEOUT);
        if let Some(ca) = &config.ca {
            let pem = secrets.ca(ca)?;
            let certificates = Certificate::from_pem_bundle(pem.as_bytes())
                .map_err(|error| NewHttpError::Ca(error.to_string()))?;
            if certificates.is_empty() {
                return Err(NewHttpError::Ca("it holds no certificate".into()));
            }
            client = client.tls_certs_only(certificates);
        }
        let authorization = Mutex::new(login.header(&secrets)?);
        Ok(Self {
            client: client
                .build()
                .map_err(|error| NewHttpError::Client(error.to_string()))?,
            shown: shown(&url),
            url,
            method: match config.method {
                HttpMethod::Post => Method::POST,
                HttpMethod::Put => Method::PUT,
            },
            format: config.format,
            headers,
            login,
            authorization,
            secrets,
            partial_writes: PartialWrites::default(),
            results: config.results,
            retry_after: RetryAfter::default(),
        })
    }

    async fn write_batch(&self, batch: WriteBatch<'_>) -> Result<Vec<Rejected>, WriteError> {
        let Body {
            bytes,
            content_type,
            positions,
            mut rejected,
        } = match self.format {
            HttpFormat::JsonArray => body::json_array(&batch),
            HttpFormat::Ndjson => body::ndjson(&batch),
            HttpFormat::Single => return self.write_singly(batch).await,
        };
        let mut sent = batch
            .records()
            .enumerate()
            .filter(|(position, _)| positions.binary_search(position).is_ok());
        let Some((_, first)) = sent.next() else {
            return Ok(rejected);
        };
        let last = sent.last().map_or(first, |(_, last)| last);
        let key = format!("{}..{}", first.record_id(), last.record_id());
        match self.request(bytes, content_type, &key, positions.len()).await? {
            HttpAnswer::Written => {}
            HttpAnswer::PerRecord(results) => {
                let newly_rejected = positions
                    .iter()
                    .zip(results)
                    .filter_map(|(position, result)| Some(result?.rejected(*position)));
                rejected.extend(newly_rejected);
                rejected.sort_by_key(|rejected| rejected.position);
            }
        }
        Ok(rejected)
    }

    /// Sends one request per record, one after another, which keeps their order. An error stops it; the next
    /// call continues behind the last written record.
    async fn write_singly(&self, batch: WriteBatch<'_>) -> Result<Vec<Rejected>, WriteError> {
        let mut written = self.partial_writes.take(&batch);
        let mut rejected = Vec::new();
        for (position, record) in batch.records().enumerate() {
            if written.contains(&id(&record)) {
                continue;
            }
            let (bytes, content_type) = body::single(record.value);
            match self.request(bytes, content_type, &record.record_id(), 1).await {
                Ok(HttpAnswer::Written) => {
                    written.insert(id(&record));
                }
                Err(WriteError::Refused(message)) => {
                    rejected.push(Rejected {
                        position,
                        message,
                        retryable: false,
                        in_doubt: false,
                    });
                }
                Ok(HttpAnswer::PerRecord(results)) => match results.into_iter().next().flatten() {
                    Some(item) => rejected.push(item.rejected(position)),
                    None => {
                        written.insert(id(&record));
                    }
                },
                Err(error) => {
                    self.partial_writes.remember(&batch, written);
                    return Err(error);
                }
            }
        }
        Ok(rejected)
    }

    async fn request(
        &self,
        body: Vec<u8>,
        content_type: &'static str,
        idempotency_key: &str,
        records: usize,
    ) -> Result<HttpAnswer, WriteError> {
        let body = Bytes::from(body);
        self.retry_after.wait().await;
        loop {
            let authorization = sync::lock(&self.authorization).clone();
            let mut request = self
                .client
                .request(self.method.clone(), self.url.clone())
                .header(CONTENT_TYPE, HeaderValue::from_static(content_type))
                .header("idempotency-key", idempotency_key)
                .body(body.clone());
            if let Some(authorization) = authorization.clone() {
                request = request.header(AUTHORIZATION, authorization);
            }
            // After our headers, so that a user-defined Content-Type wins.
            request = request.headers(self.headers.clone());
            let (status, answer) = self.send(request, records).await?;
            return match answer {
                // The request had a login that was corrected in the meantime.
                Err(WriteError::Systemic(_))
                    if matches!(status.as_u16(), 401 | 403) && self.login_changed(authorization.as_ref()) =>
                {
                    continue;
                }
                answer => answer.map_err(|error| error.map_message(|message| self.with_url(message))),
            };
        }
    }

    /// Sends a request for this number of records, and reads the answer as far as it is useful.
    async fn send(
        &self,
        request: RequestBuilder,
        records: usize,
    ) -> Result<(StatusCode, Result<HttpAnswer, WriteError>), WriteError> {
        let mut response = request.send().await.map_err(|error| self.no_answer(error))?;
        let status = response.status();
        let text = |name: &str| {
            response
                .headers()
                .get(name)
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned)
        };
        let retry_after = text("retry-after");
        let is_json = text("content-type")
            .is_some_and(|content_type| content_type.to_ascii_lowercase().contains("json"));
        let (mut body, mut cut) = (Vec::new(), None);
        // The body of a success that is not JSON carries no information.
        while is_json || !status.is_success() {
            match response.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() > MAX_REPLY => {
                    cut = Some(format!(
                        "its answer is larger than {MAX_REPLY} bytes; make the server send a shorter answer"
                    ));
                    break;
                }
                Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                Ok(None) => break,
                Err(error) => {
                    cut = Some(format!("its answer breaks off: {}", causes(error)));
                    break;
                }
            }
        }
        let reply = Reply {
            status: status.as_u16(),
            retry_after: retry_after.as_deref(),
            body: &body,
            is_json,
            cut: cut.as_deref(),
        };
        self.retry_after.note(reply.status, reply.retry_after);
        Ok((status, classify::answer(reply, records, self.results)))
    }

    /// Reads the Secret again. Returns true if it differs from what the request used.
    fn login_changed(&self, used: Option<&HeaderValue>) -> bool {
        let Ok(now) = self.login.header(&self.secrets) else {
            return false;
        };
        let changed = now.as_ref() != used;
        *sync::lock(&self.authorization) = now;
        changed
    }

    fn no_answer(&self, error: reqwest::Error) -> WriteError {
        // The server has not seen the records.
        let connecting = error.is_connect();
        let causes = causes(error);
        // Do not search the URL: if it contained this word, a timeout would count as systemic.
        let certificate = causes.contains("certificate");
        let message = self.with_url(causes);
        if certificate {
            return WriteError::Systemic(format!(
                "{message}; set http.ca to the authority that signed the server's certificate, and check the \
                 host name in http.url"
            ));
        }
        if connecting {
            return WriteError::Transient(message);
        }
        WriteError::Inconclusive(message)
    }

    fn with_url(&self, message: String) -> String {
        format!("{} {}: {message}", self.method, self.shown)
    }
}

/// The error with all its causes.
fn causes(error: reqwest::Error) -> String {
    let timeout = error.is_timeout();
    let error = error.without_url();
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        message.push_str(": ");
        message.push_str(&cause.to_string());
        source = cause.source();
    }
    if timeout {
        message.push_str(" (raise http.timeoutSeconds if the server needs longer)");
    }
    message
}

impl Writer for HttpWriter {
    fn write<'a>(&'a self, batch: WriteBatch<'a>) -> BoxFuture<'a, Result<Vec<Rejected>, WriteError>> {
        Box::pin(self.write_batch(batch))
    }
}

fn shown(url: &Url) -> String {
    let mut shown = url.clone();
    shown.set_query(None);
    shown.set_fragment(None);
    shown.to_string()
}
