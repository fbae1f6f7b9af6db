//! One connection to one broker. In: an address and settings, then requests. Out: answers in any number at
//! the same time, each with a deadline and of a bounded size. A connection that fails once is not used again:
//! an answer that is late, cut or of another request says nothing certain about those after it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore, mpsc, oneshot};

use super::frames::{CLOSED, CallError, cause, explain_close, read_frame, write_frame};
use super::handshake::{self, Accepted, Stream};
use super::protocol::{self, Request};
use super::settings::{Address, Settings};
use crate::sync::lock;

/// Requests without an answer on one connection. A broker handles one after the other, so more would only use
/// up the time of those that wait.
const IN_FLIGHT: usize = 8;

/// An open connection. It closes when the last clone is dropped.
#[derive(Clone)]
pub(super) struct Connection {
    shared: Arc<Shared>,
    writer: mpsc::Sender<Vec<u8>>,
}

struct Shared {
    address: Address,
    client_id: String,
    accepted: Accepted,
    next: AtomicI32,
    slots: Semaphore,
    /// A listener that expects a login closes the connection at the first request without one.
    without_login: bool,
    answered: AtomicBool,
    waiting: Mutex<Waiting>,
    /// For the task that serves the stream.
    failed: Notify,
}

/// Requests without an answer, or why the connection has failed.
type Waiting = Result<HashMap<i32, oneshot::Sender<Vec<u8>>>, String>;

impl Connection {
    pub(super) async fn open(settings: &Settings, address: &Address) -> Result<Self, CallError> {
        let (stream, accepted) = handshake::open(settings, address).await?;
        let (writer, frames) = mpsc::channel(IN_FLIGHT);
        let shared = Arc::new(Shared {
            address: address.clone(),
            client_id: settings.client_id.clone(),
            accepted,
            next: AtomicI32::new(0),
            slots: Semaphore::new(IN_FLIGHT),
            without_login: settings.login.is_none(),
            answered: AtomicBool::new(false),
            waiting: Mutex::new(Ok(HashMap::new())),
            failed: Notify::new(),
        });
        tokio::spawn(serve(stream, frames, shared.clone()));
        Ok(Self { shared, writer })
    }

    /// False: the connection has failed, or its login expires soon.
    pub(super) fn usable(&self) -> bool {
        let expired = self
            .shared
            .accepted
            .login_until
            .is_some_and(|until| Instant::now() >= until);
        !expired && lock(&self.shared.waiting).is_ok()
    }

    /// True if the broker supports one of our versions of the request.
    pub(super) fn supports<R: Request>(&self) -> bool {
        self.version::<R>().is_some()
    }

    /// The version of the request that both sides use.
    fn version<R: Request>(&self) -> Option<i16> {
        self.shared.accepted.version::<R>()
    }

    /// Sends the request when its turn has come, and waits at most `timeout` for its answer. A timeout closes
    /// the connection.
    pub(super) async fn call<R: Request>(
        &self,
        request: &R,
        timeout: Duration,
    ) -> Result<R::Answer, CallError> {
        let shared = &self.shared;
        let version = self.version::<R>().ok_or(CallError::Unsupported(R::NAME))?;
        // The semaphore is never closed, and when the connection fails all others end at once.
        let _slot = shared.slots.acquire().await.ok();
        let correlation = shared.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        match &mut *lock(&shared.waiting) {
            Ok(waiting) => drop(waiting.insert(correlation, sender)),
            Err(why) => return Err(shared.unreachable(why)),
        }
        let frame = protocol::frame(request, version, correlation, &shared.client_id);
        let exchange = async {
            // Both fail only when the connection has, which `shared` explains.
            self.writer.send(frame).await.ok()?;
            answer.await.ok()
        };
        let Ok(answered) = tokio::time::timeout(timeout, exchange).await else {
            shared.fail(format!("no answer to {} within {} s", R::NAME, timeout.as_secs()));
            return Err(shared.failure());
        };
        let body = answered.ok_or_else(|| shared.failure())?;
        protocol::answer::<R>(version, &body).map_err(|malformed| {
            shared.fail(format!("its answer to {} is malformed: {malformed}", R::NAME));
            shared.failure()
        })
    }
}

impl Shared {
    fn unreachable(&self, why: &str) -> CallError {
        CallError::Unreachable(format!("{}: {why}", self.address))
    }

    /// Why the connection has failed.
    fn failure(&self) -> CallError {
        match &*lock(&self.waiting) {
            Err(why) => self.unreachable(why),
            Ok(_) => self.unreachable(CLOSED),
        }
    }

    fn explain(&self, why: String) -> String {
        if self.without_login && !self.answered.load(Ordering::Relaxed) {
            let likely = " at the first request; does the listener expect a login by SASL (spec.kafka.sasl)?";
            explain_close(why, likely)
        } else {
            why
        }
    }

    /// Ends all requests; the first reason stays.
    fn fail(&self, why: String) {
        let mut waiting = lock(&self.waiting);
        if waiting.is_ok() {
            *waiting = Err(why);
            self.failed.notify_one();
        }
    }
}

/// Writes requests and reads answers until the connection fails or nobody holds it any more.
async fn serve(stream: Box<dyn Stream>, mut frames: mpsc::Receiver<Vec<u8>>, shared: Arc<Shared>) {
    let (mut reading, mut writing) = tokio::io::split(stream);
    let write = async {
        while let Some(frame) = frames.recv().await {
            if let Err(error) = write_frame(&mut writing, &frame).await {
                return cause(&error);
            }
        }
        CLOSED.to_string()
    };
    let read = async {
        loop {
            let body = match read_frame(&mut reading).await {
                Ok(body) => body,
                Err(why) => return shared.explain(why),
            };
            let Some(correlation) = protocol::correlation_id(&body) else {
                return "its answer is too short".to_string();
            };
            let waiting = match &mut *lock(&shared.waiting) {
                Ok(waiting) => waiting.remove(&correlation),
                Err(why) => return why.clone(),
            };
            let Some(waiting) = waiting else {
                return "it has answered a request that was not sent".to_string();
            };
            shared.answered.store(true, Ordering::Relaxed);
            // The caller may have stopped waiting.
            let _ = waiting.send(body);
        }
    };
    let why = tokio::select! {
        why = write => why,
        why = read => why,
        // Without this the socket would stay open until the broker sends something.
        () = shared.failed.notified() => return,
    };
    shared.fail(why);
}
