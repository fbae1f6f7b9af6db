//! Removes what nobody else should read from resources. In: a resource as JSON. Out: the same with `REDACTED`. Pure.
//! Removes rather too much: literal values of environment variables, header values, settings of custom code,
//! passwords in URLs, whatever has a name like a password, and copies of the resource in annotations.

use serde_json::Value;

const REDACTED: &str = "REDACTED";
/// Lists of objects with name and value, whose values are removed.
const NAMED_VALUES: [&str; 3] = ["env", "headers", "httpHeaders"];
/// What a property is called that may have a password, in lower case.
const SECRET_WORDS: [&str; 9] = [
    "password",
    "passwd",
    "secret",
    "token",
    "credential",
    "jaas",
    "apikey",
    "api_key",
    "api.key",
];
/// Fields whose value only names a Secret or a key in it.
const NAMES: [&str; 3] = ["secretName", "passwordKey", "usernameKey"];

/// A resource without what nobody else should read.
pub fn redacted(mut resource: Value) -> Value {
    if let Some(metadata) = resource["metadata"].as_object_mut() {
        metadata.remove("managedFields");
    }
    redact(&mut resource);
    resource
}

fn redact(value: &mut Value) {
    match value {
        Value::Object(object) => {
            for (name, value) in object.iter_mut() {
                match (name.as_str(), &mut *value) {
                    (list, Value::Array(entries)) if NAMED_VALUES.contains(&list) => {
                        entries.iter_mut().for_each(without_value);
                        redact(value);
                    }
                    ("custom", Value::Object(custom)) => {
                        if let Some(config) = custom.get_mut("config") {
                            *config = REDACTED.into();
                        }
                        redact(value);
                    }
                    ("annotations", Value::Object(annotations)) => annotations
                        .iter_mut()
                        .filter(|(name, _)| !is_ours(name))
                        .for_each(|(_, value)| *value = REDACTED.into()),
                    (name, Value::String(_)) if is_secret(name) => *value = REDACTED.into(),
                    _ => redact(value),
                }
            }
        }
        Value::Array(entries) => entries.iter_mut().for_each(redact),
        Value::String(text) => *text = without_login(text),
        _ => {}
    }
}

/// Annotations of others may have anything, such as the whole resource as it was applied.
fn is_ours(annotation: &str) -> bool {
    annotation.contains(crds::names::API_GROUP)
        || annotation == "deployment.kubernetes.io/revision"
        || annotation == "kubectl.kubernetes.io/restartedAt"
}

fn without_value(entry: &mut Value) {
    if let Some(value) = entry.get_mut("value") {
        *value = REDACTED.into();
    }
}

fn is_secret(name: &str) -> bool {
    let lower = name.to_lowercase();
    !NAMES.contains(&name) && SECRET_WORDS.iter().any(|word| lower.contains(word))
}

/// A text without what may be a login in a URL: what is before the last `@`, and the query.
pub fn without_login(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("://").map(|colon| colon + 3) {
        let (before, after) = rest.split_at(start);
        // Neither may be in a URL; everything else may be in a password.
        let end = |c: char| c.is_whitespace() || c == '"';
        let (url, after) = after.split_at(after.find(end).unwrap_or(after.len()));
        let (login, host) = url
            .rsplit_once('@')
            .map_or((false, url), |(_, host)| (true, host));
        shown.push_str(before);
        if login {
            shown.push_str(&format!("{REDACTED}@"));
        }
        match host.split_once('?') {
            Some((host, _)) => shown.push_str(&format!("{host}?{REDACTED}")),
            None => shown.push_str(host),
        }
        rest = after;
    }
    shown.push_str(rest);
    shown
}

#[cfg(test)]
mod tests {
    use proptest::char::range;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn no_literal_secret_stays_and_references_do() {
        let text = redacted(json!({
            "metadata": {
                "name": "orders",
                "managedFields": [{"manager": "hunter2"}],
                "annotations": {
                    "kubectl.kubernetes.io/last-applied-configuration": "{\"spec\": \"hunter2\"}",
                    "kafka-consumer.dev/applied-hash": "abc",
                    "vendor/note": "hunter2",
                },
            },
            "spec": {
                "kafka": {"clientConfig": {"sasl.jaas.config": "hunter2", "ssl.key.password": "hunter2"}},
                "worker": {"env": [
                    {"name": "A", "value": "hunter2"},
                    {"name": "B", "valueFrom": {"secretKeyRef": {"name": "ref", "key": "k"}}},
                ]},
                "writers": [
                    {"http": {
                        "url": "https://me:hunter2@host/path?key=hunter2",
                        "headers": [{"name": "X-Key", "value": "hunter2"}],
                        "bearerToken": {"secretName": "api", "key": "t"},
                        "basicAuth": {"secretName": "login", "passwordKey": "pw"},
                    }},
                    {"custom": {"name": "mine", "config": {"anything": "hunter2"}}},
                ],
                "template": {"spec": {"containers": [{"env": [{"name": "C", "value": "hunter2"}], "image": "worker:1"}]}},
            },
            "status": {"message": "cannot reach postgres://me:hunter2@db/x"},
        }));
        let shown = serde_json::to_string(&text).unwrap();
        assert!(!shown.contains("hunter2"), "{shown}");
        assert_eq!(
            text["spec"]["writers"][0]["http"]["url"],
            "https://REDACTED@host/path?REDACTED"
        );
        assert_eq!(
            text["spec"]["writers"][0]["http"]["bearerToken"]["secretName"],
            "api"
        );
        assert_eq!(
            text["spec"]["writers"][0]["http"]["basicAuth"]["passwordKey"],
            "pw"
        );
        assert_eq!(
            text["spec"]["worker"]["env"][1]["valueFrom"]["secretKeyRef"]["name"],
            "ref"
        );
        assert_eq!(
            text["spec"]["worker"]["env"][0],
            json!({"name": "A", "value": "REDACTED"})
        );
        assert_eq!(
            text["metadata"]["annotations"]["kafka-consumer.dev/applied-hash"],
            "abc"
        );
        assert_eq!(
            text["spec"]["template"]["spec"]["containers"][0]["image"],
            "worker:1"
        );
        assert_eq!(text["status"]["message"], "cannot reach postgres://REDACTED@db/x");
    }

    #[test]
    fn logins_in_urls_are_removed_wherever_they_are() {
        for (text, shown) in [
            ("no url", "no url"),
            (
                "https://host/a (https://host:1/b)",
                "https://host/a (https://host:1/b)",
            ),
            ("a://u:p/w?x@h/b, c://u@h", "a://REDACTED@h/b, c://REDACTED@h"),
            ("a://u:p,)w@h/b", "a://REDACTED@h/b"),
            ("\"http://h?k=v\" ://", "\"http://h?REDACTED\" ://"),
        ] {
            assert_eq!(without_login(text), shown);
        }
    }

    proptest! {
        #[test]
        fn no_password_of_a_url_stays_whatever_its_characters(
            characters in vec(range('!', '~'), 1..20),
            before in vec(range(' ', '~'), 0..20),
        ) {
            let password: String = characters.into_iter().filter(|c| *c != '"').chain("hunter2".chars()).collect();
            let before: String = before.into_iter().collect();
            let shown = without_login(&format!("{before} postgres://me:{password}@db:5432/x and more"));
            prop_assert!(!shown.contains("hunter2"), "{}", shown);
            prop_assert!(shown.ends_with("@db:5432/x and more"), "{}", shown);
        }
    }
}
