//! Which VRL programs compile. In: the source of a program. Out: nothing, or the compiler's message. Remembers its answers;
//! runs no program.

use std::collections::HashMap;
use std::sync::Mutex;

use crate::digest::hash;
use crate::sync::lock;

/// Remembers which programs compile: compiling takes milliseconds, and each group is validated every few seconds.
#[derive(Debug, Default)]
pub struct Programs {
    verdicts: Mutex<HashMap<String, Result<(), String>>>,
}

/// Verdicts kept; more than the programs of any cluster we know of, at about 100 bytes each.
const MOST_VERDICTS: usize = 4096;

impl Programs {
    /// The compiler's message when `source` does not compile.
    pub fn check(&self, source: &str) -> Result<(), String> {
        let key = hash(source.as_bytes());
        let mut verdicts = lock(&self.verdicts);
        if verdicts.len() > MOST_VERDICTS {
            verdicts.clear();
        }
        verdicts.entry(key).or_insert_with(|| compile(source)).clone()
    }
}

#[cfg(feature = "vrl")]
fn compile(source: &str) -> Result<(), String> {
    crds::vrl_program::compile(source)
        .map(|_| ())
        .map_err(|error| error.to_string())
}

/// Without the compiler nothing can be said; the worker checks its programs when it starts.
#[cfg(not(feature = "vrl"))]
fn compile(_: &str) -> Result<(), String> {
    Ok(())
}
