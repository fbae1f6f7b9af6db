//! Which members of a consumer group are workers of the group, by what the operator has seen. In: pods, members.
//! Out: the names of known workers. A worker that has ended without leaving stays a member until its session
//! timeout, so pods are remembered. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// A member with the name of a worker of this group counts only after this time: the watch of the pods may be
/// delayed.
const YOUNG: Duration = Duration::from_secs(5);
/// And after the operator has started, this long: the worker may have ended without leaving before, and its
/// session ends after 45 s.
const STARTING: Duration = Duration::from_secs(60);

/// What is remembered of the members of a group.
#[derive(Debug)]
pub struct MembersMemory {
    since: Instant,
    /// Pods of this group that exist, or whose member is still in the group.
    pods: BTreeSet<String>,
    /// Members without a pod, by worker, and when they were noticed.
    unknown: BTreeMap<String, Instant>,
    /// One of them does not count yet.
    undecided: bool,
    /// Since when more members have the client id of all workers than there are workers.
    surplus: Option<Instant>,
}

impl Default for MembersMemory {
    fn default() -> Self {
        Self {
            since: Instant::now(),
            pods: BTreeSet::new(),
            unknown: BTreeMap::new(),
            undecided: false,
            surplus: None,
        }
    }
}

impl MembersMemory {
    /// Takes over the pods and the workers that are members now. `like_ours` says which names workers of this
    /// group have. Returns the workers that count as known.
    pub fn known(
        &mut self,
        pods: BTreeSet<String>,
        members: &BTreeSet<String>,
        like_ours: impl Fn(&str) -> bool,
        now: Instant,
    ) -> BTreeSet<String> {
        self.pods.retain(|pod| members.contains(pod));
        self.pods.extend(pods);
        self.unknown.retain(|worker, _| members.contains(worker));
        self.undecided = false;
        let mut known = self.pods.clone();
        for worker in members.difference(&self.pods).filter(|worker| like_ours(worker)) {
            let noticed = *self.unknown.entry(worker.clone()).or_insert(now);
            let starting = now.duration_since(self.since) < STARTING;
            if starting || now.duration_since(noticed) < YOUNG {
                known.insert(worker.clone());
                self.undecided = true;
            }
        }
        known
    }

    /// Whether more members than workers with the client id of all workers mean that others use it. Not at
    /// once: a worker whose process has ended without leaving stays a member until its session ends.
    pub fn surplus_counts(&mut self, is_surplus: bool, now: Instant) -> bool {
        if !is_surplus {
            self.surplus = None;
            return false;
        }
        let since = *self.surplus.get_or_insert(now);
        let counts = now.duration_since(since) >= STARTING;
        self.undecided |= !counts;
        counts
    }

    /// A member that will count soon.
    pub fn is_undecided(&self) -> bool {
        self.undecided
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| name.to_string()).collect()
    }

    #[test]
    fn a_worker_that_has_ended_is_known_until_it_has_left_the_group() {
        let mut memory = MembersMemory::default();
        let later = memory.since + STARTING;
        let like_ours = |name: &str| name.starts_with("orders-worker-");
        let (a, none) = (names(&["orders-worker-a"]), names(&[]));
        assert_eq!(memory.known(a.clone(), &a, like_ours, later), a);
        assert_eq!(memory.known(none.clone(), &a, like_ours, later + STARTING), a);
        assert_eq!(memory.known(none.clone(), &none, like_ours, later), none);
    }

    #[test]
    fn more_members_than_workers_count_after_the_session_of_a_dead_one() {
        let mut memory = MembersMemory::default();
        let start = memory.since;
        assert!(!memory.surplus_counts(true, start) && memory.is_undecided());
        assert!(memory.surplus_counts(true, start + STARTING));
        assert!(!memory.surplus_counts(false, start + STARTING));
        assert!(!memory.surplus_counts(true, start + STARTING));
    }

    #[test]
    fn a_member_with_the_name_of_a_worker_counts_after_a_moment() {
        let mut memory = MembersMemory::default();
        let like_ours = |name: &str| name.starts_with("orders-worker-");
        let members = names(&["orders-worker-x", "returns-worker-x"]);
        let (none, x) = (names(&[]), names(&["orders-worker-x"]));
        let start = memory.since;
        assert_eq!(memory.known(none.clone(), &members, like_ours, start), x);
        assert!(memory.is_undecided());
        assert_eq!(
            memory.known(none.clone(), &members, like_ours, start + STARTING),
            none
        );
        assert!(!memory.is_undecided(), "it counts");
        let mut memory = MembersMemory::default();
        let late = memory.since + STARTING;
        assert_eq!(memory.known(none.clone(), &members, like_ours, late), x);
        assert_eq!(
            memory.known(none.clone(), &members, like_ours, late + YOUNG),
            none
        );
    }
}
