//! JSON merge patches (RFC 7396) between two values. Pure.

use serde_json::{Map, Value};

/// The patch that turns `old` into `new`; None if they are equal. In a merge patch, null removes a field, and
/// readers of this API treat an absent field as null.
pub fn diff(old: &Value, new: &Value) -> Option<Value> {
    let (Value::Object(before), Value::Object(after)) = (old, new) else {
        return (old != new).then(|| new.clone());
    };
    let mut patch = Map::new();
    for (name, value) in after {
        match before.get(name) {
            None => {
                patch.insert(name.clone(), value.clone());
            }
            Some(old) => {
                if let Some(change) = diff(old, value) {
                    patch.insert(name.clone(), change);
                }
            }
        }
    }
    for name in before.keys().filter(|name| !after.contains_key(*name)) {
        patch.insert(name.clone(), Value::Null);
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// As RFC 7396 says.
    fn apply(old: &mut Value, patch: &Value) {
        let Value::Object(changes) = patch else {
            *old = patch.clone();
            return;
        };
        if !old.is_object() {
            *old = json!({});
        }
        for (name, change) in changes {
            if change.is_null() {
                old.as_object_mut().unwrap().remove(name);
            } else {
                apply(&mut old[name], change);
            }
        }
    }

    #[test]
    fn a_patch_has_what_changed_and_nothing_else() {
        let old = json!({"a": 1, "b": {"c": 2, "d": 3}, "e": [1, 2], "f": "x"});
        let new = json!({"a": 1, "b": {"c": 5, "d": 3}, "e": [1], "g": null});
        let patch = diff(&old, &new).unwrap();
        assert_eq!(patch, json!({"b": {"c": 5}, "e": [1], "f": null, "g": null}));
        let mut patched = old;
        apply(&mut patched, &patch);
        assert_eq!(patched, json!({"a": 1, "b": {"c": 5, "d": 3}, "e": [1]}));
        assert_eq!(diff(&new, &new), None);
    }
}
