//! Writes one line per value to standard output: the bytes of the value unchanged, `null` for a tombstone. A
//! value that contains newlines becomes several lines. Each batch is written in one piece, so batches of
//! several partitions never mix within a line. A written batch means that the pipe or terminal accepted the
//! bytes, nothing more.
//!
//! An error before the first byte of a batch is systemic, because a user has to start a reader for the
//! output. After the first byte it is transient: with `AtMostOnce` these bytes must not be written again.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
};

use futures::future::BoxFuture;

use super::{Rejected, WriteBatch, WriteError, Writer};
use crate::sync;

/// Writes lines to an output that all batches share.
pub struct StdoutWriter {
    output: Arc<Mutex<dyn Write + Send>>,
}

impl StdoutWriter {
    /// Writes to the standard output of the process.
    pub fn stdout() -> Self {
        Self::to(io::stdout())
    }

    /// Writes to another output.
    pub fn to(output: impl Write + Send + 'static) -> Self {
        Self {
            output: Arc::new(Mutex::new(output)),
        }
    }
}

impl Writer for StdoutWriter {
    fn write<'a>(&'a self, batch: WriteBatch<'a>) -> BoxFuture<'a, Result<Vec<Rejected>, WriteError>> {
        let lines = lines(&batch);
        let output = self.output.clone();
        Box::pin(async move {
            // If the reader does not read, the pipe blocks, so this must not run on a thread that others
            // need.
            let written = tokio::task::spawn_blocking(move || {
                let mut output = sync::lock(&output);
                write_out(&mut *output, &lines)
            });
            match written.await {
                Ok(Ok(())) => Ok(Vec::new()),
                Ok(Err(failed)) => Err(failed.into()),
                Err(error) => Err(WriteError::Transient(format!(
                    "writing to standard output was interrupted: {error}"
                ))),
            }
        })
    }

    fn reads_headers(&self) -> bool {
        false
    }
}

/// An error while writing lines.
struct StdoutError {
    error: io::Error,
    /// Part of the lines may be written.
    partly_written: bool,
}

impl From<StdoutError> for WriteError {
    fn from(
        StdoutError {
            error,
            partly_written,
        }: StdoutError,
    ) -> Self {
        let message = match error.kind() {
            io::ErrorKind::BrokenPipe => "standard output is closed: no process reads the worker's output; \
                                          start the worker with a reader"
                .into(),
            _ => format!("standard output cannot be written: {error}"),
        };
        if partly_written {
            WriteError::Transient(format!("{message} (part of the batch may be written)"))
        } else {
            WriteError::Systemic(message)
        }
    }
}

/// Like `write_all` and `flush`, but an error shows whether anything was written.
fn write_out(output: &mut dyn Write, mut lines: &[u8]) -> Result<(), StdoutError> {
    let mut partly_written = false;
    while !lines.is_empty() {
        match output.write(lines) {
            Ok(0) => {
                let error = io::ErrorKind::WriteZero.into();
                return Err(StdoutError {
                    error,
                    partly_written,
                });
            }
            Ok(taken) => {
                partly_written = true;
                lines = &lines[taken..];
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // A call that fails has written nothing, by the contract of `Write`.
            Err(error) => {
                return Err(StdoutError {
                    error,
                    partly_written,
                });
            }
        }
    }
    output.flush().map_err(|error| StdoutError {
        error,
        partly_written,
    })
}

fn lines(batch: &WriteBatch<'_>) -> Vec<u8> {
    let mut lines = Vec::new();
    for record in batch.records() {
        lines.extend_from_slice(record.value.unwrap_or(b"null"));
        lines.push(b'\n');
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Chunk, TopicPartition, batch::Batch};

    fn batch() -> Batch {
        let mut chunk = Chunk::new(TopicPartition::new("t", 0), 1);
        chunk.push(1, 0, None, Some(b"{\"a\":1}"), []);
        chunk.push(2, 0, None, None, []);
        chunk.push(3, 0, None, Some(&[0xff, 0x00]), []);
        Batch::identity(Arc::new(chunk))
    }

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Accepts this many bytes, then behaves like a closed pipe.
    struct ClosedAfter(usize);

    impl Write for ClosedAfter {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.0 == 0 {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            let taken = bytes.len().min(self.0);
            self.0 -= taken;
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn every_value_is_a_line_and_bytes_stay_as_they_are() {
        let output = Shared::default();
        let batch = batch();
        let writer = StdoutWriter::to(output.clone());
        assert_eq!(
            writer.write(WriteBatch::new(&batch, &[0, 1, 2])).await,
            Ok(vec![])
        );
        assert_eq!(*output.0.lock().unwrap(), b"{\"a\":1}\nnull\n\xff\x00\n");
    }

    #[tokio::test]
    async fn a_closed_output_is_systemic_unless_part_of_the_batch_may_be_written() {
        let batch = batch();
        let all = [0, 1, 2];
        let closing = StdoutWriter::to(ClosedAfter(10));
        let result = closing.write(WriteBatch::new(&batch, &all)).await;
        assert!(
            matches!(&result, Err(WriteError::Transient(message)) if message.contains("no process reads")),
            "{result:?}"
        );
        let result = closing.write(WriteBatch::new(&batch, &all)).await;
        assert!(matches!(result, Err(WriteError::Systemic(_))), "{result:?}");
        // A buffer accepts the bytes, but cannot write them out.
        let buffered = StdoutWriter::to(io::BufWriter::new(ClosedAfter(10)));
        let result = buffered.write(WriteBatch::new(&batch, &all)).await;
        assert!(matches!(result, Err(WriteError::Transient(_))), "{result:?}");
    }
}
