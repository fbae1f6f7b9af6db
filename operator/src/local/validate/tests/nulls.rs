//! Null for every field that the schema knows: refused with the name of the field, or the same as no value.

use super::*;

/// JSON pointers to all fields that the schema knows in the objects of `value`.
fn fields_of(schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    if let (Value::Object(fields), Some(properties)) = (value, schema["properties"].as_object()) {
        for (name, schema) in properties {
            found.push(format!("{at}/{name}"));
            fields_of(
                schema,
                fields.get(name).unwrap_or(&Value::Null),
                &format!("{at}/{name}"),
                found,
            );
        }
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        fields_of(&schema["items"], item, &format!("{at}/{index}"), found);
    }
}

#[test]
fn whatever_passes_the_schema_with_a_null_can_be_read() {
    let rules = Rules::new();
    let spec = &crds::crd::schema()["properties"]["spec"];
    let mut fields = Vec::new();
    fields_of(spec, &valid()["spec"], "/spec", &mut fields);
    assert!(fields.len() > 100, "{}", fields.len());
    for field in fields {
        let mut object = valid();
        let (parent, name) = field.rsplit_once('/').unwrap();
        object.pointer_mut(parent).unwrap()[name] = Value::Null;
        // Errors of the schema have a path; what cannot be read has none.
        let unreadable = |error: &FieldError| error.path.is_empty();
        let errors = rules.check(&object, None).err().unwrap_or_default();
        assert!(
            !errors.iter().any(unreadable),
            "{field}: {:?}",
            messages_of(&rules, &object)
        );
    }
    let mut object = valid();
    object["spec"]["worker"]["podDisruptionBudget"]["maxUnavailable"] = Value::Null;
    let group = rules.check(&object, None).unwrap_or_else(|_| panic!("refused"));
    let default = crds::spec::MaxUnavailable::Number(1);
    assert_eq!(group.spec.worker.pod_disruption_budget.max_unavailable, default);
}
