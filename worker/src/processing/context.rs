//! What the lanes of a worker and of a partition share. Data, no logic.

use std::sync::{Arc, mpsc as std_mpsc};

use crds::spec::{DeliveryGuarantee, Ordering};
use tokio::sync::{Semaphore, watch};

use crate::{
    dead_letter::FailurePolicy,
    health::problems::Problems,
    pipeline::time_limit::TimedPipeline,
    processing::messages::TaskEvent,
    record::TopicPartition,
    retry::RetryPolicy,
    telemetry::Metrics,
    transaction::Gate,
    writer::{NamedWriter, breaker::WriterBreaker},
};

/// What all partitions of a worker share.
pub(crate) struct WorkerContext {
    pub pipeline: Arc<TimedPipeline>,
    pub writers: Vec<NamedWriter>,
    /// The breakers of the writers, in their order.
    pub breakers: Vec<WriterBreaker>,
    pub policy: FailurePolicy,
    pub retry: RetryPolicy,
    pub guarantee: DeliveryGuarantee,
    pub ordering: Ordering,
    /// How many lanes may write at the same time, over all partitions. Also the number of lanes of one
    /// partition, unless the order of the partition counts.
    pub concurrency: usize,
    /// One permit per lane that may write at the same time.
    pub lanes: Semaphore,
    /// With transactions: the gate that lanes have to be inside of while they write.
    pub gate: Option<Arc<Gate>>,
    pub metrics: Metrics,
}

/// What the lanes of a partition share.
pub(crate) struct PartitionContext {
    pub shared: Arc<WorkerContext>,
    pub partition: TopicPartition,
    pub task_epoch: u64,
    /// With transactions: see [`Gate::enter`](crate::transaction::Gate::enter).
    pub round: u64,
    pub problems: Problems,
    pub events: std_mpsc::Sender<TaskEvent>,
    /// True: finish the parts in flight, and start nothing more.
    pub draining: watch::Receiver<bool>,
}
