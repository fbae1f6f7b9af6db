//! The key of a table: what identifies a row.

/// What identifies a row of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// One row per record.
    RecordId(String),
    /// One row per key.
    Columns(Vec<String>),
}

impl Key {
    pub fn columns(&self) -> &[String] {
        match self {
            Key::RecordId(column) => std::slice::from_ref(column),
            Key::Columns(columns) => columns,
        }
    }
}
