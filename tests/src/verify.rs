//! What became of the records: records with a known content, the ledger of the acknowledged ones, and the
//! comparison with the records that arrived. Imports only `systems`.

pub mod check;
pub mod checker;
pub mod ledger;
pub mod load;
