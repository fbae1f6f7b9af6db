//! CPU time and memory of a process from /proc, the same way for every subject. Linux only. The kernel counts CPU time of all threads exactly and shows it in hundredths of a second.

use std::{fs, thread, time::Instant};

use anyhow::{Context, Result};

pub(super) use crate::process::Running;
use crate::process::memory_mib;

/// USER_HZ: what /proc counts in, 100 on every architecture we run on.
const TICKS_PER_SECOND: f64 = 100.0;

/// From now on: time, CPU time of a process, and what else went on.
pub(super) struct Window {
    pid: u32,
    broker: Option<u32>,
    started: Instant,
    cpu: f64,
    broker_cpu: f64,
    busy: f64,
}

/// What a window has seen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spent {
    pub seconds: f64,
    pub cpu_seconds: f64,
    /// Share of the machine that neither the subject nor the broker used, and that was not idle; unknown when the
    /// broker is not ours.
    pub others: Option<f64>,
}

impl Window {
    pub fn open(pid: u32, broker: Option<u32>) -> Result<Self> {
        Ok(Self {
            pid,
            broker,
            started: Instant::now(),
            cpu: cpu_seconds(pid)?,
            broker_cpu: broker.map(cpu_seconds).transpose()?.unwrap_or_default(),
            busy: busy_seconds()?,
        })
    }

    pub fn close(&self) -> Result<Spent> {
        let seconds = self.started.elapsed().as_secs_f64();
        self.close_with(seconds, cpu_seconds(self.pid)? - self.cpu)
    }

    /// For a process that has ended: its CPU time comes from elsewhere.
    pub fn close_with(&self, seconds: f64, cpu_seconds_of_subject: f64) -> Result<Spent> {
        let others = match self.broker {
            None => None,
            Some(broker) => {
                let others = busy_seconds()?
                    - self.busy
                    - cpu_seconds_of_subject
                    - (cpu_seconds(broker)? - self.broker_cpu);
                let machine = self.started.elapsed().as_secs_f64() * cores() as f64;
                Some((others / machine).max(0.0))
            }
        };
        Ok(Spent {
            seconds,
            cpu_seconds: cpu_seconds_of_subject,
            others,
        })
    }
}

pub(super) fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// CPU time of a process, in seconds.
pub(super) fn cpu_seconds(pid: u32) -> Result<f64> {
    let fields = stat(&pid.to_string())?;
    Ok((fields[11] + fields[12]) / TICKS_PER_SECOND)
}

/// CPU time of all our children that have ended and been waited for, in seconds.
pub(super) fn ended_children_cpu_seconds() -> Result<f64> {
    let fields = stat("self")?;
    Ok((fields[13] + fields[14]) / TICKS_PER_SECOND)
}

/// The fields of /proc/PID/stat after the name, which may contain anything: state, parent, ...; see proc(5).
fn stat(process: &str) -> Result<Vec<f64>> {
    let path = format!("/proc/{process}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let (_, rest) = text.rsplit_once(')').with_context(|| format!("{path} is odd"))?;
    let fields: Vec<f64> = rest
        .split_whitespace()
        .map(|field| field.parse().unwrap_or_default())
        .collect();
    anyhow::ensure!(fields.len() > 15, "{path} is too short");
    Ok(fields)
}

/// Time that the machine's cores were not idle, in seconds, with the time the host took from them.
fn busy_seconds() -> Result<f64> {
    let text = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    let fields: Vec<f64> = text
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .map(|field| field.parse().unwrap_or_default())
        .collect();
    // user nice system idle iowait irq softirq steal; guest time is in user.
    let busy = [0, 1, 2, 5, 6, 7]
        .iter()
        .filter_map(|index| fields.get(*index))
        .sum::<f64>();
    Ok(busy / TICKS_PER_SECOND)
}

/// Most memory the process ever had in RAM, in MiB; None once it has ended.
pub(super) fn peak_rss_mib(pid: u32) -> Option<f64> {
    memory_mib(pid, "VmHWM")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_process_has_memory_and_uses_cpu_time() {
        let pid = std::process::id();
        assert!(peak_rss_mib(pid).unwrap() > 0.5);
        let window = Window::open(pid, None).unwrap();
        let mut sum = 0_u64;
        while window.close().unwrap().cpu_seconds < 0.02 {
            sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(7));
        }
        assert!(window.close().unwrap().others.is_none());
    }
}
