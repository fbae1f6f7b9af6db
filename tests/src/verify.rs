//! What became of the records: records with a known content, the ledger of the acknowledged ones, and the
//! comparison with the records that arrived. Imports only `systems`.
//!
//! | module | what it contains |
//! |---|---|
//! | [`checker`] | from everything observed to a verdict: lost, duplicated, reordered, committed too early ... |
//! | [`ledger`] | the acknowledged records; records whose content follows from their position, and the feed that writes them |
//! | [`load`] | orders with sequence numbers, for the small tests |
//! | [`check`] | the checker for the small tests: a ledger against what arrived |

pub mod check;
pub mod checker;
pub mod ledger;
pub mod load;
