//! The File writer against a real directory.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{fs, os::unix::fs::PermissionsExt, path::Path, sync::Arc};

use crds::spec;
use kafka_consumer_worker::{
    Batch, Chunk, WriteBatch, WriteError, Writer, record::TopicPartition, writer::file::FileWriter,
};

fn batch(topic: &str, first: i64, values: &[&str]) -> Batch {
    let mut chunk = Chunk::new(TopicPartition::new(topic, 3), 1);
    for (offset, value) in (first..).zip(values) {
        chunk.push(offset, 0, None, Some(value.as_bytes()), []);
    }
    Batch::identity(Arc::new(chunk))
}

async fn write(
    writer: &FileWriter,
    batch: &Batch,
) -> Result<Vec<kafka_consumer_worker::Rejected>, WriteError> {
    let all: Vec<u32> = (0..batch.len() as u32).collect();
    writer.write(WriteBatch::new(batch, &all)).await
}

fn writer(directory: &Path, rotate_bytes: i64, rotate_seconds: i32) -> FileWriter {
    let directory = directory.to_str().unwrap().to_string();
    FileWriter::new(
        &spec::FileWriter {
            directory,
            rotate_bytes,
            rotate_seconds,
        },
        "orders-7d9f-x",
    )
}

fn files(directory: &Path) -> Vec<(String, String)> {
    let mut files: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| {
            (
                entry.file_name().into_string().unwrap(),
                fs::read_to_string(entry.path()).unwrap(),
            )
        })
        .collect();
    files.sort();
    files
}

#[tokio::test]
async fn lines_of_several_batches_go_to_one_file_with_a_descriptive_name() {
    let dir = tempfile::tempdir().unwrap();
    let writer = writer(dir.path(), 1 << 20, 3600);
    assert_eq!(
        write(&writer, &batch("orders", 41, &["{\"a\":1}", "two\nlines", "b"]))
            .await
            .unwrap()
            .len(),
        1
    );
    write(&writer, &batch("orders", 44, &["c"])).await.unwrap();
    writer.close().await;
    let files = files(dir.path());
    assert_eq!(files.len(), 1, "{files:?}");
    let (name, content) = &files[0];
    assert!(
        name.starts_with("orders-3-orders-7d9f-x-00000000000000000041-2"),
        "{name}"
    );
    assert!(name.ends_with("Z.ndjson"), "{name}");
    assert_eq!(content, "{\"a\":1}\nb\nc\n");
}

#[tokio::test]
async fn the_writer_starts_a_new_file_when_the_current_one_exceeds_its_size() {
    let dir = tempfile::tempdir().unwrap();
    let writer = writer(dir.path(), 10, 3600);
    for first in 0..4 {
        write(&writer, &batch("t", first, &["12345"])).await.unwrap();
    }
    let contents: Vec<String> = files(dir.path())
        .into_iter()
        .map(|(_, content)| content)
        .collect();
    assert_eq!(contents, ["12345\n12345\n", "12345\n12345\n"]);
}

#[tokio::test]
async fn a_file_that_was_moved_away_gets_no_more_lines() {
    let dir = tempfile::tempdir().unwrap();
    let taken = tempfile::tempdir().unwrap();
    let writer = writer(dir.path(), 1 << 20, 3600);
    write(&writer, &batch("t", 0, &["a"])).await.unwrap();
    let name = files(dir.path())[0].0.clone();
    fs::rename(dir.path().join(&name), taken.path().join(&name)).unwrap();
    write(&writer, &batch("t", 1, &["b"])).await.unwrap();
    assert_eq!(files(taken.path())[0].1, "a\n");
    assert_eq!(files(dir.path())[0].1, "b\n");
}

#[tokio::test]
async fn a_missing_directory_is_systemic_until_it_is_created() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("sub");
    let writer = writer(&missing, 1 << 20, 3600);
    let batch = batch("t", 0, &["a"]);
    match write(&writer, &batch).await {
        Err(WriteError::Systemic(message)) => assert!(message.contains("create it"), "{message}"),
        other => panic!("{other:?}"),
    }
    fs::create_dir(&missing).unwrap();
    write(&writer, &batch).await.unwrap();
    assert_eq!(files(&missing)[0].1, "a\n");
}

#[tokio::test]
async fn a_directory_without_permission_is_systemic() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o555)).unwrap();
    // Root may write everywhere, so as root there is nothing to test here.
    if fs::write(dir.path().join("probe"), "").is_ok() {
        return;
    }
    let writer = writer(dir.path(), 1 << 20, 3600);
    assert!(matches!(
        write(&writer, &batch("t", 0, &["a"])).await,
        Err(WriteError::Systemic(_))
    ));
}

#[tokio::test]
async fn a_full_disk_leaves_no_partial_line_and_writing_works_once_there_is_space() {
    let dir = tempfile::tempdir().unwrap();
    let full = dir.path().join("tiny");
    fs::create_dir(&full).unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=8k", "tmpfs"])
        .arg(&full)
        .stderr(std::process::Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    // Without permission to mount, there is no full disk to test with.
    if !mounted {
        return;
    }
    let writer = writer(&full, 1 << 20, 3600);
    write(&writer, &batch("t", 0, &["first"])).await.unwrap();
    let big = "x".repeat(6000);
    let failing = batch("t", 1, &[&big, &big]);
    let result = write(&writer, &failing).await;
    let during = files(&full);
    let small = write(&writer, &batch("t", 1, &["second"])).await;
    let after = files(&full);
    let unmounted = std::process::Command::new("umount").arg("-l").arg(&full).status();
    assert!(unmounted.unwrap().success());
    assert!(
        matches!(&result, Err(WriteError::Systemic(message)) if message.contains("full")),
        "{result:?}"
    );
    assert_eq!(during[0].1, "first\n");
    small.unwrap();
    assert_eq!(after[0].1, "first\nsecond\n");
}
