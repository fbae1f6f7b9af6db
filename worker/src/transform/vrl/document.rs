//! `.` and `%` of one record while programs run. Notes what programs change, so that everything else is
//! written as it was read, and whether they compute with a number that 64 bits cannot hold.

use std::cell::RefCell;

use ::vrl::{
    compiler::{SecretTarget, Target, TargetValue},
    path::{OwnedTargetPath, PathPrefix},
    value::{Secrets, Value},
};

use super::{flows::Flows, numbers::Numbers};

/// One record, and what the programs have done with it so far.
#[derive(Debug)]
pub(super) struct Document<'c> {
    pub target: TargetValue,
    pub numbers: Numbers,
    /// True if a program has assigned or deleted something in `.`.
    pub changed: bool,
    /// The path to which a program has assigned a number that would lose digits.
    pub lost: Option<OwnedTargetPath>,
    /// The flows of the program that runs.
    flows: Option<&'c Flows>,
    /// Paths that this program has read and that hold a number beyond 64 bits.
    long: RefCell<Vec<OwnedTargetPath>>,
}

impl<'c> Document<'c> {
    pub fn new() -> Self {
        Self {
            target: TargetValue {
                value: Value::Null,
                metadata: Value::Object(Default::default()),
                secrets: Secrets::new(),
            },
            numbers: Numbers::default(),
            changed: false,
            lost: None,
            flows: None,
            long: RefCell::default(),
        }
    }

    /// Call before each record.
    pub fn start_record(&mut self) {
        self.changed = false;
        self.lost = None;
    }

    /// Call before each run of a program.
    pub fn start_program(&mut self, flows: &'c Flows) {
        self.flows = Some(flows);
        self.long.get_mut().clear();
    }

    fn note_change(&mut self, path: &OwnedTargetPath) {
        self.changed |= path.prefix == PathPrefix::Event;
    }
}

impl Target for Document<'_> {
    fn target_insert(&mut self, path: &OwnedTargetPath, value: Value) -> Result<(), String> {
        self.note_change(path);
        let flows = self.flows;
        let computes = |source| flows.is_some_and(|flows| flows.computes(path, source));
        if self.lost.is_none() && self.long.get_mut().iter().any(computes) {
            self.lost = Some(path.clone());
        }
        self.target.target_insert(path, value)
    }

    fn target_get(&self, path: &OwnedTargetPath) -> Result<Option<&Value>, String> {
        let value = self.target.target_get(path)?;
        if value.is_some_and(|value| self.numbers.has_long(value)) {
            self.long.borrow_mut().push(path.clone());
        }
        Ok(value)
    }

    fn target_get_mut(&mut self, path: &OwnedTargetPath) -> Result<Option<&mut Value>, String> {
        self.note_change(path);
        self.target.target_get_mut(path)
    }

    fn target_remove(&mut self, path: &OwnedTargetPath, compact: bool) -> Result<Option<Value>, String> {
        let removed = self.target.target_remove(path, compact)?;
        if let Some(value) = &removed {
            self.note_change(path);
            if self.numbers.has_long(value) {
                self.long.get_mut().push(path.clone());
            }
        }
        Ok(removed)
    }
}

impl SecretTarget for Document<'_> {
    fn get_secret(&self, key: &str) -> Option<&str> {
        self.target.get_secret(key)
    }

    fn insert_secret(&mut self, key: &str, value: &str) {
        self.target.insert_secret(key, value);
    }

    fn remove_secret(&mut self, key: &str) {
        self.target.remove_secret(key);
    }
}
