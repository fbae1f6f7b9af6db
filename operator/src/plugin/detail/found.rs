//! What belongs to a group and is read beside it. In: answers of the API server. Out: the objects, or why they could not
//! be read.

use serde_json::Value;

use crate::plugin::error::Error;

/// What was found beside the group, or why it could not be read.
pub enum Found {
    Items(Vec<Value>),
    Unreadable(String),
}

impl Found {
    pub fn of(read: Result<Vec<Value>, Error>) -> Self {
        match read {
            Ok(items) => Self::Items(items),
            Err(error) => Self::Unreadable(error.to_string()),
        }
    }
}

/// What belongs to a group.
pub struct Beside {
    pub resets: Found,
    pub events: Found,
}
