//! Opens a connection: TCP, TLS, the broker's versions, the login. In: settings and an address. Out: a stream
//! that is ready for requests, and what the broker accepts. Errors name the likely cause, because most of
//! them come from a wrong address, port or security setting.

use std::collections::HashMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant as Deadline, timeout_at};
use tokio_openssl::SslStream;

use super::frames::{CallError, cause, explain_close, first_reason, read_frame, write_frame};
use super::protocol::error_code::ErrorCode;
use super::protocol::handshake::{ApiVersions, SaslAuthenticate, SaslHandshake};
use super::protocol::{self, Request};
use super::scram::Scram;
use super::settings::{Address, Login, Mechanism, Settings, Tls};

/// A TCP or TLS stream.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// What the broker accepts on this connection.
pub(super) struct Accepted {
    /// Oldest and newest version by request.
    versions: HashMap<i16, (i16, i16)>,
    /// The broker closes the connection when the login expires; a new one is opened before.
    pub(super) login_until: Option<Instant>,
}

impl Accepted {
    /// The newest version that both sides know.
    pub(super) fn version<R: Request>(&self) -> Option<i16> {
        let (oldest, newest) = *self.versions.get(&R::KEY)?;
        let both = |version: &&i16| (oldest..=newest).contains(*version);
        R::VERSIONS.iter().rev().find(both).copied()
    }
}

pub(super) async fn open(
    settings: &Settings,
    address: &Address,
) -> Result<(Box<dyn Stream>, Accepted), CallError> {
    let unreachable = |why: String| CallError::Unreachable(format!("{address}: {why}"));
    let deadline = Deadline::now() + settings.connect;
    let tcp = connect(settings, address, deadline).await.map_err(unreachable)?;
    let mut stream: Box<dyn Stream> = match &settings.tls {
        None => Box::new(tcp),
        Some(tls) => Box::new(encrypt(tls, address, tcp, deadline).await.map_err(unreachable)?),
    };
    let refused = |refusal| match refusal {
        Refusal::Login(why) => CallError::LoginRefused(why),
        Refusal::Connection(why) => unreachable(why),
    };
    let versions = match timeout_at(deadline, introduce(&mut stream, settings)).await {
        Ok(versions) => versions.map_err(refused)?,
        Err(_) => {
            return Err(unreachable(
                "connected, but no answer; is this the port of a Kafka listener?".into(),
            ));
        }
    };
    let login_until = match &settings.login {
        None => None,
        Some(login) => {
            let login = log_in(&mut stream, settings, login);
            match tokio::time::timeout(settings.login_timeout, login).await {
                Ok(until) => until.map_err(refused)?,
                Err(_) => return Err(unreachable("no answer to the login by SASL".into())),
            }
        }
    };
    let accepted = Accepted {
        versions,
        login_until,
    };
    Ok((stream, accepted))
}

/// Tries the addresses of the host one after the other.
async fn connect(settings: &Settings, address: &Address, deadline: Deadline) -> Result<TcpStream, String> {
    let found = match timeout_at(deadline, resolve(address.clone())).await {
        Ok(Some(found)) => found,
        Ok(None) => return Err("the host name does not resolve here".into()),
        Err(_) => return Err("the DNS server does not answer".into()),
    };
    let found: Vec<SocketAddr> = found
        .into_iter()
        .filter(|found| (settings.family)(&found.ip()))
        .collect();
    let mut why = "the host name has no address of broker.address.family".to_string();
    for (index, socket) in found.iter().enumerate() {
        // A host that drops packets leaves time for the addresses after it.
        let left = deadline.saturating_duration_since(Deadline::now());
        let share = left / u32::try_from(found.len() - index).unwrap_or(1).max(1);
        match tokio::time::timeout(share, TcpStream::connect(socket)).await {
            Ok(Ok(stream)) => {
                // Requests are small and written whole.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) => why = cause(&error),
            Err(_) => why = "no answer to the connection attempt; is it blocked by a network policy?".into(),
        }
    }
    Err(why)
}

/// The system's resolver blocks, possibly for longer than anybody waits. It must not use up the threads.
async fn resolve(address: Address) -> Option<Vec<SocketAddr>> {
    static LOOKUPS: Semaphore = Semaphore::const_new(16);
    let permit = LOOKUPS.acquire().await.ok()?;
    let lookup = tokio::task::spawn_blocking(move || {
        let found = (address.host.as_str(), address.port).to_socket_addrs();
        drop(permit);
        found.map(Iterator::collect)
    });
    lookup.await.ok()?.ok()
}

async fn encrypt(
    tls: &Tls,
    address: &Address,
    tcp: TcpStream,
    deadline: Deadline,
) -> Result<SslStream<TcpStream>, String> {
    let failed = |error: openssl::error::ErrorStack| format!("TLS: {error}");
    let ssl = tls
        .connector
        .configure()
        .map_err(failed)?
        .verify_hostname(tls.verify_host)
        .into_ssl(&address.host)
        .map_err(failed)?;
    let mut stream = SslStream::new(ssl, tcp).map_err(failed)?;
    match timeout_at(deadline, Pin::new(&mut stream).connect()).await {
        Ok(Ok(())) => Ok(stream),
        Ok(Err(error)) => {
            let verified = stream.ssl().verify_result();
            if verified != openssl::x509::X509VerifyResult::OK {
                return Err(format!(
                    "the broker's certificate is not valid ({}); check spec.kafka.tls.ca and the host name",
                    verified.error_string()
                ));
            }
            match error.ssl_error() {
                Some(stack) => Err(format!("the TLS handshake failed ({})", first_reason(stack))),
                None => Err(
                    "the broker closed the connection during the TLS handshake; is the listener without TLS?"
                        .into(),
                ),
            }
        }
        Err(_) => Err("no answer to the TLS handshake; is the listener without TLS?".into()),
    }
}

enum Refusal {
    Connection(String),
    Login(String),
}

/// The versions that the broker supports, by request.
async fn introduce(
    stream: &mut Box<dyn Stream>,
    settings: &Settings,
) -> Result<HashMap<i16, (i16, i16)>, Refusal> {
    let versions = exchange(stream, &ApiVersions, settings).await.map_err(|why| {
        Refusal::Connection(match settings.tls {
            None => explain_close(why, "; does the listener expect TLS?"),
            Some(_) => why,
        })
    })?;
    if !versions.error.is_ok() {
        return Err(Refusal::Connection(format!("ApiVersions: {}", versions.error)));
    }
    let ranges = versions.apis.iter().map(|api| (api.key, (api.min, api.max)));
    Ok(ranges.collect())
}

/// Returns the time until which the login is used; None: it does not expire.
async fn log_in(
    stream: &mut Box<dyn Stream>,
    settings: &Settings,
    login: &Login,
) -> Result<Option<Instant>, Refusal> {
    let request = SaslHandshake {
        mechanism: login.mechanism.name().into(),
    };
    let offered = exchange(stream, &request, settings)
        .await
        .map_err(|why| Refusal::Connection(format!("{why}; does the listener expect a login by SASL?")))?;
    if offered.error == ErrorCode::UNSUPPORTED_SASL_MECHANISM {
        return Err(Refusal::Login(format!(
            "the listener does not offer {}, only {}",
            login.mechanism.name(),
            offered.mechanisms.join(", ")
        )));
    }
    if !offered.error.is_ok() {
        let hint = "the listener does not expect a login by SASL";
        return Err(Refusal::Connection(format!("{}: {hint}", offered.error)));
    }
    let lifetime = match login.mechanism {
        Mechanism::Plain => {
            let token = format!("\0{}\0{}", login.username, login.password);
            authenticate(stream, settings, token).await?.1
        }
        Mechanism::Scram(hash) => {
            let scram = Scram::new(hash, &login.username, &login.password, nonce()?);
            let (first, _) = authenticate(stream, settings, scram.first()).await?;
            // The server decides the number of rounds, so computing them may take a while.
            let (second, signature) = tokio::task::spawn_blocking(move || scram.second(&first))
                .await
                .unwrap_or_else(|error| Err(error.to_string()))
                .map_err(Refusal::Login)?;
            let (last, lifetime) = authenticate(stream, settings, second).await?;
            signature.verify(&last).map_err(Refusal::Login)?;
            lifetime
        }
    };
    // A fifth of the lifetime is left for requests that are under way.
    let lifetime = u64::try_from(lifetime).ok().filter(|lifetime| *lifetime > 0);
    Ok(lifetime
        .and_then(|lifetime| Instant::now().checked_add(std::time::Duration::from_millis(lifetime / 5 * 4))))
}

/// The broker's bytes, and the lifetime of the session in milliseconds.
async fn authenticate(
    stream: &mut Box<dyn Stream>,
    settings: &Settings,
    token: String,
) -> Result<(Vec<u8>, i64), Refusal> {
    let request = SaslAuthenticate {
        bytes: token.into_bytes(),
    };
    let answer = exchange(stream, &request, settings)
        .await
        .map_err(Refusal::Connection)?;
    if answer.error.is_ok() {
        return Ok((answer.bytes, answer.session_lifetime_milliseconds));
    }
    let message = answer.message.unwrap_or_else(|| answer.error.to_string());
    Err(Refusal::Login(message))
}

fn nonce() -> Result<String, Refusal> {
    let mut bytes = [0; 18];
    openssl::rand::rand_bytes(&mut bytes)
        .map_err(|error| Refusal::Connection(format!("OpenSSL: {error}")))?;
    Ok(base64::Engine::encode(
        &base64::engine::general_purpose::STANDARD,
        bytes,
    ))
}

/// A request before the connection serves several at a time.
async fn exchange<R: Request>(
    stream: &mut Box<dyn Stream>,
    request: &R,
    settings: &Settings,
) -> Result<R::Answer, String> {
    const CORRELATION: i32 = 0;
    let version = R::VERSIONS.first().copied().unwrap_or_default();
    let frame = protocol::frame(request, version, CORRELATION, &settings.client_id);
    write_frame(stream, &frame).await.map_err(|error| cause(&error))?;
    let body = read_frame(stream).await?;
    if protocol::correlation_id(&body) != Some(CORRELATION) {
        return Err("its answer belongs to another request; is this a Kafka broker?".into());
    }
    protocol::answer::<R>(version, &body)
        .map_err(|malformed| format!("its answer to {} is malformed: {malformed}", R::NAME))
}
