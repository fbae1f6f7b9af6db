//! The tables of what is measured in milliseconds and seconds. Pure.

use super::super::{
    latency::Latency,
    table::{hundredths, markdown, tenths},
    takeover::Takeover,
};

pub(super) fn latencies(lines: &[Latency]) -> String {
    let mut rows = vec![
        [
            "records/s",
            "direct consumer p50, ms",
            "p99, ms",
            "added by the worker p50, ms",
            "p99, ms",
            "worker's cores",
            "trials",
        ]
        .map(String::from),
    ];
    rows.extend(lines.iter().map(|line| {
        [
            line.rate.to_string(),
            line.direct.p50.text(tenths),
            line.direct.p99.text(tenths),
            line.added.p50.text(tenths),
            line.added.p99.text(tenths),
            line.cores.text(hundredths),
            line.trials.to_string(),
        ]
    }));
    markdown(&rows)
}

pub(super) fn takeovers(lines: &[Takeover]) -> String {
    let mut rows = vec![
        [
            "worker gets",
            "groupProtocol",
            "session",
            "first partition continues after, s",
            "last partition, s",
            "trials",
        ]
        .map(String::from),
    ];
    rows.extend(lines.iter().map(|line| {
        [
            format!("SIG{}", line.signal),
            line.protocol.into(),
            line.session.into(),
            line.first.text(hundredths),
            line.last.text(hundredths),
            line.trials.to_string(),
        ]
    }));
    markdown(&rows)
}
