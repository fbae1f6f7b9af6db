//! Checks types, required fields, enums, bounds, patterns and list keys against the CRD's schema, with the
//! API server's wording. Pure.

use regex::Regex;
use serde_json::Value;

use super::defaults::nullable;
use super::field_error::{FieldError, join};
use super::hint;

pub(super) fn check(schema: &Value, object: &Value, errors: &mut Vec<FieldError>) {
    walk(schema, object, "", errors);
}

fn walk(schema: &Value, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if value.is_null() && nullable(schema) {
        return;
    }
    if schema.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
        if !value.is_string() && !value.is_i64() {
            say(errors, path, wrong_type(path, "integer,string", value));
        } else if let Value::String(text) = value {
            string(schema, text, path, errors);
        } else {
            number(schema, value, path, errors);
        }
        return;
    }
    let expected = schema.get("type").and_then(Value::as_str);
    if expected.is_some_and(|expected| !is_of(expected, value)) {
        return say(
            errors,
            path,
            wrong_type(path, expected.unwrap_or_default(), value),
        );
    }
    one_of(schema, value, path, errors);
    match value {
        Value::Object(fields) => object(schema, fields, path, errors),
        Value::Array(items) => array(schema, items, path, errors),
        Value::String(text) => string(schema, text, path, errors),
        Value::Number(_) => number(schema, value, path, errors),
        Value::Null | Value::Bool(_) => {}
    }
}

fn object(schema: &Value, fields: &serde_json::Map<String, Value>, path: &str, errors: &mut Vec<FieldError>) {
    let properties = schema.get("properties").and_then(Value::as_object);
    for name in schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
    {
        if !fields.contains_key(name) {
            let about = properties
                .and_then(|properties| properties.get(name))
                .and_then(about);
            say(
                errors,
                &join(path, name),
                format!("Required value{}", about.unwrap_or_default()),
            );
        }
    }
    if let Some(most) = limit(schema, "maxProperties").filter(|most| fields.len() > *most) {
        say(
            errors,
            path,
            format!("Too many: {}: must have at most {most} items", fields.len()),
        );
    }
    for (name, child) in fields {
        let known = properties
            .and_then(|properties| properties.get(name))
            .or_else(|| schema.get("additionalProperties"));
        if let Some(known) = known {
            walk(known, child, &join(path, name), errors);
        }
    }
}

fn array(schema: &Value, items: &[Value], path: &str, errors: &mut Vec<FieldError>) {
    if let Some(most) = limit(schema, "maxItems").filter(|most| items.len() > *most) {
        say(
            errors,
            path,
            format!("Too many: {}: must have at most {most} items", items.len()),
        );
    }
    if let Some(least) = limit(schema, "minItems").filter(|least| items.len() < *least) {
        let about = about(schema).unwrap_or_default();
        say(
            errors,
            path,
            format!(
                "Invalid value: {}: {path} in body should have at least {least} items{about}",
                items.len()
            ),
        );
    }
    unique(schema, items, path, errors);
    if let Some(schema) = schema.get("items") {
        for (index, item) in items.iter().enumerate() {
            walk(schema, item, &format!("{path}[{index}]"), errors);
        }
    }
}

/// Lists that are maps by their keys, or sets.
fn unique(schema: &Value, items: &[Value], path: &str, errors: &mut Vec<FieldError>) {
    let kind = schema.get("x-kubernetes-list-type").and_then(Value::as_str);
    let names: Vec<&str> = match schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array) {
        Some(names) if kind == Some("map") => names.iter().filter_map(Value::as_str).collect(),
        _ if kind == Some("set") => Vec::new(),
        _ => return,
    };
    let key = |item: &Value| -> Value {
        if names.is_empty() {
            return item.clone();
        }
        names
            .iter()
            .map(|name| (name.to_string(), item.get(name).cloned().unwrap_or_default()))
            .collect()
    };
    let keys: Vec<Value> = items.iter().map(key).collect();
    for (index, this) in keys.iter().enumerate() {
        if let Some(first) = keys.iter().take(index).position(|other| other == this) {
            say(
                errors,
                &format!("{path}[{index}]"),
                format!("Duplicate value: {this}: {path}[{first}] has the same value; use a unique one"),
            );
        }
    }
}

fn string(schema: &Value, text: &str, path: &str, errors: &mut Vec<FieldError>) {
    let length = text.chars().count();
    if let Some(most) = limit(schema, "maxLength").filter(|most| length > *most) {
        say(
            errors,
            path,
            format!("Too long: may not be more than {most} bytes"),
        );
    }
    let about = about(schema).unwrap_or_default();
    if let Some(least) = limit(schema, "minLength").filter(|least| length < *least) {
        let body = format!("{path} in body should be at least {least} chars long");
        say(errors, path, format!("Invalid value: {text:?}: {body}{about}"));
    }
    if let Some(pattern) = schema.get("pattern").and_then(Value::as_str)
        && let Ok(regex) = Regex::new(pattern)
        && !regex.is_match(text)
    {
        let body = format!("{path} in body should match '{pattern}'");
        say(errors, path, format!("Invalid value: {text:?}: {body}{about}"));
    }
    if schema.get("format").and_then(Value::as_str) == Some("date-time")
        && text.parse::<jiff::Timestamp>().is_err()
    {
        let body = format!("{path} in body must be of type date-time: {text:?}");
        say(
            errors,
            path,
            format!("Invalid value: {text:?}: {body}, for example \"2026-01-31T00:00:00Z\""),
        );
    }
}

fn number(schema: &Value, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let bound = |name: &str| schema.get(name).and_then(Value::as_f64).zip(schema.get(name));
    let actual = value.as_f64().unwrap_or_default();
    if let Some((_, least)) = bound("minimum").filter(|(least, _)| actual < *least) {
        let least = short(least);
        say(
            errors,
            path,
            format!("Invalid value: {value}: {path} in body should be greater than or equal to {least}"),
        );
    }
    if let Some((_, most)) = bound("maximum").filter(|(most, _)| actual > *most) {
        let most = short(most);
        say(
            errors,
            path,
            format!("Invalid value: {value}: {path} in body should be less than or equal to {most}"),
        );
    }
}

fn one_of(schema: &Value, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let Some(allowed) = schema.get("enum").and_then(Value::as_array) else {
        return;
    };
    if allowed.contains(value) {
        return;
    }
    let names: Vec<String> = allowed.iter().map(ToString::to_string).collect();
    let mut message = format!(
        "Unsupported value: {value}: supported values: {}",
        names.join(", ")
    );
    let words = allowed.iter().filter_map(Value::as_str);
    if let Some(near) = value.as_str().and_then(|word| hint::nearest(word, words)) {
        message.push_str(&format!("; did you mean \"{near}\"?"));
    }
    say(errors, path, message);
}

fn is_of(expected: &str, value: &Value) -> bool {
    match expected {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "number" => value.is_number(),
        "integer" => {
            value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0)
        }
        _ => true,
    }
}

fn wrong_type(path: &str, expected: &str, value: &Value) -> String {
    let actual = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) if is_of("integer", value) => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let advice = match (expected, actual) {
        ("string" | "integer,string", "integer" | "number" | "boolean") => format!("; quote it: \"{value}\""),
        ("integer" | "number" | "boolean", "string") => "; write it without quotes".into(),
        ("array", _) => "; start each entry with \"- \"".into(),
        _ => String::new(),
    };
    format!("Invalid value: \"{actual}\": {path} in body must be of type {expected}: \"{actual}\"{advice}")
}

/// The first sentence of the field's description, often with an example.
fn about(schema: &Value) -> Option<String> {
    let description = schema.get("description").and_then(Value::as_str)?;
    let end = description
        .find(". ")
        .or_else(|| description.find(".\n"))
        .unwrap_or(description.len());
    let sentence = description.get(..end)?.trim_end_matches('.').replace('\n', " ");
    (!sentence.is_empty()).then(|| format!(" ({sentence})"))
}

fn limit(schema: &Value, name: &str) -> Option<usize> {
    schema
        .get(name)
        .and_then(Value::as_u64)
        .and_then(|limit| usize::try_from(limit).ok())
}

/// Bounds are floats in a CRD; 1.0 reads better as 1.
fn short(number: &Value) -> String {
    let text = number.to_string();
    text.strip_suffix(".0").map(str::to_string).unwrap_or(text)
}

fn say(errors: &mut Vec<FieldError>, path: &str, message: String) {
    errors.push(FieldError {
        path: path.into(),
        message,
    });
}
