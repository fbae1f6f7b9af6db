//! CPU time and memory of a process from /proc, measured the same way for every subject. Linux only. The
//! kernel counts the CPU time of all threads exactly and shows it in hundredths of a second.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

pub(super) use crate::systems::process::Running;
use crate::systems::process::memory_mib;

/// USER_HZ: the unit of /proc, 100 on every architecture that we run on.
const TICKS_PER_SECOND: f64 = 100.0;

/// Servers that use less of a core than this are idle; an idle broker uses 2 %.
const AT_REST: f64 = 0.05;
/// How much may wait to be written to the disk, in MiB.
const UNWRITTEN: f64 = 64.0;
/// How long servers are watched to see whether they are idle.
const LOOK: Duration = Duration::from_millis(500);
/// After this time a run starts anyway.
const REST: Duration = Duration::from_secs(30);

/// Processes that serve the subjects, if they are ours: their CPU time is separated from that of other
/// processes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Servers {
    pub broker: Option<u32>,
    pub database: Option<u32>,
}

/// CPU time of the servers in seconds, each with its children.
#[derive(Clone, Copy, Debug)]
pub(super) struct ServersCpu {
    pub broker: Option<f64>,
    pub database: Option<f64>,
}

impl Servers {
    /// Waits until the servers are idle and the kernel has written the data of the previous run, so that no
    /// run pays for the one before it. Waits for [`REST`] at most.
    pub fn settle(self) -> Result<()> {
        let limit = Instant::now() + REST;
        while Instant::now() < limit {
            let (before, begin) = (self.cpu_seconds()?, Instant::now());
            thread::sleep(LOOK);
            let spent = self.cpu_seconds()?.since(before);
            let used = spent.broker.unwrap_or_default() + spent.database.unwrap_or_default();
            if used <= AT_REST * begin.elapsed().as_secs_f64() && unwritten_mib()? <= UNWRITTEN {
                break;
            }
        }
        Ok(())
    }

    fn cpu_seconds(self) -> Result<ServersCpu> {
        Ok(ServersCpu {
            broker: self.broker.map(family_cpu_seconds).transpose()?,
            database: self.database.map(family_cpu_seconds).transpose()?,
        })
    }
}

impl ServersCpu {
    fn since(self, earlier: ServersCpu) -> Self {
        let since = |now: Option<f64>, earlier: Option<f64>| Some(now? - earlier?);
        Self {
            broker: since(self.broker, earlier.broker),
            database: since(self.database, earlier.database),
        }
    }
}

/// Measures from now on: time, CPU time of a process, and the load of others.
pub(super) struct Window {
    pid: u32,
    servers: Servers,
    started: Instant,
    cpu: f64,
    servers_cpu: ServersCpu,
    busy: f64,
}

/// The result of a window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spent {
    pub seconds: f64,
    pub cpu_seconds: f64,
    pub servers: ServersCpu,
    /// Share of the machine that neither the subject nor the servers used, and that was not idle; unknown if
    /// the broker is not ours.
    /// broker is not ours.
    pub others: Option<f64>,
}

impl Window {
    pub fn open(pid: u32, servers: Servers) -> Result<Self> {
        Ok(Self {
            pid,
            servers,
            started: Instant::now(),
            cpu: cpu_seconds(pid)?,
            servers_cpu: servers.cpu_seconds()?,
            busy: busy_seconds()?,
        })
    }

    pub fn close(&self) -> Result<Spent> {
        let seconds = self.started.elapsed().as_secs_f64();
        self.close_with(seconds, cpu_seconds(self.pid)? - self.cpu)
    }

    /// For a process that has ended: the caller passes its CPU time.
    pub fn close_with(&self, seconds: f64, cpu_seconds_of_subject: f64) -> Result<Spent> {
        let servers = self.servers.cpu_seconds()?.since(self.servers_cpu);
        let others = match servers.broker {
            None => None,
            Some(broker) => {
                let ours = cpu_seconds_of_subject + broker + servers.database.unwrap_or_default();
                let machine = self.started.elapsed().as_secs_f64() * cores() as f64;
                Some(((busy_seconds()? - self.busy - ours) / machine).max(0.0))
            }
        };
        Ok(Spent {
            seconds,
            cpu_seconds: cpu_seconds_of_subject,
            servers,
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

/// CPU time of a process and of its children, including ended ones, in seconds.
fn family_cpu_seconds(pid: u32) -> Result<f64> {
    let mut ticks: f64 = stat(&pid.to_string())?[11..15].iter().sum();
    for entry in fs::read_dir("/proc").context("cannot read /proc")?.flatten() {
        let name = entry.file_name();
        let Some(process) = name
            .to_str()
            .filter(|name| name.starts_with(|c: char| c.is_ascii_digit()))
        else {
            continue;
        };
        // It may have ended meanwhile.
        if let Ok(fields) = stat(process)
            && fields[1] == f64::from(pid)
        {
            ticks += fields[11] + fields[12];
        }
    }
    Ok(ticks / TICKS_PER_SECOND)
}

/// Data that the kernel has not yet written to disks, in MiB; see proc(5).
fn unwritten_mib() -> Result<f64> {
    let text = fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
    let kib = |name: &str| -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok())
            .unwrap_or_default()
    };
    Ok((kib("Dirty:") + kib("Writeback:")) / 1024.0)
}

/// CPU time of all our children that have ended and were waited for, in seconds.
pub(super) fn ended_children_cpu_seconds() -> Result<f64> {
    let fields = stat("self")?;
    Ok((fields[13] + fields[14]) / TICKS_PER_SECOND)
}

/// The fields of /proc/PID/stat after the name, which may contain anything: state, parent, ...; see proc(5).
fn stat(process: &str) -> Result<Vec<f64>> {
    let path = format!("/proc/{process}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let (_, rest) = text
        .rsplit_once(')')
        .with_context(|| format!("{path} has an unexpected format"))?;
    let fields: Vec<f64> = rest
        .split_whitespace()
        .map(|field| field.parse().unwrap_or_default())
        .collect();
    anyhow::ensure!(fields.len() > 15, "{path} is too short");
    Ok(fields)
}

/// Time that the machine's cores were not idle, in seconds, including the time that the host took from them.
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

/// Most memory that the process ever had in RAM, in MiB; None after its end.
pub(super) fn peak_rss_mib(pid: u32) -> Option<f64> {
    memory_mib(pid, "VmHWM")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_uses_cpu_time() {
        let pid = std::process::id();
        assert!(peak_rss_mib(pid).unwrap() > 0.5);
        let window = Window::open(pid, Servers::default()).unwrap();
        let mut sum = 0_u64;
        while window.close().unwrap().cpu_seconds < 0.02 {
            sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(7));
        }
        assert!(window.close().unwrap().others.is_none());
    }
}
