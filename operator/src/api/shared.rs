//! What the handlers of requests share: handles, and places for streams. In: who wants a stream. Out: a place, or
//! a problem if there are too many.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::http::StatusCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::board::Board;
use super::cluster::Cluster;
use super::command::Commands;
use super::dead_letters::DeadLetters;
use super::places::Find;
use super::problem::Problem;
use crate::sync::lock;

/// Streams at the same time; a browser tab has one.
const STREAMS: usize = 200;
/// Streams of one user at the same time, so that nobody takes those of all others.
const OF_ONE_USER: usize = 10;

/// Who runs the groups, and so who decides about requests and changes.
#[derive(Clone)]
pub enum Backend {
    /// Local mode: everybody who reaches the address may read, and changes are commands.
    Local(Commands),
    /// The operator: users have tokens and rights, and changes are requests to the API server.
    Cluster(Arc<Cluster>),
}

/// What the handlers use.
#[derive(Clone)]
pub struct Shared {
    pub board: Arc<Board>,
    pub backend: Backend,
    pub(super) dead_letters: Arc<DeadLetters>,
    pub(super) streams: Streams,
}

impl Shared {
    /// `find` says where the dead letters of a group are.
    pub fn new(board: Arc<Board>, backend: Backend, find: Find) -> Self {
        Self {
            board,
            backend,
            dead_letters: Arc::new(DeadLetters::new(find)),
            streams: Streams::default(),
        }
    }
}

/// Places for streams.
#[derive(Clone)]
pub struct Streams {
    all: Arc<Semaphore>,
    /// Number of streams of each user who has one.
    users: Arc<Mutex<HashMap<String, usize>>>,
}

impl Default for Streams {
    fn default() -> Self {
        Self {
            all: Arc::new(Semaphore::new(STREAMS)),
            users: Arc::default(),
        }
    }
}

impl Streams {
    /// A place for a stream of this user; None: local mode has no users.
    pub fn place(&self, user: Option<&str>) -> Result<StreamPlace, Problem> {
        let too_many = |detail: String| {
            let detail = format!("{detail} streams are open already; close some, or poll /api/v1/groups");
            Problem::new(StatusCode::TOO_MANY_REQUESTS, "TooManyStreams", detail)
        };
        let all = Arc::clone(&self.all).try_acquire_owned();
        let all = all.map_err(|_| too_many(STREAMS.to_string()))?;
        if let Some(user) = user {
            let mut users = lock(&self.users);
            let streams = users.entry(user.into()).or_default();
            if *streams >= OF_ONE_USER {
                return Err(too_many(format!("{OF_ONE_USER} of your")));
            }
            *streams += 1;
        }
        Ok(StreamPlace {
            _all: all,
            users: Arc::clone(&self.users),
            user: user.map(String::from),
        })
    }
}

/// A place for a stream, free again when it is dropped.
pub struct StreamPlace {
    _all: OwnedSemaphorePermit,
    users: Arc<Mutex<HashMap<String, usize>>>,
    user: Option<String>,
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        let Some(user) = &self.user else { return };
        let mut users = lock(&self.users);
        if let Some(streams) = users.get_mut(user) {
            *streams -= 1;
            if *streams == 0 {
                users.remove(user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_ten_streams_and_local_mode_has_all() {
        let streams = Streams::default();
        let mut places: Vec<_> = (0..10).map(|_| streams.place(Some("a")).unwrap()).collect();
        let problem = streams.place(Some("a")).err().unwrap();
        assert_eq!((problem.status, problem.reason), (429, "TooManyStreams"));
        assert!(
            problem.detail.contains("10 of your streams"),
            "{}",
            problem.detail
        );
        let other = streams.place(Some("b")).unwrap();
        places.pop();
        places.push(streams.place(Some("a")).unwrap());
        drop((places, other));
        assert!(lock(&streams.users).is_empty());
        let places: Vec<_> = (0..200).map(|_| streams.place(None).unwrap()).collect();
        assert!(streams.place(None).is_err() && streams.place(Some("a")).is_err());
        drop(places);
        assert!(streams.place(Some("a")).is_ok());
    }
}
