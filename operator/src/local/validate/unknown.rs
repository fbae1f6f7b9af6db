//! Finds fields that are not in the schema, as the API server does with strict field validation, the default
//! of kubectl.

use serde_json::Value;

use super::field_error::{FieldError, join};
use super::hint;

/// Fields that the API server adds to every resource.
const ROOT: [&str; 3] = ["apiVersion", "kind", "metadata"];

pub(super) fn check(schema: &Value, object: &Value, errors: &mut Vec<FieldError>) {
    walk(schema, schema, object, "", errors);
}

fn walk(root: &Value, schema: &Value, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    match value {
        Value::Object(fields) => {
            let free = schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
            let properties = schema.get("properties").and_then(Value::as_object);
            let entries = schema.get("additionalProperties");
            for (name, child) in fields {
                if path.is_empty() && ROOT.contains(&name.as_str()) {
                    continue;
                }
                let known = properties.and_then(|properties| properties.get(name)).or(entries);
                match known {
                    Some(known) => walk(root, known, child, &join(path, name), errors),
                    // Without properties it is no object in the schema; `structure` reports that.
                    None if free || properties.is_none() => {}
                    None => errors.push(unknown(root, schema, path, name)),
                }
            }
        }
        Value::Array(items) => {
            if let Some(schema) = schema.get("items") {
                for (index, item) in items.iter().enumerate() {
                    walk(root, schema, item, &format!("{path}[{index}]"), errors);
                }
            }
        }
        _ => {}
    }
}

fn unknown(root: &Value, schema: &Value, path: &str, name: &str) -> FieldError {
    let mut message = format!("unknown field \"{}\"", join(path, name));
    let names: Vec<&str> = schema
        .get("properties")
        .and_then(Value::as_object)
        .map(|properties| properties.keys().map(String::as_str).collect())
        .unwrap_or_default();
    if let Some(near) = hint::nearest(name, names.iter().copied()) {
        message.push_str(&format!("; did you mean \"{}\"?", join(path, near)));
    } else if let Some(place) = hint::elsewhere(root, name) {
        message.push_str(&format!("; it belongs to \"{place}\""));
    } else {
        let place = if path.is_empty() { "the resource" } else { path };
        message.push_str(&format!("; {place} has the fields {}", names.join(", ")));
    }
    FieldError {
        path: String::new(),
        message,
    }
}
