//! Rules for which the schema has no words, shared by the operator and the worker. Pure.

use super::{Decode, DecoderType, HttpFormat, HttpWriter, Transform, TransformType, Writer, WriterType};

impl HttpWriter {
    /// What is wrong with the headers: one occurs twice, in whatever case, or the login sets it as well.
    pub fn repeated_header(&self) -> Option<String> {
        for (index, header) in self.headers.iter().enumerate() {
            let name = &header.name;
            let login = self.bearer_token.is_some() || self.basic_auth.is_some();
            if login && name.eq_ignore_ascii_case("authorization") {
                return Some(format!(
                    "{name} is also set by bearerToken or basicAuth; remove one of them"
                ));
            }
            let same = |other: &&super::HttpHeader| other.name.eq_ignore_ascii_case(name);
            if let Some(earlier) = self.headers[..index].iter().find(same) {
                let earlier = &earlier.name;
                return Some(format!(
                    "{name} occurs twice, because names of headers have no case (the other one is {earlier}); use \
                     each name once"
                ));
            }
        }
        None
    }
}

/// The first writer that accepts only JSON although nothing makes or checks JSON: values are not decoded as
/// JSON, and no program or custom code comes in between.
pub fn writer_without_json<'w>(
    decode: &Decode,
    transforms: &[Transform],
    writers: &'w [Writer],
) -> Option<&'w Writer> {
    let checked = decode.value.kind == DecoderType::Json;
    let made = |transform: &Transform| transform.kind != TransformType::Fields;
    if checked || transforms.iter().any(made) {
        return None;
    }
    writers.iter().find(|writer| match writer.kind {
        WriterType::Postgres => true,
        WriterType::Http => (writer.http.as_ref()).is_some_and(|http| http.format == HttpFormat::JsonArray),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn http(http: Value) -> HttpWriter {
        serde_json::from_value(http).unwrap()
    }

    #[test]
    fn a_header_may_occur_once_in_whatever_case() {
        let headers = |names: &[&str]| -> Vec<Value> {
            names
                .iter()
                .map(|name| json!({"name": name, "value": "v"}))
                .collect()
        };
        let url = "https://api.example.com";
        let fine = http(json!({"url": url, "headers": headers(&["X-A", "X-B", "Authorization"])}));
        assert_eq!(fine.repeated_header(), None);
        let twice = http(json!({"url": url, "headers": headers(&["X-A", "X-B", "x-a"])}));
        let message = twice.repeated_header().unwrap();
        assert!(
            message.starts_with("x-a occurs twice") && message.contains("X-A"),
            "{message}"
        );
        let login = http(json!({
            "url": url, "headers": headers(&["authorization"]), "bearerToken": {"secretName": "s", "key": "k"},
        }));
        assert!(login.repeated_header().unwrap().contains("bearerToken"));
    }

    #[test]
    fn a_writer_of_json_needs_values_that_are_decoded_or_made_as_json() {
        let postgres =
            json!({"connection": {"secretName": "db", "key": "url"}, "table": "t", "keyColumns": ["id"]});
        let url = "https://api.example.com";
        let writers: Vec<Writer> = serde_json::from_value(json!([
            {"name": "out", "type": "Stdout"},
            {"name": "single", "type": "Http", "http": {"url": url, "format": "Single"}},
            {"name": "lines", "type": "Http", "http": {"url": url, "format": "Ndjson"}},
            {"name": "array", "type": "Http", "http": {"url": url}},
            {"name": "db", "type": "Postgres", "postgres": postgres},
        ]))
        .unwrap();
        let decode = |kind: &str| serde_json::from_value(json!({"value": {"type": kind}})).unwrap();
        let name = |decode: &Decode, transforms: &[Transform], writers: &[Writer]| {
            writer_without_json(decode, transforms, writers).map(|writer| writer.name.clone())
        };
        for kind in ["Bytes", "String"] {
            assert_eq!(name(&decode(kind), &[], &writers[..3]), None);
            assert_eq!(name(&decode(kind), &[], &writers[..4]).as_deref(), Some("array"));
            assert_eq!(name(&decode(kind), &[], &writers[4..]).as_deref(), Some("db"));
        }
        assert_eq!(name(&decode("Json"), &[], &writers), None);
        let program = json!([{"name": "p", "type": "Vrl", "vrl": {"source": ". = parse_json!(.)"}}]);
        let program: Vec<Transform> = serde_json::from_value(program).unwrap();
        assert_eq!(name(&decode("String"), &program, &writers), None);
    }
}
