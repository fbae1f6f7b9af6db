//! `ExactlyOnce`: writes a batch and the offsets of its records in one transaction, under the lock of the
//! partition's row. Finished records are left out, so a batch whose commit has an unknown result is simply
//! written again. Two round trips: begin and lock; then rows, offsets and commit.
//!
//! If another worker has claimed the row since we did, our batch fails, and our next one claims the row back.
//! That is safe whichever worker is right, because each one writes in the order of the offsets and leaves out
//! what is finished. It ends when the group revokes the partition from the worker that should not have it.
//!
//! A row that lacks offsets that this process has seen in it means that the database has gone back
//! ([`lost_offsets`]). Writing would silently lose the rows in between, and the offset from which to read
//! them again, so the writer writes nothing.

use std::{collections::BTreeMap, time::Duration};

use futures::{FutureExt, TryFutureExt, future::join};
use tokio_postgres::Error;

use super::{
    ENCODINGS, PostgresWriter,
    claims::Claim,
    classify, columns_keep_changing,
    connect::Session,
    groups::Group,
    lost_offsets,
    offsets::{OffsetsRow, OffsetsTable},
    statements::{self, Request, together},
    stored_offsets::StoredOffsets,
    table::Table,
};
use crate::{
    offsets::FinishedSet,
    record::{TopicPartition, batch::Batch},
    seeded_bugs::seeded_bug,
    writer::{Rejected, WriteBatch, WriteError},
};

/// A worker that is frozen in the middle of a transaction holds the row's lock, and its successor waits,
/// until the server ends the session after 5 s; a running worker continues within milliseconds.
const LARGEST_PAUSE: &str = "SET LOCAL idle_in_transaction_session_timeout = 5000";

/// Rows to write, and outputs that cannot be rows, each with the reason.
struct RowPlan<'a> {
    groups: Vec<Group<'a>>,
    rejected: Vec<(u32, String)>,
}

/// The result of an attempt to write a batch.
enum Attempt {
    Written(WrittenBatch),
    /// Nothing was written, because of these records.
    Rejected(Vec<Rejected>),
    /// Nothing was written: the columns of the table have changed since the rows were encoded.
    Changed,
}

/// What a statement of the transaction failed with.
enum StatementError {
    Rows(Error),
    Offsets(WriteError),
}

/// A written batch.
struct WrittenBatch {
    rejected: Vec<Rejected>,
    /// The number of the claim under which it was written.
    owner_epoch: i64,
    /// The finished offsets in the row now.
    finished: FinishedSet,
}

impl PostgresWriter {
    /// Claims a partition for an assignment.
    pub(super) async fn claim_partition(
        &self,
        offsets: &StoredOffsets,
        partition: &TopicPartition,
        task_epoch: u64,
        topic_id: Option<&str>,
    ) -> Result<FinishedSet, WriteError> {
        let claim = offsets.claims.of(partition, task_epoch, topic_id);
        let claim = claim.ok_or_else(|| superseded(partition))?;
        let mut ours = claim.owner_epoch.lock().await;
        let (_permit, session) = self.session().await?;
        let result = self
            .in_time(self.claim_once(&offsets.table, &session, partition, &claim))
            .await;
        self.put_back(session, &result);
        let owned = result?;
        *ours = Some(owned.owner_epoch);
        claim.has_stored(owned.finished.clone());
        tracing::info!(
            %partition,
            owner_epoch = owned.owner_epoch,
            next_offset = owned.finished.next(),
            finished_up_to = owned.finished.end(),
            "claimed in the database"
        );
        if seeded_bug("postgres-ignores-finished") {
            return Ok(FinishedSet::default());
        }
        Ok(owned.finished)
    }

    async fn claim_once(
        &self,
        offsets: &OffsetsTable,
        session: &Session,
        partition: &TopicPartition,
        claim: &Claim,
    ) -> Result<OffsetsRow, WriteError> {
        let owned = self.begin(offsets, session, partition, None, claim).await?;
        let committed = session.client.batch_execute("COMMIT").await;
        committed.map_err(|error| offsets.error(&error))?;
        Ok(owned)
    }

    /// Writes a batch and its offsets.
    pub(super) async fn write_with_offsets(
        &self,
        offsets: &StoredOffsets,
        batch: &WriteBatch<'_>,
    ) -> Result<Vec<Rejected>, WriteError> {
        let partition = batch.partition();
        let claim = offsets.claims.of(partition, batch.task_epoch(), batch.topic_id());
        let claim = claim.ok_or_else(|| superseded(partition))?;
        let mut ours = claim.owner_epoch.lock().await;
        let (_permit, mut session) = self.session().await?;
        let write = async {
            for _ in 0..ENCODINGS {
                match self
                    .write_once(&offsets.table, &mut session, batch, *ours, &claim)
                    .await?
                {
                    Attempt::Changed => {}
                    done => return Ok(done),
                }
            }
            Err(columns_keep_changing(&self.table))
        };
        let result = self.in_time(write).await;
        self.put_back(session, &result);
        match result {
            Ok(Attempt::Changed) => Err(columns_keep_changing(&self.table)),
            Ok(Attempt::Rejected(rejected)) => Ok(rejected),
            Ok(Attempt::Written(written)) => {
                let owner_epoch = written.owner_epoch;
                claim.has_stored(written.finished);
                if ours.replace(owner_epoch).is_none() {
                    tracing::debug!(%partition, owner_epoch, "claimed in the database, while writing");
                }
                Ok(written.rejected)
            }
            Err(error) => {
                if matches!(error, WriteError::Fenced(_)) {
                    *ours = None;
                    if claim.lost() {
                        tracing::warn!(%partition, "{error}");
                    }
                }
                Err(error)
            }
        }
    }

    async fn write_once(
        &self,
        offsets: &OffsetsTable,
        session: &mut Session,
        batch: &WriteBatch<'_>,
        ours: Option<i64>,
        claim: &Claim,
    ) -> Result<Attempt, WriteError> {
        let partition = batch.partition();
        // Before the row is locked, because usually nothing is finished yet.
        let mut plan = match self.plan(&session.table, batch.batch(), batch.selected()) {
            Ok(plan) => plan,
            Err(_) if session.has_changed(&self.table).await? => return Ok(Attempt::Changed),
            Err(error) => return Err(error),
        };
        // A statement compares the columns; without one, they are read again.
        if plan.groups.is_empty() && !plan.rejected.is_empty() && session.has_changed(&self.table).await? {
            return Ok(Attempt::Changed);
        }
        // Before the row is read, as in `begin`: whatever was stored by then must be in it.
        let floor = claim.floor();
        let owned = self.begin(offsets, session, partition, ours, claim).await?;
        let mut finished = owned.finished;
        finished.finish_below(floor);
        let is_new = |output: &u32| !finished.contains(batch.batch().output(*output as usize).offset());
        let mut new: Vec<u32> = batch.selected().iter().copied().filter(is_new).collect();
        if seeded_bug("postgres-ignores-finished") {
            new = batch.selected().to_vec();
        }
        if new.len() < batch.len() {
            plan = self.plan(&session.table, batch.batch(), &new)?;
        }
        let rejected_sources: Vec<usize> = plan
            .rejected
            .iter()
            .map(|(output, _)| batch.batch().source(*output) as usize)
            .collect();
        for range in batch.covered_offsets(&rejected_sources) {
            finished.insert(range);
        }
        let written = self
            .commit(offsets, session, &plan.groups, partition, &finished)
            .await;
        match written {
            Ok(()) => {}
            Err(StatementError::Offsets(error)) => return Err(error),
            Err(StatementError::Rows(error)) if error.code().is_none() => {
                return Err(classify::of_statement(
                    &error,
                    &session.table.quoted,
                    &self.rules.key,
                ));
            }
            Err(StatementError::Rows(error)) => {
                if self.has_changed(session, &error).await? {
                    return Ok(Attempt::Changed);
                }
                let failed = self.failed(session, batch, &plan.groups, error).await;
                return failed.map(Attempt::Rejected);
            }
        }
        self.written(&session.table, &plan.groups, batch);
        let position = |output: &u32| batch.selected().partition_point(|other| other < output);
        let rejected = plan.rejected.into_iter().map(|(output, message)| Rejected {
            position: position(&output),
            message,
            retryable: false,
            in_doubt: false,
        });
        Ok(Attempt::Written(WrittenBatch {
            rejected: rejected.collect(),
            owner_epoch: owned.owner_epoch,
            finished,
        }))
    }

    /// The rows of these outputs. If an output cannot be a row, its whole record is left out.
    fn plan<'a>(&self, table: &Table, batch: &'a Batch, selected: &[u32]) -> Result<RowPlan<'a>, WriteError> {
        let outputs = |selected: &[u32]| -> Vec<_> {
            let output = |index: &u32| batch.output(*index as usize);
            selected.iter().map(output).collect()
        };
        let encoded = self.encode(table, outputs(selected))?;
        let mut reasons: BTreeMap<u32, String> = BTreeMap::new();
        for rejected in encoded.rejected {
            let source = batch.source(selected[rejected.position]);
            reasons.entry(source).or_insert(rejected.message);
        }
        let (out, kept): (Vec<u32>, Vec<u32>) = selected
            .iter()
            .partition(|output| reasons.contains_key(&batch.source(**output)));
        let reason = |output: u32| {
            let reason = reasons.get(&batch.source(output));
            (output, reason.cloned().unwrap_or_default())
        };
        let rows: usize = encoded.groups.iter().map(Group::len).sum();
        let groups = if rows == kept.len() {
            encoded.groups
        } else {
            self.encode(table, outputs(&kept))?.groups
        };
        Ok(RowPlan {
            groups,
            rejected: out.into_iter().map(reason).collect(),
        })
    }

    /// Begins a transaction that locks the partition against other writers: with the claim `ours`, or with a
    /// new claim if there is none. Fails if the row lacks anything that was stored before.
    async fn begin(
        &self,
        offsets: &OffsetsTable,
        session: &Session,
        partition: &TopicPartition,
        ours: Option<i64>,
        claim: &Claim,
    ) -> Result<OffsetsRow, WriteError> {
        let stored = &claim.stored();
        let client = &session.client;
        let begin = format!("{}; {LARGEST_PAUSE}", session.begin);
        let row = async {
            match ours {
                Some(_) => offsets.lock(client, partition).await,
                None => offsets.claim(client, partition, claim.topic_id()).await.map(Some),
            }
        };
        // Polled in this order; a request is sent at its first poll.
        let (started, owned) = join(client.batch_execute(&begin), row).await;
        started.map_err(|error| classify::other(&error, "beginning a transaction"))?;
        let owned = owned?;
        // A missing row has lost everything, and so has a row that our claim has just created.
        let nothing = FinishedSet::default();
        let now = owned.as_ref().map_or(&nothing, |owned| &owned.finished);
        // Check this first, because the claims have gone back as well.
        let error = match (lost_offsets::first_lost(stored, now), owned) {
            (Some(lost), _) => offsets.lost_offsets_error(partition, stored, lost),
            (None, Some(owned)) if ours.is_none_or(|ours| ours == owned.owner_epoch) => return Ok(owned),
            (None, Some(owned)) => WriteError::Fenced(format!(
                "{partition} was claimed in the database by worker {:?} (owner_epoch {}); if both keep the \
                 partition for long, one of them is cut off from Kafka",
                owned.owner, owned.owner_epoch
            )),
            (None, None) => WriteError::Fenced(format!(
                "the offsets table has no row for {partition} any more; the next attempt creates one"
            )),
        };
        let ended = client.batch_execute("ROLLBACK").await;
        ended.map_err(|error| classify::other(&error, "ending a transaction"))?;
        Err(error)
    }

    /// Writes rows and offsets, and ends the transaction.
    async fn commit(
        &self,
        offsets: &OffsetsTable,
        session: &Session,
        groups: &[Group<'_>],
        partition: &TopicPartition,
        finished: &FinishedSet,
    ) -> Result<(), StatementError> {
        let Session { client, table, .. } = session;
        let mut requests: Vec<Request<'_, StatementError>> = Vec::with_capacity(groups.len() + 2);
        for group in groups {
            let write = statements::write(client, table, &self.rules, group);
            requests.push(write.map_err(StatementError::Rows).boxed());
        }
        let late = seeded_bug("postgres-offsets-outside-transaction");
        let store = offsets
            .store(client, partition, finished)
            .map_err(StatementError::Offsets);
        let commit = client.batch_execute("COMMIT").map_err(StatementError::Rows);
        if late {
            requests.push(commit.boxed());
            together(requests).await?;
            tokio::time::sleep(Duration::from_millis(500)).await;
            store.await?;
        } else {
            requests.push(store.boxed());
            requests.push(commit.boxed());
            together(requests).await?;
        }
        Ok(())
    }
}

fn superseded(partition: &TopicPartition) -> WriteError {
    WriteError::Fenced(format!(
        "{partition} has been assigned to this worker again since then"
    ))
}
