//! A queue that no owner can fill: each owner has one place in it, so the owners take turns. In: the owner of a
//! piece of work. Out: the permission to do it. Knows nothing of the work.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

use tokio::sync::{OwnedMutexGuard, Semaphore, SemaphorePermit};

use crate::sync::lock;

type Place = tokio::sync::Mutex<()>;

#[derive(Debug)]
pub struct FairQueue {
    slots: Semaphore,
    /// The places of the owners that wait or work.
    places: Mutex<HashMap<String, Weak<Place>>>,
}

/// The permission to work; it ends when the value is dropped.
pub struct Turn<'a> {
    /// None: the queue was closed, which never happens.
    _slot: Option<SemaphorePermit<'a>>,
    _place: OwnedMutexGuard<()>,
}

impl FairQueue {
    /// At most `slots` pieces of work at the same time.
    pub fn new(slots: usize) -> Self {
        Self {
            slots: Semaphore::new(slots),
            places: Mutex::default(),
        }
    }

    /// Waits until it is the turn of `owner`. Both waits are first come, first served.
    pub async fn turn(&self, owner: &str) -> Turn<'_> {
        let place = self.place(owner).lock_owned().await;
        Turn {
            _slot: self.slots.acquire().await.ok(),
            _place: place,
        }
    }

    fn place(&self, owner: &str) -> Arc<Place> {
        let mut places = lock(&self.places);
        if let Some(place) = places.get(owner).and_then(Weak::upgrade) {
            return place;
        }
        places.retain(|_, place| place.strong_count() > 0);
        let place = Arc::new(Place::default());
        places.insert(owner.into(), Arc::downgrade(&place));
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn owners_take_turns() {
        let queue = Arc::new(FairQueue::new(1));
        let done = Arc::new(Mutex::new(Vec::new()));
        let first = queue.turn("a").await;
        let mut tasks = Vec::new();
        for owner in ["a", "a", "a", "b", "b", "c"] {
            let (queue, done) = (queue.clone(), done.clone());
            tasks.push(tokio::spawn(async move {
                let _turn = queue.turn(owner).await;
                lock(&done).push(owner);
            }));
            tokio::task::yield_now().await;
        }
        drop(first);
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*lock(&done), ["b", "c", "a", "b", "a", "a"]);
        drop(queue.turn("d").await);
        assert_eq!(lock(&queue.places).len(), 1, "those who left are forgotten");
    }

    #[tokio::test]
    async fn an_owner_that_stops_waiting_gives_its_place_back() {
        let queue = FairQueue::new(1);
        let first = queue.turn("a").await;
        let soon = std::time::Duration::from_millis(5);
        assert!(tokio::time::timeout(soon, queue.turn("a")).await.is_err());
        assert!(tokio::time::timeout(soon, queue.turn("b")).await.is_err());
        drop(first);
        drop(queue.turn("b").await);
        drop(queue.turn("a").await);
    }
}
