//! Fills in the schema's defaults, after dropping nulls of fields that cannot be null: the API server's
//! order. Pure.

use kube::core::cel::apply_defaults;
use serde_json::Value;

pub(super) fn fill(schema: &Value, object: &Value) -> Value {
    let mut object = object.clone();
    drop_nulls(schema, &mut object);
    apply_defaults(schema, &object)
}

/// `field: null` means "not set" unless the field is nullable.
fn drop_nulls(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            let properties = schema.get("properties").and_then(Value::as_object);
            fields.retain(|name, child| {
                let known = properties
                    .and_then(|properties| properties.get(name))
                    .or_else(|| {
                        schema
                            .get("additionalProperties")
                            .filter(|known| known.is_object())
                    });
                !(child.is_null() && known.is_some_and(|known| !nullable(known)))
            });
            for (name, child) in fields {
                let known = properties
                    .and_then(|properties| properties.get(name))
                    .or_else(|| schema.get("additionalProperties"));
                if let Some(known) = known {
                    drop_nulls(known, child);
                }
            }
        }
        Value::Array(items) => {
            if let Some(schema) = schema.get("items") {
                items.iter_mut().for_each(|item| drop_nulls(schema, item));
            }
        }
        _ => {}
    }
}

pub(super) fn nullable(schema: &Value) -> bool {
    schema.get("nullable") == Some(&Value::Bool(true))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_null_becomes_the_default_is_a_value_or_is_dropped() {
        let schema = json!({"type": "object", "properties": {
            "state": {"type": "string", "default": "Running"},
            "name": {"type": "string"},
            "owner": {"type": "string", "nullable": true},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "list": {"type": "array", "items": {"type": "object", "properties": {
                "size": {"type": "integer", "default": 3},
            }}},
        }});
        let filled = fill(
            &schema,
            &json!({
                "state": null, "name": null, "owner": null, "labels": {"a": null, "b": "c"}, "free": {"any": null},
                "list": [{"size": null}, {}],
            }),
        );
        assert_eq!(
            filled,
            json!({
                "state": "Running", "owner": null, "labels": {"b": "c"}, "free": {"any": null},
                "list": [{"size": 3}, {"size": 3}],
            })
        );
    }
}
