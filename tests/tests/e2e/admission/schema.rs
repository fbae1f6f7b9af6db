//! Derives from the CRD's schema one resource for each of its rules that breaks this rule. In: the committed
//! CRD, a valid resource. Out: the broken rule, its field, and the expected message of the API server. Skips
//! fields whose schema is Kubernetes' own (`spec.worker.affinity` and the like). Only lists CEL rules: a
//! resource that breaks one cannot be derived.

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

/// A resource that breaks one rule.
#[derive(Clone, Debug)]
pub struct Broken {
    /// Field and keyword, for example "spec.topics[].name minLength".
    pub rule: String,
    pub object: Value,
    /// The rejected field; None: the whole message is compared.
    pub field: Option<String>,
    pub says: String,
}

/// A CEL rule: its place, for example "spec.writers[].http", and its message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CelRule {
    pub path: String,
    pub message: String,
}

/// The fields of `spec.worker` that are embedded from Kubernetes.
const EMBEDDED: &[&str] = &[
    "spec.worker.affinity",
    "spec.worker.env",
    "spec.worker.imagePullSecrets",
    "spec.worker.resources",
    "spec.worker.tolerations",
    "spec.worker.topologySpreadConstraints",
];

/// The schema of a CRD's only version.
pub fn schema(crd: &Value) -> Result<&Value> {
    crd.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec")
        .context("the CRD has no schema of spec")
}

/// Every rule of the schema, broken.
pub fn broken(schema: &Value, good: &Value) -> Result<Vec<Broken>> {
    let mut all = Vec::new();
    let path = Path(vec![Step::Field("spec".into())]);
    walk(schema, &path, &mut |path, schema| {
        rules(path, schema, good, &mut all)
    })?;
    Ok(all)
}

/// Every CEL rule.
pub fn cel_rules(schema: &Value) -> Result<Vec<CelRule>> {
    let mut all = Vec::new();
    let path = Path(vec![Step::Field("spec".into())]);
    walk(schema, &path, &mut |path, schema| {
        for rule in schema["x-kubernetes-validations"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let message = rule["message"].as_str();
            all.push(CelRule {
                path: path.shown(),
                message: message
                    .with_context(|| format!("a rule of {} has no message", path.shown()))?
                    .to_string(),
            });
        }
        Ok(())
    })?;
    Ok(all)
}

#[derive(Clone, Debug)]
enum Step {
    Field(String),
    /// An element of a list.
    Item,
    /// A value of a map.
    Entry,
}

#[derive(Clone, Debug)]
struct Path(Vec<Step>);

impl Path {
    fn with(&self, step: Step) -> Self {
        Self(self.0.iter().cloned().chain([step]).collect())
    }

    fn shown(&self) -> String {
        let mut text = String::new();
        for step in &self.0 {
            match step {
                Step::Field(name) if text.is_empty() => text += name,
                Step::Field(name) => text = text + "." + name,
                Step::Item => text += "[]",
                Step::Entry => text += ".*",
            }
        }
        text
    }

    /// The place in a document, created if it is missing, and its name as the API server writes it. In a
    /// list, the first element that has the next field.
    fn place<'a>(&self, document: &'a mut Value) -> Result<(&'a mut Value, String)> {
        let (mut at, mut name) = (document, String::new());
        for (index, step) in self.0.iter().enumerate() {
            match step {
                Step::Field(field) => {
                    if !name.is_empty() {
                        name.push('.');
                    }
                    name += field;
                    at = fields(at)?.entry(field.clone()).or_insert(Value::Null);
                }
                Step::Entry => {
                    name += ".example";
                    at = fields(at)?.entry("example").or_insert(Value::Null);
                }
                Step::Item => {
                    if !at.is_array() {
                        *at = json!([null]);
                    }
                    let items = at.as_array_mut().context("a list")?;
                    let chosen = match self.0.get(index + 1) {
                        Some(Step::Field(field)) => items
                            .iter()
                            .position(|item| item.get(field).is_some())
                            .unwrap_or(0),
                        _ => 0,
                    };
                    name += &format!("[{chosen}]");
                    at = items.get_mut(chosen).context("an element")?;
                }
            }
        }
        Ok((at, name))
    }
}

fn fields(value: &mut Value) -> Result<&mut Map<String, Value>> {
    if !value.is_object() {
        *value = json!({});
    }
    value.as_object_mut().context("an object")
}

fn walk(schema: &Value, path: &Path, visit: &mut dyn FnMut(&Path, &Value) -> Result<()>) -> Result<()> {
    visit(path, schema)?;
    if EMBEDDED.contains(&path.shown().as_str()) {
        return Ok(());
    }
    for (name, child) in schema["properties"].as_object().into_iter().flatten() {
        walk(child, &path.with(Step::Field(name.clone())), visit)?;
    }
    for (keyword, step) in [("items", Step::Item), ("additionalProperties", Step::Entry)] {
        if let Some(child) = schema.get(keyword).filter(|child| child.is_object()) {
            walk(child, &path.with(step), visit)?;
        }
    }
    Ok(())
}

/// The broken resources of one node of the schema.
fn rules(path: &Path, schema: &Value, good: &Value, all: &mut Vec<Broken>) -> Result<()> {
    let embedded = EMBEDDED.contains(&path.shown().as_str());
    let whole = |keyword: &str| schema[keyword].as_f64().map(|number| number as i64);
    let mut add = |keyword: &str, bad: Value, says: String| {
        let mut object = good.clone();
        let (place, name) = path.place(&mut object)?;
        *place = bad;
        all.push(Broken {
            rule: format!("{} {keyword}", path.shown()),
            object,
            field: Some(name),
            says,
        });
        anyhow::Ok(())
    };
    if let Some(kind) = schema["type"].as_str() {
        let other = if kind == "string" {
            json!(4711)
        } else {
            json!("text")
        };
        // The API server names a string with a format by its format.
        let kind = schema["format"]
            .as_str()
            .filter(|_| kind == "string")
            .unwrap_or(kind);
        add("type", other, format!("must be of type {kind}"))?;
    }
    if let Some(least) = whole("minimum") {
        add(
            "minimum",
            json!(least - 1),
            format!("should be greater than or equal to {least}"),
        )?;
    }
    if let Some(most) = whole("maximum") {
        add(
            "maximum",
            json!(most + 1),
            format!("should be less than or equal to {most}"),
        )?;
    }
    if let Some(least) = whole("minLength") {
        let short = "x".repeat(least as usize - 1);
        add(
            "minLength",
            json!(short),
            format!("should be at least {least} chars long"),
        )?;
    }
    if let Some(most) = whole("maxLength") {
        let long = "x".repeat(most as usize + 1);
        add(
            "maxLength",
            json!(long),
            format!("may not be more than {most} bytes"),
        )?;
    }
    if let Some(pattern) = schema["pattern"].as_str() {
        // Not a name, a path, an address, a table or a URL, and within all limits of length.
        add(
            "pattern",
            json!(".bad value/."),
            format!("should match '{pattern}'"),
        )?;
    }
    if let Some(allowed) = schema["enum"].as_array() {
        let values: Vec<String> = allowed.iter().map(Value::to_string).collect();
        let says = format!(
            "Unsupported value: \"Nonsense\": supported values: {}",
            values.join(", ")
        );
        add("enum", json!("Nonsense"), says)?;
    }
    if schema["format"] == "date-time" {
        add("format", json!("yesterday"), "must be of type date-time".into())?;
    }
    if let Some(least) = whole("minItems") {
        let few: Vec<Value> = items(schema, least - 1);
        add(
            "minItems",
            few.into(),
            format!("should have at least {least} items"),
        )?;
    }
    if let Some(most) = whole("maxItems") {
        add(
            "maxItems",
            items(schema, most + 1).into(),
            format!("must have at most {most} items"),
        )?;
    }
    if let Some(most) = whole("maxProperties") {
        let many: Map<String, Value> = (0..=most)
            .map(|index| (format!("k{index}"), json!("v")))
            .collect();
        add(
            "maxProperties",
            many.into(),
            format!("must have at most {most} items"),
        )?;
    }
    if schema["x-kubernetes-list-type"] == "map" {
        let twice: Vec<Value> = items(schema, 1).into_iter().cycle().take(2).collect();
        add("list map", twice.into(), "Duplicate value".into())?;
        if let Some(last) = all.last_mut() {
            last.field = last.field.take().map(|field| field + "[1]");
        }
    }
    if !embedded {
        required_and_unknown(path, schema, good, all)?;
    }
    Ok(())
}

fn required_and_unknown(path: &Path, schema: &Value, good: &Value, all: &mut Vec<Broken>) -> Result<()> {
    for field in schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
    {
        let mut object = good.clone();
        let (place, name) = path.place(&mut object)?;
        fields(place)?.remove(field);
        all.push(Broken {
            rule: format!("{}.{field} required", path.shown()),
            object,
            field: Some(format!("{name}.{field}")),
            says: "Required value".into(),
        });
    }
    if schema["properties"].is_object() {
        let mut object = good.clone();
        let (place, name) = path.place(&mut object)?;
        fields(place)?.insert("unknownField".into(), json!(1));
        all.push(Broken {
            rule: format!("{} unknown field", path.shown()),
            object,
            field: None,
            says: format!("unknown field \"{name}.unknownField\""),
        });
    }
    Ok(())
}

/// A list of this length, valid enough for the API server to check the length.
fn items(schema: &Value, count: i64) -> Vec<Value> {
    let of = &schema["items"];
    (0..count)
        .map(|index| match of["type"].as_str() {
            Some("string") => json!(format!("item{index}")),
            _ => {
                let named = of["properties"]["name"].is_object().then_some("name");
                let keys = schema["x-kubernetes-list-map-keys"].as_array();
                let keys = keys.into_iter().flatten().filter_map(Value::as_str);
                let value = |key: &str| match of["properties"][key]["type"] == "integer" {
                    true => (key.to_owned(), json!(index)),
                    false => (key.to_owned(), json!(format!("item{index}"))),
                };
                Value::Object(keys.chain(named).map(value).collect())
            }
        })
        .collect()
}
