//! How much memory records may use, computed from the memory limit of the container. In: the limit. Out:
//! bytes for records in flight, and bytes that librdkafka may read ahead. Without a limit the defaults apply,
//! which suit containers of 256 MiB and more.

use std::path::Path;

/// Bytes in flight of all partitions together, unless the limit requires less.
const MOST: u64 = 64 << 20;
/// Less would make batches of single records. Containers that need less are too small.
const LEAST: u64 = 1 << 20;
/// Records in flight may exist twice, as they were read and as the transforms made them. Records read ahead
/// exist once. The rest of the memory is for the process itself.
const SHARE: u64 = 4;
/// The producer has copies of what is being written: 16 batches of 1 MiB by default.
const PRODUCER: u64 = 16 << 20;

/// How much memory records may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryBudget {
    /// Bytes read and not finished.
    pub in_flight: usize,
    /// Bytes read ahead by librdkafka.
    pub read_ahead: usize,
}

impl MemoryBudget {
    /// For a container with this limit in bytes.
    pub fn new(limit: Option<u64>) -> Self {
        let bytes = limit.map_or(MOST, |limit| {
            (limit.saturating_sub(PRODUCER) / SHARE).clamp(LEAST, MOST)
        }) as usize;
        Self {
            in_flight: bytes,
            read_ahead: bytes,
        }
    }
}

/// The memory limit of this container in bytes; None if there is none.
pub fn limit() -> Option<u64> {
    [
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    ]
    .iter()
    .find_map(|path| read(Path::new(path)))
}

/// "max", and the huge number of cgroup v1, mean no limit.
fn read(path: &Path) -> Option<u64> {
    let limit = std::fs::read_to_string(path).ok()?.trim().parse().ok()?;
    (limit < 1 << 60).then_some(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_containers_get_small_budgets_and_large_ones_the_default() {
        let in_flight = |limit| MemoryBudget::new(limit).in_flight >> 20;
        assert_eq!(in_flight(None), 64);
        assert_eq!(in_flight(Some(8 << 30)), 64);
        assert_eq!(in_flight(Some(128 << 20)), 28);
        assert_eq!(in_flight(Some(1 << 20)), 1);
    }

    #[test]
    fn a_limit_is_read_and_no_limit_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("memory.max");
        for (text, limit) in [
            ("134217728\n", Some(128 << 20)),
            ("max\n", None),
            ("9223372036854771712\n", None),
        ] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(read(&file), limit, "{text}");
        }
        assert_eq!(read(Path::new("/nowhere")), None);
    }
}
