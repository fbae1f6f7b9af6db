//! Reads the files given with `-f`. In: paths. Out: the KafkaConsumerGroups, Secrets and ConfigMaps in them
//! as JSON values, notes about ignored documents, and problems with unreadable ones. Does not check the
//! groups: `validate` does.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::base64;

/// A KafkaConsumerGroup document, unchanged.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// File, and the number of the document if the file has several.
    pub origin: String,
    pub object: Value,
}

/// Keys and values of one Secret or ConfigMap. Debug shows no values.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ObjectData(pub BTreeMap<String, Vec<u8>>);

impl std::fmt::Debug for ObjectData {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Everything in the files. Secrets and ConfigMaps are keyed by namespace and name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Loaded {
    pub groups: Vec<Document>,
    pub secrets: BTreeMap<(String, String), ObjectData>,
    pub config_maps: BTreeMap<(String, String), ObjectData>,
    pub notes: Vec<String>,
    pub problems: Vec<String>,
}

/// Reads all files, and the YAML and JSON files directly in all folders, in order of their names.
pub fn load(paths: &[PathBuf], namespace: &str) -> Loaded {
    let mut loaded = Loaded::default();
    for path in paths {
        match files(path) {
            Ok(files) if files.is_empty() => loaded.problems.push(format!(
                "{}: no .yaml, .yml or .json file in this folder",
                path.display()
            )),
            Ok(files) => {
                for file in files {
                    match std::fs::read_to_string(&file) {
                        Ok(text) => read(&file.display().to_string(), &text, namespace, &mut loaded),
                        Err(error) => loaded.problems.push(format!("{}: {error}", file.display())),
                    }
                }
            }
            Err(error) => loaded.problems.push(format!(
                "{}: {error}; pass a file or a folder with -f",
                path.display()
            )),
        }
    }
    if loaded.groups.is_empty() && loaded.problems.is_empty() {
        loaded.problems.push(
            "no KafkaConsumerGroup in the given files; a document must have apiVersion: kafka-consumer.dev/v1alpha1 and kind: KafkaConsumerGroup"
                .into(),
        );
    }
    loaded
}

/// The files of one `-f`: the file itself, or the YAML and JSON files of a folder.
pub fn files(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    if !path.metadata()?.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut files: Vec<PathBuf> = std::fs::read_dir(path)?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|file| file.is_file() && extension(file))
        .collect();
    files.sort();
    Ok(files)
}

fn extension(file: &Path) -> bool {
    let extension = file.extension().and_then(|extension| extension.to_str());
    matches!(extension, Some("yaml" | "yml" | "json"))
}

/// Sorts the documents of one text into `loaded`.
fn read(file: &str, text: &str, namespace: &str, loaded: &mut Loaded) {
    let mut documents = Vec::new();
    for document in serde_yaml::Deserializer::from_str(text) {
        match <serde_yaml::Value as serde::Deserialize>::deserialize(document) {
            Ok(serde_yaml::Value::Null) => {}
            Ok(value) => documents.push(value),
            Err(error) => {
                // Documents after invalid YAML cannot be separated.
                loaded.problems.push(format!("{file}: not YAML: {error}"));
                break;
            }
        }
    }
    let several = documents.len() > 1;
    for (index, document) in documents.into_iter().enumerate() {
        let origin = if several {
            format!("{file} (document {})", index + 1)
        } else {
            file.to_string()
        };
        match serde_json::to_value(&document) {
            Ok(object) => sort(origin, object, namespace, loaded),
            Err(error) => loaded
                .problems
                .push(format!("{origin}: {error}; keys must be strings")),
        }
    }
}

fn sort(origin: String, object: Value, namespace: &str, loaded: &mut Loaded) {
    let kind = object
        .get("kind")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_string();
    let name = object
        .pointer("/metadata/name")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_string();
    let namespace = object
        .pointer("/metadata/namespace")
        .and_then(Value::as_str)
        .unwrap_or(namespace)
        .to_string();
    match kind.as_str() {
        "KafkaConsumerGroup" => {
            let same = |other: &Document| {
                other.object.pointer("/metadata/name").and_then(Value::as_str) == Some(&name)
                    && other.object.pointer("/metadata/namespace") == object.pointer("/metadata/namespace")
            };
            match loaded.groups.iter().find(|other| same(other)) {
                Some(other) if !name.is_empty() => loaded.problems.push(format!(
                    "{origin}: KafkaConsumerGroup \"{name}\" is in {} too; give each group a unique metadata.name",
                    other.origin
                )),
                _ => loaded.groups.push(Document { origin, object }),
            }
        }
        "Secret" => match keys(&object, "stringData", "data") {
            Ok(keys) => {
                loaded.secrets.insert((namespace, name), keys);
            }
            Err(problem) => loaded.problems.push(format!("{origin}: Secret \"{name}\": {problem}")),
        },
        "ConfigMap" => match keys(&object, "data", "binaryData") {
            Ok(keys) => {
                loaded.config_maps.insert((namespace, name), keys);
            }
            Err(problem) => loaded.problems.push(format!("{origin}: ConfigMap \"{name}\": {problem}")),
        },
        "" => loaded.problems.push(format!(
            "{origin}: no kind; a KafkaConsumerGroup starts with apiVersion: kafka-consumer.dev/v1alpha1 and kind: KafkaConsumerGroup"
        )),
        "KafkaOffsetReset" => loaded.notes.push(format!(
            "{origin}: KafkaOffsetReset \"{name}\" is ignored: local mode sets offsets with kafka-consumer-operator local reset"
        )),
        other => loaded.notes.push(format!("{origin}: {other} \"{name}\" is ignored: local mode reads KafkaConsumerGroups, Secrets and ConfigMaps")),
    }
}

/// `plain` contains strings, `encoded` base64. As in Kubernetes, `plain` overrides `encoded` in Secrets, and
/// the keys of a ConfigMap are unique.
fn keys(object: &Value, plain: &str, encoded: &str) -> Result<ObjectData, String> {
    let mut keys = BTreeMap::new();
    for (field, decode) in [(encoded, true), (plain, false)] {
        let Some(entries) = object.get(field).and_then(Value::as_object) else {
            continue;
        };
        for (key, value) in entries {
            if !key
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
                || key.starts_with("..")
            {
                return Err(format!(
                    "{field} key \"{key}\" must consist of letters, digits, '-', '_' and '.'"
                ));
            }
            let Some(text) = value.as_str() else {
                return Err(format!("{field}.{key} must be a string; quote it"));
            };
            let bytes = if decode {
                base64::decode(text).ok_or_else(|| {
                    format!("{field}.{key} is not base64; encode it, or use {plain} for plain text")
                })?
            } else {
                text.as_bytes().to_vec()
            };
            keys.insert(key.clone(), bytes);
        }
    }
    Ok(ObjectData(keys))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded(text: &str) -> Loaded {
        let mut loaded = Loaded::default();
        read("a.yaml", text, "default", &mut loaded);
        loaded
    }

    #[test]
    fn documents_are_sorted_by_kind_and_other_kinds_are_noted() {
        let loaded = loaded(
            "---\n# only a comment\n---\nkind: KafkaConsumerGroup\nmetadata: {name: orders}\n---\nkind: Secret\nmetadata: {name: s, namespace: n}\nstringData: {password: p}\ndata: {username: YWxpY2U=, password: eA==}\n---\nkind: ConfigMap\nmetadata: {name: c}\ndata: {ca.crt: PEM}\n---\nkind: Namespace\nmetadata: {name: n}\n",
        );
        assert_eq!(loaded.problems, Vec::<String>::new());
        assert_eq!(loaded.groups.len(), 1);
        assert!(
            loaded.groups[0].origin.starts_with("a.yaml (document "),
            "{}",
            loaded.groups[0].origin
        );
        let secret = &loaded.secrets[&("n".to_string(), "s".to_string())].0;
        assert_eq!(secret["username"], b"alice");
        assert_eq!(
            secret["password"], b"p",
            "stringData overrides data, as in Kubernetes"
        );
        assert!(
            loaded
                .config_maps
                .contains_key(&("default".to_string(), "c".to_string()))
        );
        assert!(loaded.notes[0].contains("Namespace \"n\""), "{:?}", loaded.notes);
    }

    #[test]
    fn unreadable_documents_are_reported_with_their_file() {
        for (text, message) in [
            ("a: [", "not YAML"),
            ("a: 1\na: 2\nkind: Secret", "duplicate"),
            ("metadata: {name: x}", "no kind"),
            (
                "kind: Secret\nmetadata: {name: s}\ndata: {password: '%%'}",
                "not base64",
            ),
            (
                "kind: Secret\nmetadata: {name: s}\nstringData: {port: 5432}",
                "quote it",
            ),
            (
                "kind: Secret\nmetadata: {name: s}\nstringData: {../x: a}",
                "must consist of",
            ),
        ] {
            let problems = loaded(text).problems;
            assert_eq!(problems.len(), 1, "{text}: {problems:?}");
            assert!(
                problems[0].starts_with("a.yaml: ") && problems[0].contains(message),
                "{problems:?}"
            );
        }
    }

    #[test]
    fn a_name_that_is_used_twice_is_refused() {
        let group = "kind: KafkaConsumerGroup\nmetadata: {name: orders}\n";
        let problems = loaded(&format!("{group}---\n{group}")).problems;
        assert!(
            problems[0].contains("\"orders\" is in a.yaml (document 1) too"),
            "{problems:?}"
        );
    }

    #[test]
    fn secret_values_are_not_in_debug_output() {
        let loaded = loaded("kind: Secret\nmetadata: {name: s}\nstringData: {password: hunter2}");
        assert!(!format!("{loaded:?}").contains("hunter2"));
        assert!(!format!("{loaded:?}").contains("104, 117"));
    }

    #[test]
    fn the_yaml_files_of_a_folder_are_read_in_order_of_name() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.yaml", "a.yml", "c.txt"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let names: Vec<_> = files(dir.path())
            .unwrap()
            .iter()
            .map(|f| f.file_name().unwrap().to_owned())
            .collect();
        assert_eq!(names, ["a.yml", "b.yaml"]);
        assert!(load(&[dir.path().join("missing.yaml")], "default").problems[0].contains("-f"));
    }
}
