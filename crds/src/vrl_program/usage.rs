//! What this process has used: CPU time and memory, from `/proc`. In: limits. Out: nothing, or the limit that
//! is exceeded.

use std::time::{Duration, Instant};

use super::{InvalidProgram, Limits};

/// Linux counts the CPU time of a process in hundredths of a second on all platforms.
const TICK: Duration = Duration::from_millis(10);

/// What was used up to a moment.
pub(super) struct Usage {
    at: Instant,
    cpu: Option<Duration>,
    memory: Option<u64>,
}

impl Usage {
    pub(super) fn now() -> Self {
        Self {
            at: Instant::now(),
            cpu: cpu(),
            memory: memory(),
        }
    }

    /// Whether more than `limits` was used since.
    pub(super) fn check(&self, limits: Limits) -> Result<(), InvalidProgram> {
        let used = match (self.cpu, cpu()) {
            (Some(before), Some(now)) => now.saturating_sub(before),
            _ => self.at.elapsed(),
        };
        if used > limits.cpu {
            return Err(InvalidProgram::TooSlow { cpu: limits.cpu });
        }
        if let (Some(before), Some(now)) = (self.memory, memory())
            && now.saturating_sub(before) > limits.memory
        {
            let memory = limits.memory;
            return Err(InvalidProgram::TooLarge { memory });
        }
        Ok(())
    }
}

/// User and system time of all threads.
fn cpu() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program, in brackets, may contain blanks. utime and stime are the 14th and 15th field.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11);
    let ticks = times.next()?.parse::<u32>().ok()? + times.next()?.parse::<u32>().ok()?;
    Some(TICK * ticks)
}

/// Memory that no file backs, in bytes: heap and stacks.
fn memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_time_are_seen() {
        let before = Usage::now();
        // Far more than other tests free meanwhile: the memory is that of the whole process.
        let limits = |cpu, memory| Limits { cpu, memory };
        let filled = std::hint::black_box(vec![7_u8; 512 << 20]);
        assert!(matches!(
            before.check(limits(Duration::MAX, 16 << 20)),
            Err(InvalidProgram::TooLarge { .. })
        ));
        assert_eq!(before.check(limits(Duration::MAX, u64::MAX)), Ok(()));
        while before.check(limits(TICK, u64::MAX)).is_ok() {
            std::hint::black_box(filled.iter().map(|byte| u64::from(*byte)).sum::<u64>());
        }
    }
}
