//! "Did you mean": finds the name that the user probably meant. Pure.

use serde_json::Value;

use super::field_error::join;

/// The candidate nearest to `word`, if at most a third of the letters differ.
pub(super) fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_lowercase();
    candidates
        .map(|candidate| {
            (
                strsim::damerau_levenshtein(&lower, &candidate.to_lowercase()),
                candidate,
            )
        })
        .filter(|(distance, candidate)| *distance <= candidate.len().max(word.len()) / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The path of a field with exactly this name: users often know the field and forget its parent.
pub(super) fn elsewhere(schema: &Value, name: &str) -> Option<String> {
    let mut found = Vec::new();
    search(schema, name, "", &mut found);
    found.sort_by_key(|path: &String| path.matches('.').count());
    found.into_iter().next()
}

fn search(schema: &Value, name: &str, path: &str, found: &mut Vec<String>) {
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        for (property, child) in properties {
            let path = join(path, property);
            // Users do not write the status, and the embedded Kubernetes types share too many names.
            if path == "status" || path == "spec.worker" {
                continue;
            }
            if property == name {
                found.push(path.clone());
            }
            search(child, name, &path, found);
        }
    }
    if let Some(items) = schema.get("items") {
        search(items, name, &format!("{path}[]"), found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_finds_its_field_and_an_unrelated_word_finds_none() {
        let fields = ["topics", "kafka", "groupId", "writers"];
        assert_eq!(nearest("topic", fields.into_iter()), Some("topics"));
        assert_eq!(nearest("groupID", fields.into_iter()), Some("groupId"));
        assert_eq!(nearest("wirters", fields.into_iter()), Some("writers"));
        assert_eq!(nearest("sink", fields.into_iter()), None);
    }

    #[test]
    fn a_misplaced_field_finds_its_path() {
        let schema = crds::crd::schema();
        assert_eq!(
            elsewhere(&schema, "bootstrapServers").as_deref(),
            Some("spec.kafka.bootstrapServers")
        );
        assert_eq!(
            elsewhere(&schema, "maxAttempts").as_deref(),
            Some("spec.errorHandling.retry.maxAttempts")
        );
        assert_eq!(elsewhere(&schema, "nonsense"), None);
    }
}
