//! A bounded run: it ends by itself once the committed offsets of its consumer group cover the whole plan, and not
//! only the partitions of this worker. Until then the worker stays a member, so that it gets the partitions of a
//! worker that dies. A plan whose topic was deleted or created again ends it with an error, without a commit.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use rdkafka::{
    consumer::Consumer,
    topic_partition_list::{Offset as KafkaOffset, TopicPartitionList},
};

use super::{
    PollLoop,
    assigned::AssignedPartition,
    bounded_run::{BoundedRun, denies_existence},
    error::PollError,
    transactions::END_BUDGET,
};
use crate::{
    offsets::commit_metadata,
    record::{Offset, TopicPartition},
};

/// Time limit of a request. The worker has nothing else to do then, and it must still react to a stop.
const ANSWER: Duration = Duration::from_secs(1);

impl PollLoop {
    /// Completes partitions that are read to their end, and finds out whether the whole run is at its end.
    pub(super) fn serve_bounds(&mut self) -> Result<(), PollError> {
        let Some(run) = &mut self.bounded else {
            return Ok(());
        };
        for topic in run.bounds.clone().identified_topics() {
            if !run
                .bounds
                .fits(topic, self.callbacks.topic_ids.of(topic).as_ref())
            {
                run.recreated(topic);
            }
        }
        if let Some(why) = run.take_outdated() {
            return Err(self.plan_outdated(why));
        }
        // The run may be at its end before the next housekeeping.
        self.report_out_of_range();
        self.assigned.iter_mut().for_each(AssignedPartition::finish_bound);
        let finished = self.own_partitions_are_finished();
        let has_partitions = !self.assigned.is_empty();
        let stopping = self.stopping.is_some();
        let Some(run) = self.bounded.as_mut().filter(|run| !run.done && !stopping) else {
            return Ok(());
        };
        if run.is_due(finished, has_partitions, Instant::now()) {
            self.look_at_plan()?;
        }
        Ok(())
    }

    fn own_partitions_are_finished(&self) -> bool {
        let quiet = self.revocation.is_none() && !self.is_rewinding();
        quiet && self.assigned.iter().all(AssignedPartition::is_finished)
    }

    /// True if every partition is read to its end and written, and only the last commit is left.
    pub(super) fn waits_for_last_commit(&self) -> bool {
        let ends = |entry: &AssignedPartition| entry.is_finished() || entry.waits_for_last_commit();
        self.bounded.is_some()
            && self.assigned.iter().all(ends)
            && self.assigned.iter().any(AssignedPartition::waits_for_last_commit)
    }

    /// Asks Kafka what the group has committed of the plan and, if some of it is left, whether a topic is gone.
    /// Kafka's offsets decide also where a database stores offsets: the worker commits them after the rows.
    fn look_at_plan(&mut self) -> Result<(), PollError> {
        let Some(run) = &mut self.bounded else {
            return Ok(());
        };
        let bounds = run.bounds.clone();
        let mut plan = TopicPartitionList::new();
        for partition in bounds.with_records() {
            plan.add_partition(&partition.topic, partition.partition);
        }
        let mut committed: HashMap<TopicPartition, Offset> = HashMap::new();
        if plan.count() > 0 {
            let answer = match self.client.consumer().committed_offsets(plan, ANSWER) {
                Ok(answer) => answer,
                Err(error) => {
                    tracing::debug!(%error, "cannot read the committed offsets of the plan; retrying");
                    return Ok(());
                }
            };
            for element in answer.elements() {
                let id = commit_metadata::topic_id(element.metadata());
                let elsewhere = id
                    .as_ref()
                    .is_some_and(|id| self.callbacks.topic_ids.is_elsewhere(id));
                if elsewhere {
                    // Mirrored from another cluster. Workers do not start there either.
                    continue;
                }
                if !bounds.fits(element.topic(), id.as_ref()) {
                    run.recreated(element.topic());
                }
                if let (KafkaOffset::Offset(offset), Ok(())) = (element.offset(), element.error()) {
                    committed.insert(TopicPartition::new(element.topic(), element.partition()), offset);
                }
            }
        }
        if let Some(why) = run.take_outdated() {
            return Err(self.plan_outdated(why));
        }
        let left = bounds.unfinished(&committed);
        if left.is_empty() {
            run.done = true;
            tracing::info!("every partition of the plan is finished");
            return Ok(());
        }
        tracing::debug!(
            partitions = left.len(),
            "partitions of the plan are not finished yet"
        );
        let Some(topic) = run.next_topic(&left) else {
            return Ok(());
        };
        // The client asks for no topic to be created.
        let Ok(metadata) = self.client.consumer().fetch_metadata(Some(topic), ANSWER) else {
            return Ok(());
        };
        let known = metadata.topics().iter().find(|found| found.name() == topic);
        let exists = known.is_none_or(|found| match found.error() {
            Some(error) => !denies_existence(error.into()),
            None => {
                let mut of_topic = left.iter().filter(|partition| *partition.topic == *topic);
                let ids: Vec<i32> = found.partitions().iter().map(|present| present.id()).collect();
                of_topic.all(|partition| ids.contains(&partition.partition))
            }
        });
        if run.topic_is_gone(topic, exists, &left, Instant::now()) {
            let why = format!(
                "topic {topic:?} does not exist any more, or does not have all partitions of the plan"
            );
            return Err(self.plan_outdated(why));
        }
        Ok(())
    }

    /// Aborts what is not committed, so that readers of the output need not wait for the transaction's timeout.
    fn plan_outdated(&mut self, why: String) -> PollError {
        let aborted = self
            .end_transaction(false)
            .and_then(|()| self.await_abort(Instant::now() + END_BUDGET));
        match aborted {
            Ok(()) => PollError::PlanOutdated(why),
            Err(error) => error,
        }
    }

    /// How a bounded run ends that has drained and committed everything of this worker.
    pub(super) fn bounded_outcome(&mut self) -> Result<(), PollError> {
        let is_done = |run: &Option<BoundedRun>| run.as_ref().is_none_or(|run| run.done);
        if !is_done(&self.bounded) && self.own_partitions_are_finished() {
            // The last partition may have been finished since the last look.
            self.look_at_plan()?;
        }
        match is_done(&self.bounded) {
            true => Ok(()),
            false => Err(PollError::Unfinished),
        }
    }
}
