//! Which VRL programs compile. In: the source of a program. Out: nothing, or the compiler's message.
//! Remembers its answers; runs no program.

use std::collections::HashMap;
use std::sync::Mutex;

use crate::digest::hash;
use crate::sync::lock;

/// Caches which programs compile: a compilation takes milliseconds, and each group is validated every few
/// seconds.
#[derive(Debug, Default)]
pub struct Programs {
    results: Mutex<HashMap<String, Result<(), String>>>,
}

/// Maximum number of cached results, about 100 bytes each; more than the programs of any cluster we know.
const MAX_RESULTS: usize = 4096;

impl Programs {
    /// Err: the compiler's message, if `source` does not compile.
    pub fn check(&self, source: &str) -> Result<(), String> {
        let key = hash(source.as_bytes());
        let mut results = lock(&self.results);
        if results.len() > MAX_RESULTS {
            results.clear();
        }
        results.entry(key).or_insert_with(|| compile(source)).clone()
    }
}

#[cfg(feature = "vrl")]
fn compile(source: &str) -> Result<(), String> {
    crds::vrl_program::compile(source)
        .map(|_| ())
        .map_err(|error| error.to_string())
}

/// Without the compiler every program passes; the worker checks its programs when it starts.
#[cfg(not(feature = "vrl"))]
fn compile(_: &str) -> Result<(), String> {
    Ok(())
}
