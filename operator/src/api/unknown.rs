//! Why values are not known. Plain data; small, because each partition of each group has one.

use std::borrow::Cow;

use serde::ser::{Serialize, SerializeMap, Serializer};

/// Why each field with the value null is not known, by the name of the field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unknown(Vec<(&'static str, Cow<'static, str>)>);

impl Unknown {
    pub fn new() -> Self {
        Self::default()
    }

    /// A later reason of the same field replaces the one before.
    pub fn insert(&mut self, field: &'static str, why: impl Into<Cow<'static, str>>) {
        let why = why.into();
        match self.0.iter_mut().find(|(known, _)| *known == field) {
            Some((_, before)) => *before = why,
            None => self.0.push((field, why)),
        }
    }

    pub fn get(&self, field: &str) -> Option<&str> {
        let mut entries = self.0.iter();
        entries
            .find(|(known, _)| *known == field)
            .map(|(_, why)| why.as_ref())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The same reason for several fields.
    pub fn all(fields: &[&'static str], why: &'static str) -> Self {
        Self(fields.iter().map(|field| (*field, Cow::Borrowed(why))).collect())
    }
}

impl Serialize for Unknown {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (field, why) in &self.0 {
            map.serialize_entry(field, why)?;
        }
        map.end()
    }
}
