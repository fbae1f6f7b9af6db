//! A writer that does as it is told.

use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use futures::future::BoxFuture;

use crate::{
    offsets::FinishedSet,
    record::{Offset, TopicPartition},
    writer::{Rejected, WriteBatch, WriteError, Writer},
};

/// What the writer does with a record, by offset; the last instruction stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Does {
    Accept,
    RetryLater,
    /// As `RetryLater`, but it may have been taken.
    Doubt,
    Refuse,
    RefuseBatch,
    Fail,
    /// Somebody has to mend something.
    Break,
}

#[derive(Default)]
pub struct Script {
    script: Mutex<HashMap<Offset, Vec<Does>>>,
    written: Mutex<Vec<Offset>>,
    /// The answers to claims; without any, nothing is finished.
    pub claims: Mutex<Vec<Result<FinishedSet, WriteError>>>,
    /// Nothing is wrong with bad records any more.
    mended: AtomicBool,
}

impl Script {
    pub fn tell(&self, offset: Offset, does: &[Does]) {
        self.script.lock().unwrap().insert(offset, does.to_vec());
    }

    fn next(&self, offset: Offset) -> Does {
        match self.script.lock().unwrap().get_mut(&offset) {
            Some(does) if does.len() > 1 => does.remove(0),
            Some(does) => does[0],
            None => Does::Accept,
        }
    }

    pub fn mend(&self) {
        self.mended.store(true, Ordering::SeqCst);
    }

    pub fn is_mended(&self) -> bool {
        self.mended.load(Ordering::SeqCst)
    }

    pub fn written(&self) -> Vec<Offset> {
        self.written.lock().unwrap().clone()
    }
}

impl Writer for Script {
    fn write<'a>(&'a self, batch: WriteBatch<'a>) -> BoxFuture<'a, Result<Vec<Rejected>, WriteError>> {
        Box::pin(async move {
            let does: Vec<Does> = batch.records().map(|record| self.next(record.offset())).collect();
            if does.contains(&Does::Fail) {
                return Err(WriteError::Transient("away".into()));
            }
            if does.contains(&Does::Break) {
                return Err(WriteError::Systemic("broken".into()));
            }
            if does.contains(&Does::RefuseBatch) {
                return Err(WriteError::Refused("one of them".into()));
            }
            let mut rejected = Vec::new();
            for (position, (record, does)) in batch.records().zip(does).enumerate() {
                match does {
                    Does::Accept => self.written.lock().unwrap().push(record.offset()),
                    _ => rejected.push(Rejected {
                        position,
                        message: "no".into(),
                        retryable: matches!(does, Does::RetryLater | Does::Doubt),
                        in_doubt: does == Does::Doubt,
                    }),
                }
            }
            Ok(rejected)
        })
    }

    fn claim<'a>(&'a self, _: &'a TopicPartition, _: u64) -> BoxFuture<'a, Result<FinishedSet, WriteError>> {
        let answer = self.claims.lock().unwrap().pop();
        Box::pin(async { answer.unwrap_or_else(|| Ok(FinishedSet::default())) })
    }
}
