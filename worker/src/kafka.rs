//! Everything that the consumer and the producers share in calling librdkafka.

pub mod callbacks;
pub mod ffi;
pub mod log;
pub mod out_of_range;
pub mod producer;
pub mod reconnect;
pub mod topic_ids;
