//! How rows are told apart.

/// How the rows of a table are told apart.
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
