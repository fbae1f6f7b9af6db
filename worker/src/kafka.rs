//! Everything that calls librdkafka for both the consumer and the producers.

pub mod callbacks;
pub mod ffi;
pub mod log;
pub mod producer;
pub mod reconnect;
