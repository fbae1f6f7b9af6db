//! Transforms that panic at some outputs of some records, after one that makes several outputs of a record.
//! They print to stderr on purpose.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use crds::spec::Decode;
use proptest::prelude::*;

use super::*;
use crate::{
    health::snapshot::Snapshot,
    record::{TopicPartition, batch::OutputRecord},
    transform::{Emitter, per_record},
};

const PANICKED: &str = "transform clean: the transform panicked; the worker's log says where";

fn named<F>(name: &str, transform: F) -> NamedTransform
where
    F: Fn(&OutputRecord<'_>, &mut Emitter<'_, '_>) -> Result<(), String> + Send + Sync + 'static,
{
    NamedTransform {
        name: name.into(),
        transform: per_record(name, transform),
    }
}

/// An output for each word of the value.
fn split() -> NamedTransform {
    named("split", |record, output| {
        let words = record.value.unwrap_or_default().split(|byte| *byte == b' ');
        words
            .filter(|word| !word.is_empty())
            .for_each(|word| output.value(word));
        Ok(())
    })
}

/// Words are "kind:name"; the names identify the outputs.
fn kind<'a>(record: &OutputRecord<'a>) -> &'a [u8] {
    let value = record.value.unwrap_or_default();
    value.split(|byte| *byte == b':').next().unwrap_or_default()
}

fn clean() -> NamedTransform {
    named("clean", |record, output| {
        match kind(record) {
            b"boom" => panic!("what a panic says may quote the payload: {:?}", record.value),
            b"bad" => return Err("bad".into()),
            b"drop" => {}
            b"two" => {
                output.keep();
                output.keep();
            }
            _ => output.keep(),
        }
        Ok(())
    })
}

/// Panics at words that [`clean`] accepts.
fn last() -> NamedTransform {
    named("last", |record, output| {
        assert_ne!(kind(record), b"late");
        output.keep();
        Ok(())
    })
}

/// Records at offsets from 10 on.
fn chunk(values: &[&str]) -> Arc<Chunk> {
    let mut chunk = Chunk::new(TopicPartition::new("t", 0), 1);
    for (offset, value) in (10..).zip(values) {
        chunk.push(offset, 0, Some(b"k"), Some(value.as_bytes()), []);
    }
    Arc::new(chunk)
}

fn pipeline(transforms: Vec<NamedTransform>, metrics: &Metrics) -> Pipeline {
    let decoders = Decoders::new(&Decode::default(), false);
    Pipeline::new(decoders, transforms, metrics.clone())
}

/// The results of a chunk.
#[derive(Debug, Default, PartialEq)]
struct Processed {
    /// As "record-id value".
    outputs: Vec<String>,
    /// Index of the record, and "stage component: message"; ascending.
    failures: Vec<(usize, String)>,
    /// How many inputs "split" and "clean" have filtered out.
    filtered: (usize, usize),
}

fn process(transforms: Vec<NamedTransform>, values: &[&str]) -> Processed {
    let metrics = Metrics::new();
    let batch = pipeline(transforms, &metrics).process(chunk(values));
    let outputs = batch.outputs().map(|output| {
        assert_eq!(output.key, Some(b"k".as_slice()));
        let value = String::from_utf8_lossy(output.value.unwrap_or_default());
        format!("{} {value}", output.record_id())
    });
    let failures = batch.failures().iter().map(|failure| {
        let (stage, component) = (failure.stage.as_str(), &failure.component);
        (
            failure.source,
            format!("{stage} {component}: {}", failure.message),
        )
    });
    let mut processed = Processed {
        outputs: outputs.collect(),
        failures: failures.collect(),
        filtered: (filtered(&metrics, "split"), filtered(&metrics, "clean")),
    };
    processed.failures.sort();
    processed
}

fn filtered(metrics: &Metrics, transform: &str) -> usize {
    let text = metrics.encode(&Snapshot::default(), Duration::ZERO).unwrap();
    let series = format!("kcg_worker_filtered_total{{transform=\"{transform}\"}} ");
    let count = text.lines().find_map(|line| line.strip_prefix(series.as_str()));
    count.map_or(0, |count| count.parse().unwrap())
}

#[test]
fn a_panic_fails_the_whole_record_and_no_other() {
    let values = [
        "keep:a two:b",
        "keep:c boom:d keep:e",
        "",
        "drop:f keep:g",
        "boom:h keep:i",
        "bad:j keep:k",
    ];
    let expected = Processed {
        outputs: vec![
            "t-0-10 keep:a".into(),
            "t-0-10-1 two:b".into(),
            "t-0-10-2 two:b".into(),
            "t-0-13 keep:g".into(),
        ],
        failures: vec![
            (1, PANICKED.into()),
            (4, PANICKED.into()),
            (5, "transform clean: bad".into()),
        ],
        filtered: (1, 1),
    };
    assert_eq!(process(vec![split(), clean()], &values), expected);
}

#[test]
fn a_record_by_itself_fails_without_another_attempt() {
    let calls = Arc::new(AtomicUsize::new(0));
    let count = calls.clone();
    let transform = named("clean", move |record, output| {
        count.fetch_add(1, Ordering::Relaxed);
        assert_ne!(kind(record), b"boom");
        output.keep();
        Ok(())
    });
    let expected = Processed {
        failures: vec![(0, PANICKED.into())],
        ..Processed::default()
    };
    let transforms = vec![split(), transform];
    assert_eq!(process(transforms.clone(), &["boom:a"]), expected);
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    assert_eq!(process(transforms, &["keep:a boom:b keep:c"]), expected);
    assert_eq!(calls.load(Ordering::Relaxed), 3);
}

#[test]
fn a_panic_that_does_not_recur_fails_no_record() {
    let calls = AtomicUsize::new(0);
    let transform = named("clean", move |_, output| {
        assert_ne!(calls.fetch_add(1, Ordering::Relaxed), 3, "only once");
        output.keep();
        Ok(())
    });
    let expected = Processed {
        outputs: vec![
            "t-0-10 a".into(),
            "t-0-10-1 b".into(),
            "t-0-11 c".into(),
            "t-0-12 d".into(),
            "t-0-12-1 e".into(),
        ],
        ..Processed::default()
    };
    assert_eq!(process(vec![split(), transform], &["a b", "c", "d e"]), expected);
}

#[test]
fn each_record_that_runs_by_itself_is_a_sign_of_life() {
    let (metrics, run) = (Metrics::new(), Heartbeat::default());
    let input = Batch::identity(chunk(&["boom:a", "boom:b", "boom:c"]));
    let batch = pipeline(vec![clean()], &metrics).run(input, &run);
    assert_eq!((batch.len(), batch.failures().len()), (0, 3));
    assert_eq!(run.beats.load(Ordering::Relaxed), 1 + 3);
}

/// The expected results of records behind [`split`], [`clean`] and [`last`].
fn model(values: &[&str]) -> Processed {
    let mut processed = Processed::default();
    for (source, value) in values.iter().enumerate() {
        let words: Vec<&str> = value.split_whitespace().collect();
        let count = |kind: &str| words.iter().filter(|word| word.starts_with(kind)).count();
        processed.filtered.0 += usize::from(words.is_empty());
        if count("boom") > 0 {
            processed.failures.push((source, PANICKED.into()));
            continue;
        }
        processed.filtered.1 += count("drop");
        if count("bad") > 0 {
            processed.failures.push((source, "transform clean: bad".into()));
        } else if count("late") > 0 {
            processed
                .failures
                .push((source, PANICKED.replace("clean", "last")));
        } else {
            let times = |word: &&str| match word.split(':').next() {
                Some("drop") => 0,
                Some("two") => 2,
                _ => 1,
            };
            let outputs = words
                .iter()
                .flat_map(|word| std::iter::repeat_n(*word, times(word)));
            for (index, word) in outputs.enumerate() {
                let suffix = match index {
                    0 => String::new(),
                    n => format!("-{n}"),
                };
                processed
                    .outputs
                    .push(format!("t-0-{}{suffix} {word}", 10 + source));
            }
        }
    }
    processed
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn whatever_panics_a_record_passes_or_fails_as_a_whole(
        records in prop::collection::vec(prop::collection::vec(0_usize..10, 0..4), 1..8),
    ) {
        const KINDS: [&str; 10] = ["keep", "keep", "keep", "two", "two", "drop", "drop", "bad", "boom", "late"];
        let value = |(record, kinds): (usize, &Vec<usize>)| {
            let words = kinds.iter().enumerate().map(|(at, kind)| format!("{}:{record}.{at}", KINDS[*kind]));
            words.collect::<Vec<_>>().join(" ")
        };
        let values: Vec<String> = records.iter().enumerate().map(value).collect();
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        prop_assert_eq!(process(vec![split(), clean(), last()], &values), model(&values));
    }
}
