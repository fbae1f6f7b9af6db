//! Decodes the base64 of a Secret's `data`. The Kubernetes types decode it too, but only within a whole valid
//! Secret; here the error must name the invalid key.

use k8s_openapi::ByteString;

/// None if `text` is not standard base64. Ignores line breaks, as `base64` prints them.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let text: String = text.split_whitespace().collect();
    serde_json::from_value::<ByteString>(serde_json::Value::String(text))
        .ok()
        .map(|bytes| bytes.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standard_base64_is_decoded_and_anything_else_is_not() {
        assert_eq!(decode("aHVu\ndGVyMg==\n"), Some(b"hunter2".to_vec()));
        assert_eq!(decode(""), Some(Vec::new()));
        assert_eq!(decode("%%"), None);
        assert_eq!(decode("abc"), None);
    }
}
