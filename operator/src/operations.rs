//! Resources that run once: each kind with a small reconcile beside that of the groups. In: what the watches of
//! the controller deliver. Out: changes in Kafka, Jobs, and the status of the operation. Writes no group: what an
//! operation needs of its group, the reconcile of the group derives from the operation.

pub mod expiry;
pub mod offset_reset;
pub mod planned_for;
pub mod queue;
pub mod replay;
pub mod status;
pub mod stored;
pub mod too_large;
