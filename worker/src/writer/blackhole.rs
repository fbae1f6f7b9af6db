//! Discards every record, to measure the cost of reading and transforming.

use futures::future::{BoxFuture, ready};

use super::{Rejected, WriteBatch, WriteError, Writer};

/// Accepts everything, keeps nothing.
#[derive(Clone, Copy, Debug)]
pub struct Blackhole;

impl Writer for Blackhole {
    fn write<'a>(&'a self, _batch: WriteBatch<'a>) -> BoxFuture<'a, Result<Vec<Rejected>, WriteError>> {
        Box::pin(ready(Ok(Vec::new())))
    }

    fn reads_headers(&self) -> bool {
        false
    }
}
