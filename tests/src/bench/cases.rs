//! What is measured: the data, the cases, and the subjects of each. Pure.

use super::{
    peers::Peer,
    work::{ByKey, CopyGuarantee, Work},
};

/// The content of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Data {
    /// 100 bytes each, without keys.
    P100,
    /// 1000 bytes each, without keys.
    P1k,
    /// JSON documents of about 250 bytes, keyed by user.
    Orders,
    /// The same, fewer and on eight partitions.
    OrdersOn8,
    /// The same, fewer again: for writers that are slower than Kafka.
    OrdersFew,
    /// No records.
    Empty,
}

impl Data {
    pub fn name(self) -> &'static str {
        match self {
            Data::P100 => "p100",
            Data::P1k => "p1k",
            Data::Orders | Data::OrdersFew => "orders",
            Data::OrdersOn8 => "orders-on-8",
            Data::Empty => "empty",
        }
    }

    pub fn records(self, quick: bool) -> u64 {
        let all = match self {
            Data::P100 => 10_000_000,
            Data::P1k => 2_000_000,
            Data::Orders => 3_000_000,
            Data::OrdersOn8 => 1_000_000,
            Data::OrdersFew => 400_000,
            Data::Empty => 0,
        };
        if quick { all / 10 } else { all }
    }

    pub fn partitions(self) -> i32 {
        match self {
            Data::OrdersOn8 => 8,
            _ => 12,
        }
    }

    /// The name contains the number, so that quick runs do not touch the large topics.
    pub fn topic(self, quick: bool) -> String {
        format!("bench-{}-{}", self.name(), self.records(quick))
    }
}

/// A measured program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    Raw,
    Worker(Work),
    Java,
    /// COPY and merge, a loop written by hand, over this many connections.
    CopyMerge(usize),
    /// Only with `--peers`.
    Peer(Peer),
}

impl Subject {
    pub fn name(self) -> &'static str {
        match self {
            Subject::Raw => "raw",
            Subject::Worker(Work::Copy(guarantee)) => guarantee.name(),
            Subject::Worker(_) => "worker",
            Subject::Java => "java",
            Subject::CopyMerge(1) => "copy-merge",
            Subject::CopyMerge(_) => "copy-merge, 4 connections",
            Subject::Peer(peer) => peer.name(),
        }
    }
}

/// The yardstick for the other subjects of a case.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Yardstick {
    /// This subject in the same round.
    Subject(&'static str),
    /// This many records per second, which no subject can exceed.
    Rate(f64),
}

/// One comparison: subjects that read the same topic in turns.
#[derive(Debug)]
pub(super) struct Case {
    pub name: &'static str,
    pub data: Data,
    pub yardstick: Yardstick,
    pub subjects: &'static [Subject],
}

impl Case {
    pub fn needs_postgres(&self) -> bool {
        self.subjects.contains(&Subject::Worker(Work::Postgres))
    }
}

const RAW: Yardstick = Yardstick::Subject("raw");
const AT_LEAST_ONCE: Yardstick = Yardstick::Subject("at-least-once");
/// All cases, in the order of running.
pub(super) const CASES: &[Case] = &[
    Case {
        name: "p100-identity-blackhole",
        data: Data::P100,
        yardstick: RAW,
        subjects: &[Subject::Raw, Subject::Worker(Work::Identity), Subject::Java],
    },
    Case {
        name: "p1k-identity-blackhole",
        data: Data::P1k,
        yardstick: RAW,
        subjects: &[Subject::Raw, Subject::Worker(Work::Identity), Subject::Java],
    },
    Case {
        name: "orders-json-vrl-blackhole",
        data: Data::Orders,
        yardstick: RAW,
        subjects: &[
            Subject::Raw,
            Subject::Worker(Work::Transform),
            Subject::Peer(Peer::Jackson),
            Subject::Peer(Peer::Connect),
        ],
    },
    Case {
        name: "orders-json-vrl-kafka",
        data: Data::Orders,
        yardstick: RAW,
        subjects: &[Subject::Raw, Subject::Worker(Work::TransformToKafka)],
    },
    Case {
        name: "orders-fields-blackhole",
        data: Data::Orders,
        yardstick: RAW,
        subjects: &[Subject::Raw, Subject::Worker(Work::Fields)],
    },
    Case {
        name: "orders-vrl-fields-blackhole",
        data: Data::Orders,
        yardstick: RAW,
        subjects: &[Subject::Raw, Subject::Worker(Work::FieldsByVrl)],
    },
    Case {
        name: "orders-by-key-blackhole",
        data: Data::Orders,
        yardstick: RAW,
        subjects: &[
            Subject::Raw,
            Subject::Worker(Work::ByKey(ByKey::NoWork)),
            Subject::Peer(Peer::ParallelConsumer(0)),
        ],
    },
    Case {
        name: "orders-by-key-1ms",
        data: Data::OrdersOn8,
        yardstick: Yardstick::Rate(100.0 / 0.001),
        subjects: &[
            Subject::Worker(Work::ByKey(ByKey::OneMillisecond)),
            Subject::Peer(Peer::ParallelConsumer(1000)),
        ],
    },
    Case {
        name: "p100-copy-kafka",
        data: Data::P100,
        yardstick: AT_LEAST_ONCE,
        subjects: &[
            Subject::Worker(Work::Copy(CopyGuarantee::AtLeastOnce)),
            Subject::Worker(Work::Copy(CopyGuarantee::ExactlyOnce)),
        ],
    },
    Case {
        name: "p1k-copy-kafka",
        data: Data::P1k,
        yardstick: AT_LEAST_ONCE,
        subjects: &[
            Subject::Worker(Work::Copy(CopyGuarantee::AtLeastOnce)),
            Subject::Worker(Work::Copy(CopyGuarantee::ExactlyOnce)),
            Subject::Peer(Peer::MirrorMaker),
        ],
    },
    Case {
        name: "orders-postgres",
        data: Data::OrdersFew,
        yardstick: Yardstick::Subject("copy-merge"),
        subjects: &[
            Subject::CopyMerge(1),
            // As many as the worker uses.
            Subject::CopyMerge(4),
            Subject::Worker(Work::Postgres),
            Subject::Peer(Peer::Python),
        ],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_has_its_yardstick_among_its_subjects() {
        for case in CASES {
            if let Yardstick::Subject(name) = case.yardstick {
                let mut subjects = case.subjects.iter();
                assert!(subjects.any(|subject| subject.name() == name), "{}", case.name);
            }
        }
    }

    #[test]
    fn topics_of_different_content_have_different_names() {
        let all = [
            Data::P100,
            Data::P1k,
            Data::Orders,
            Data::OrdersOn8,
            Data::OrdersFew,
            Data::Empty,
        ];
        let mut names: Vec<String> = all
            .iter()
            .flat_map(|data| [true, false].map(|quick| data.topic(quick)))
            .collect();
        names.sort();
        let count = names.len();
        names.dedup();
        // Without records, the quick topic equals the full one.
        assert_eq!(names.len(), count - 1);
    }
}
