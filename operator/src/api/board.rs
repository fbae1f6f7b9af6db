//! What the API shows: the latest snapshot, recent events, history. In: groups from whoever runs them, about
//! once a second. Out: the same, with the times of changes, to any number of readers. Readers never delay the
//! writer.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use tokio::sync::watch;

use super::model::{Event, EventKind, Group, Role, Snapshot};
use super::series::{Points, Sample, Series};
use crate::kafka::model::GroupKey;
use crate::sync::lock;

/// Events that are kept per group; `kubectl describe` shows about as many.
const EVENTS: usize = 100;
/// Longest message of an event, in bytes.
const LONGEST: usize = 2000;

/// The board. Cheap to share.
pub struct Board {
    snapshot: watch::Sender<Arc<Snapshot>>,
    events: Mutex<BTreeMap<GroupKey, VecDeque<Event>>>,
    series: Mutex<BTreeMap<GroupKey, Series>>,
    closed: watch::Sender<bool>,
}

impl Default for Board {
    fn default() -> Self {
        let empty = Snapshot {
            as_of: Timestamp::now(),
            role: Role::Starting,
            groups: BTreeMap::new(),
        };
        Self {
            snapshot: watch::Sender::new(Arc::new(empty)),
            events: Mutex::default(),
            series: Mutex::default(),
            closed: watch::Sender::new(false),
        }
    }
}

impl Board {
    /// Shows these groups of local mode and no others. Keeps the times at which conditions changed, and reports
    /// changes of condition Ready as events.
    pub fn publish(&self, groups: Vec<Group>, now: Timestamp) {
        let before = self.snapshot();
        let mut shown = Vec::with_capacity(groups.len());
        for mut group in groups {
            let key = group.summary.key();
            let old = before.groups.get(&key);
            for condition in &mut group.conditions {
                let same = old.and_then(|old| old.conditions.iter().find(|old| old.kind == condition.kind));
                condition.last_transition_time = match same {
                    Some(same) if same.status == condition.status => same.last_transition_time,
                    _ => now,
                };
            }
            self.note_ready(&key, old.map(Arc::as_ref), &group, now);
            // The same allocation: readers see without a comparison that nothing has changed.
            shown.push(match old {
                Some(old) if **old == group => Arc::clone(old),
                _ => Arc::new(group),
            });
        }
        self.show(shown, Role::Local, now);
    }

    /// Shows these groups and no others, as they are. Readers take a group in the same allocation as
    /// unchanged.
    pub fn show(&self, groups: Vec<Arc<Group>>, role: Role, now: Timestamp) {
        let groups: BTreeMap<_, _> = groups
            .into_iter()
            .map(|group| (group.summary.key(), group))
            .collect();
        {
            let mut series = lock(&self.series);
            series.retain(|key, _| groups.contains_key(key));
            for (key, group) in &groups {
                let sample = sample(group);
                match series.get_mut(key) {
                    Some(series) => series.note(now.as_second(), sample),
                    None => {
                        let mut new = Series::of(role == Role::Local);
                        new.note(now.as_second(), sample);
                        series.insert(key.clone(), new);
                    }
                }
            }
        }
        lock(&self.events).retain(|key, _| groups.contains_key(key));
        self.snapshot.send_replace(Arc::new(Snapshot {
            as_of: now,
            role,
            groups,
        }));
    }

    fn note_ready(&self, key: &GroupKey, old: Option<&Group>, new: &Group, now: Timestamp) {
        let (Some(old), new) = (old.map(|old| &old.summary), &new.summary) else {
            return;
        };
        if old.ready == new.ready && old.reason == new.reason {
            return;
        }
        let kind = match new.ready {
            super::model::Truth::False => EventKind::Warning,
            _ => EventKind::Normal,
        };
        let message = format!("Ready is {:?}, {}: {}", new.ready, new.reason, new.message);
        self.event(key, kind, "ReadyChanged", &message, now);
    }

    /// Adds an event. The same message again only moves the time of the last one.
    pub fn event(
        &self,
        key: &GroupKey,
        kind: EventKind,
        reason: &'static str,
        message: &str,
        time: Timestamp,
    ) {
        let mut events = lock(&self.events);
        let events = events.entry(key.clone()).or_default();
        let message = cut(message);
        match events.back_mut() {
            Some(last) if last.reason == reason && last.message == message => last.time = time,
            _ => events.push_back(Event {
                time,
                kind,
                reason: reason.into(),
                message,
            }),
        }
        let surplus = events.len().saturating_sub(EVENTS);
        events.drain(..surplus);
    }

    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.borrow())
    }

    /// Each new snapshot. A slow reader sees the latest one only.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshot.subscribe()
    }

    /// Events of a group, the latest first.
    pub fn events(&self, key: &GroupKey) -> Vec<Event> {
        let events = lock(&self.events);
        let events = events.get(key).into_iter().flatten();
        events.rev().cloned().collect()
    }

    /// History of a group; None if there is no such group.
    pub fn points(&self, key: &GroupKey, since: i64, step: Option<i64>, now: i64) -> Option<Points> {
        let series = lock(&self.series);
        Some(series.get(key)?.points(since, step, now))
    }

    /// Ends all streams, because the program ends.
    pub fn close(&self) {
        self.closed.send_replace(true);
    }

    pub fn closed(&self) -> watch::Receiver<bool> {
        self.closed.subscribe()
    }
}

fn sample(group: &Group) -> Sample {
    let summary = &group.summary;
    Sample {
        lag: summary.lag.map(|lag| lag as f64),
        incoming: summary.in_per_second,
        done: summary.done_per_second,
        // The largest number means unknown.
        replicas: summary
            .workers
            .and_then(|workers| u16::try_from(workers).ok())
            .filter(|workers| *workers < u16::MAX),
    }
}

fn cut(text: &str) -> String {
    if text.len() <= LONGEST {
        return text.to_string();
    }
    format!("{}…", &text[..text.floor_char_boundary(LONGEST)])
}
