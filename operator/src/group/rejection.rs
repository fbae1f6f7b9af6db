//! What is wrong with a group, as a condition shows it: a [`Rejection`] when the group is not accepted, a
//! [`Finding`] when it runs nevertheless. Each carries a reason in CamelCase and a message that ends with
//! what to do.

/// Why a group, or a reset of its offsets, is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Of the condition `Accepted` of a group, or `Failed` of a reset.
    pub reason: &'static str,
    pub message: String,
}

impl Rejection {
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }
}

/// What is wrong with a group that is accepted: a warning, or a step that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub reason: &'static str,
    pub message: String,
}

impl Finding {
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }
}
