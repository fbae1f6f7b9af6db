//! How far a partition of a bounded run is read: which records belong to the run, and when everything in it was read.
//! Pure. Never admits a record outside of the bounds.

use crate::{consumer::bounds::Bound, record::Offset};

/// How far a bounded partition is read.
pub struct BoundedRead {
    bound: Bound,
    /// Everything below the end was read, or does not exist any more.
    read_out: bool,
    /// A seek to the first offset was requested.
    sought: bool,
}

impl BoundedRead {
    /// Reading starts at this offset; None: where Kafka says, which is not known yet.
    pub fn new(bound: Bound, start: Option<Offset>) -> Self {
        let read_out = bound.is_finished(start);
        Self {
            bound,
            read_out,
            sought: false,
        }
    }

    /// Where to seek, once, if this record lies before the run: its partition started without its committed
    /// offset, and none lies in the run, because the client would have started there.
    pub fn seek_from(&mut self, offset: Offset) -> Option<Offset> {
        let seeks = offset < self.bound.from && !self.read_out && !self.sought;
        self.sought |= seeks;
        seeks.then_some(self.bound.from)
    }

    /// True for a record of the run. The first record behind the end shows that all before were read, because
    /// Kafka returns the records of a partition in the order of their offsets.
    pub fn admits(&mut self, offset: Offset) -> bool {
        self.read_out |= offset >= self.bound.to;
        !self.read_out && offset >= self.bound.from
    }

    /// The part of these offsets that belongs to the run.
    pub fn clamp(&self, from: Offset, to: Offset) -> (Offset, Offset) {
        let Bound { from: first, to: end } = self.bound;
        (from.clamp(first, end), to.clamp(first, end))
    }

    /// The log ends at this offset for now.
    pub fn log_ends(&mut self, offset: Offset) {
        self.read_out |= offset >= self.bound.to;
    }

    /// True if everything below the end was read.
    pub fn is_read_out(&self) -> bool {
        self.read_out
    }

    /// True if nothing is left to process, from the committed offset of the group.
    pub fn is_finished(&self, committed: Option<Offset>) -> bool {
        self.bound.is_finished(committed)
    }

    /// The first offset that does not belong to the run.
    pub fn end(&self) -> Offset {
        self.bound.to
    }
}
