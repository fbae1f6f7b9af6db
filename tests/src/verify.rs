//! What was written, and what became of it: records with a known content, the ledger of those that the broker has, and the
//! comparison with what arrived. Imports only `systems`.

pub mod check;
pub mod checker;
pub mod ledger;
pub mod load;
