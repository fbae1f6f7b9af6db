//! Resources that run once: each kind with a small reconcile beside that of the groups. In: what the watches of
//! the controller deliver. Out: changes in Kafka and in the status of the operation. Starts no worker and writes
//! no group: what an operation needs of its group, the reconcile of the group derives from the operation.

pub mod offset_reset;
