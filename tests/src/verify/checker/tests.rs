use super::*;

/// Two partitions: 0 has records at the offsets 0 to 4, of the keys 0 0 1 0 1, the third is poison; 1 has one
/// at 10.
fn inputs() -> BTreeMap<i32, Vec<Sent>> {
    let sent = |offset, key, poison| Sent { offset, key, poison };
    [
        (
            0,
            vec![
                sent(0, 0, false),
                sent(1, 0, false),
                sent(2, 1, true),
                sent(3, 0, false),
                sent(4, 1, false),
            ],
        ),
        (1, vec![sent(10, 0, false)]),
    ]
    .into()
}

/// A log with these input records in its partition 0, in this order.
fn log(records: &[(i32, u64)]) -> Vec<Arrival> {
    (0..)
        .zip(records)
        .map(|(offset, (partition, seq))| {
            arrival(
                offset,
                What::Record {
                    partition: *partition,
                    seq: *seq,
                },
            )
        })
        .collect()
}

fn arrival(offset: i64, what: What) -> Arrival {
    Arrival {
        place: Place { partition: 0, offset },
        what,
    }
}

fn sample(committed: [i64; 2], output_end: i64, letter_end: i64) -> Sample {
    Sample {
        committed: (0..).zip(committed).collect(),
        stored: BTreeMap::new(),
        output_ends: [(0, output_end)].into(),
        letter_ends: [(0, letter_end)].into(),
    }
}

/// A history without faults.
fn good() -> History {
    let output = log(&[(0, 0), (0, 1), (1, 0), (0, 3), (0, 4)]);
    History {
        inputs: inputs(),
        names: BTreeMap::new(),
        uncommitted_total: output.len() as u64,
        live: output.iter().map(|arrival| arrival.place).collect(),
        output,
        letters: log(&[(0, 2)]),
        samples: vec![
            sample([0, 10], 0, 0),
            sample([2, 10], 2, 0),
            sample([2, 11], 3, 1),
            sample([5, 11], 5, 1),
        ],
    }
}

/// The findings after a change: kinds and counts.
fn findings(change: impl FnOnce(&mut History)) -> Vec<(Kind, u64)> {
    let mut history = good();
    change(&mut history);
    let verdict = check(history);
    verdict
        .findings
        .iter()
        .map(|(kind, finding)| {
            assert!(!finding.examples.is_empty() && finding.examples.len() <= EXAMPLES);
            (*kind, finding.count)
        })
        .collect()
}

#[test]
fn a_history_without_faults_has_no_findings() {
    assert_eq!(findings(|_| {}), []);
    let verdict = check(good());
    assert_eq!((verdict.expected, verdict.arrived, verdict.letters), (6, 5, 1));
    assert_eq!(verdict.to_string(), "6 written, 5 arrived, 1 dead letters");
}

#[test]
fn a_record_that_never_arrives_is_lost() {
    let lost = findings(|history| {
        history.output.remove(1);
        // Without a commit past it, this is the only finding.
        history.samples.clear();
        history.live.clear();
    });
    assert_eq!(lost, [(Kind::Lost, 1)]);
}

#[test]
fn a_replay_duplicates_records_and_reorders_none() {
    let replay = findings(|history| {
        history.output = log(&[(0, 0), (0, 1), (1, 0), (0, 0), (0, 1), (0, 3), (0, 4)]);
        history.samples.clear();
    });
    assert_eq!(replay, [(Kind::Duplicated, 2)]);
}

#[test]
fn a_late_record_is_reordered_per_key_or_only_in_its_partition() {
    let same_key = findings(|history| {
        history.output = log(&[(0, 1), (0, 0), (1, 0), (0, 3), (0, 4)]);
        history.samples.clear();
    });
    assert_eq!(
        same_key,
        [(Kind::ReorderedPerKey, 1), (Kind::ReorderedInPartition, 1)]
    );
    let other_key = findings(|history| {
        history.output = log(&[(0, 0), (0, 1), (1, 0), (0, 4), (0, 3)]);
        history.samples.clear();
    });
    assert_eq!(other_key, [(Kind::ReorderedInPartition, 1)]);
}

#[test]
fn a_record_that_was_visible_and_then_disappears_was_aborted() {
    let place = Place {
        partition: 0,
        offset: 99,
    };
    assert_eq!(
        findings(|history| history.live.push(place)),
        [(Kind::AbortedVisible, 1)]
    );
}

#[test]
fn a_commit_before_the_record_is_in_output_or_dead_letters_is_found_even_if_the_record_follows() {
    let output = findings(|history| history.samples[1] = sample([2, 10], 1, 0));
    assert_eq!(output, [(Kind::CommittedPastUndone, 1)]);
    let letters = findings(|history| history.samples[3] = sample([5, 11], 5, 0));
    assert_eq!(letters, [(Kind::CommittedPastUndone, 1)]);
    let beyond = findings(|history| history.samples.push(sample([6, 11], 5, 1)));
    assert_eq!(beyond, [(Kind::CommittedPastUndone, 1)]);
}

#[test]
fn a_commit_below_an_earlier_one_is_found_once() {
    let back = findings(|history| {
        history.samples.extend([
            sample([3, 11], 5, 1),
            sample([4, 11], 5, 1),
            sample([5, 11], 5, 1),
        ]);
    });
    assert_eq!(back, [(Kind::CommittedWentBack, 1)]);
    let gone = findings(|history| {
        let mut nothing = sample([5, 11], 5, 1);
        nothing.committed.remove(&1);
        history.samples.extend([nothing, sample([5, 11], 5, 1)]);
    });
    assert_eq!(gone, [(Kind::CommittedWentBack, 1)]);
}

#[test]
fn offsets_next_to_the_rows_are_judged_like_committed_ones_but_may_lag_behind() {
    let stored = |stored: [[i64; 2]; 4]| {
        findings(|history| {
            for (sample, stored) in history.samples.iter_mut().zip(stored) {
                sample.stored = (0..).zip(stored).collect();
            }
        })
    };
    assert_eq!(stored([[0, 10], [2, 10], [2, 11], [5, 11]]), []);
    assert_eq!(stored([[0, 10], [2, 10], [2, 11], [2, 11]]), []);
    assert_eq!(
        stored([[0, 10], [3, 10], [3, 11], [5, 11]]),
        [(Kind::CommittedPastUndone, 1)]
    );
    assert_eq!(
        stored([[0, 10], [2, 10], [1, 11], [5, 11]]),
        [(Kind::CommittedWentBack, 1)]
    );
    assert_eq!(
        stored([[0, 10], [2, 10], [2, 11], [7, 11]]),
        [(Kind::CommittedPastUndone, 2)]
    );
}

#[test]
fn records_after_the_last_commit_are_unfinished() {
    let behind = findings(|history| history.samples[3] = sample([3, 11], 5, 1));
    assert_eq!(behind, [(Kind::Unfinished, 2)]);
    let never = findings(|history| {
        for sample in &mut history.samples {
            sample.committed.remove(&1);
        }
    });
    assert_eq!(never, [(Kind::Unfinished, 1)]);
}

#[test]
fn changed_foreign_and_unacknowledged_records_are_distinguished() {
    let end = 5;
    let corrupted = findings(|history| history.output.push(arrival(end, What::Corrupted)));
    assert_eq!(corrupted, [(Kind::Corrupted, 1)]);
    let letter = findings(|history| history.letters.push(arrival(end, What::Corrupted)));
    assert_eq!(letter, [(Kind::Corrupted, 1)]);
    let foreign = findings(|history| history.output.push(arrival(end, What::Foreign)));
    assert_eq!(foreign, [(Kind::Unknown, 1)]);
    for (partition, seq) in [(0, 5), (7, 0)] {
        let record = What::Record { partition, seq };
        assert_eq!(
            findings(|history| history.output.push(arrival(end, record))),
            [(Kind::Unknown, 1)]
        );
        assert_eq!(
            findings(|history| history.letters.push(arrival(end, record))),
            [(Kind::Unknown, 1)]
        );
    }
}

#[test]
fn poison_in_the_output_and_healthy_records_in_the_dead_letters_are_misplaced() {
    let record = |seq| What::Record { partition: 0, seq };
    let poison = findings(|history| history.output.push(arrival(5, record(2))));
    assert_eq!(poison, [(Kind::Misplaced, 1)]);
    let healthy = findings(|history| history.letters.push(arrival(1, record(3))));
    assert_eq!(healthy, [(Kind::Misplaced, 1)]);
}

#[test]
fn a_missing_and_a_duplicate_dead_letter_are_found() {
    let missing = findings(|history| {
        history.letters.clear();
        history.samples.clear();
    });
    assert_eq!(missing, [(Kind::DeadLetterLost, 1)]);
    let twice = findings(|history| history.letters = log(&[(0, 2), (0, 2)]));
    assert_eq!(twice, [(Kind::DeadLetterDuplicated, 1)]);
}

#[test]
fn records_visible_only_to_read_uncommitted_are_aborted_and_no_fault() {
    let mut history = good();
    history.uncommitted_total = 8;
    let verdict = check(history);
    assert_eq!((verdict.aborted, verdict.findings.len()), (3, 0));
}

#[test]
fn only_at_most_once_allows_late_records_of_a_frozen_worker() {
    let mut verdict = Verdict::default();
    verdict.note(Kind::ReorderedPerKey, 3, String::new);
    verdict.note(Kind::ReorderedInPartition, 3, String::new);
    let promise = |guarantee, late| Promise {
        stale_ends: false,
        guarantee,
        ordering: Ordering::PerPartition,
        sink: Sink::Kafka,
        allowance: 0,
        letters: 0,
        late,
    };
    assert!(promise(Guarantee::AtMostOnce, 3).broken_by(&verdict).is_empty());
    for promise in [
        promise(Guarantee::AtMostOnce, 2),
        promise(Guarantee::AtLeastOnce, 3),
        promise(Guarantee::ExactlyOnce, 3),
    ] {
        assert_eq!(
            promise.broken_by(&verdict),
            [Kind::ReorderedPerKey, Kind::ReorderedInPartition]
        );
    }
}

#[test]
fn each_guarantee_and_ordering_allows_only_what_it_documents() {
    let verdict = |kind, count| {
        let mut verdict = Verdict::default();
        verdict.note(kind, count, String::new);
        verdict
    };
    let promise = |guarantee, ordering, sink| Promise {
        stale_ends: false,
        guarantee,
        ordering,
        sink,
        allowance: 3,
        letters: 2,
        late: 0,
    };
    let guarantees = [
        Guarantee::AtMostOnce,
        Guarantee::AtLeastOnce,
        Guarantee::ExactlyOnce,
    ];
    let orderings = [Ordering::PerPartition, Ordering::PerKey, Ordering::Unordered];
    let all = guarantees
        .into_iter()
        .flat_map(|guarantee| orderings.map(|ordering| (guarantee, ordering)))
        .flat_map(|(guarantee, ordering)| {
            [Sink::Kafka, Sink::Postgres].map(|sink| (guarantee, ordering, sink))
        });
    for (guarantee, ordering, sink) in all {
        let promise = promise(guarantee, ordering, sink);
        for kind in Kind::ALL {
            // As many as crashes may cost, or any number.
            let most = match kind {
                Kind::Duplicated if guarantee == Guarantee::AtLeastOnce => 3,
                Kind::Lost if guarantee == Guarantee::AtMostOnce => 3,
                Kind::DeadLetterLost if guarantee == Guarantee::AtMostOnce => 2,
                Kind::DeadLetterDuplicated if guarantee == Guarantee::AtLeastOnce => 2,
                Kind::DeadLetterDuplicated
                    if (guarantee, sink) == (Guarantee::ExactlyOnce, Sink::Postgres) =>
                {
                    2
                }
                Kind::CommittedPastUndone if guarantee == Guarantee::AtMostOnce => u64::MAX,
                Kind::ReorderedPerKey if ordering == Ordering::Unordered => u64::MAX,
                Kind::ReorderedInPartition if ordering != Ordering::PerPartition => u64::MAX,
                _ => 0,
            };
            for count in [1, 2, 3, 4] {
                let broken = promise.broken_by(&verdict(kind, count));
                assert_eq!(
                    broken.is_empty(),
                    count <= most,
                    "{guarantee} {ordering} {sink} {kind:?} {count}"
                );
            }
        }
    }
}
