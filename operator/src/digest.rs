//! A short digest, to notice whether something changed. In: bytes. Out: text.

use sha2::{Digest, Sha256};

/// 16 hexadecimal characters of SHA-256: enough to distinguish versions, short enough to read.
pub fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
