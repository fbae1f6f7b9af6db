//! What a KafkaConsumerGroup means, both on Kubernetes and on one machine: what its spec references, whether
//! it is valid, which topics it needs, how many workers it gets. Pure: no Kubernetes client, no Kafka client,
//! no clock.

pub mod id;
pub mod members;
pub mod observed;
pub mod offset_reset;
pub mod partition_flags;
pub mod partition_selection;
pub mod references;
pub mod rejection;
pub mod replay;
pub mod reset_order;
pub mod scaling;
pub mod topics;
pub mod validate;
pub mod wording;
