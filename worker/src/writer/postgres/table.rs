//! The columns of the target table.

use std::collections::HashMap;

use super::identifier::quote_table;

/// How JSON becomes the text that a column accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    /// An array literal.
    pub array: bool,
    /// The column itself, or each element of its arrays.
    pub element: Element,
}

impl Kind {
    /// True if a string stays a JSON string.
    pub fn is_json(self) -> bool {
        self.element == Element::Json
    }
}

/// How one JSON value becomes text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element {
    /// JSON, unchanged.
    Json,
    /// A date, a time or a duration.
    Temporal(Temporal),
    /// A range of dates or of timestamps without a zone.
    ZonelessRange,
    /// Anything else.
    Text,
}

/// The types of dates, times and durations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Temporal {
    Date,
    Time,
    TimeTz,
    Timestamp,
    TimestampTz,
    Interval,
}

/// How equal keys are recognized by their text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyText {
    Integer,
    Uuid,
    /// Compared character by character, except for blanks at the end.
    Text,
    /// Only the database knows which texts are the same key.
    Unknown,
}

/// A column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Column {
    pub name: String,
    /// The casts that make a value of a text, as SQL. Without length and precision, so that the assignment
    /// refuses what an explicit cast would cut.
    pub cast: String,
    pub kind: Kind,
    /// The database computes the value, so it cannot be written.
    pub generated: bool,
    /// The collation of its unique index, as SQL, if the type has collations.
    pub collation: Option<String>,
    pub key: KeyText,
    /// A new row without the column may violate NOT NULL or a CHECK.
    pub guarded: bool,
}

/// The target table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Table {
    /// The name as configured.
    pub name: String,
    /// The name as SQL.
    pub quoted: String,
    /// What [`fingerprint`] returned when the columns were read.
    pub fingerprint: String,
    pub columns: Vec<Column>,
    by_name: HashMap<String, usize>,
}

impl Table {
    pub fn new(name: &str, fingerprint: String, columns: Vec<Column>) -> Self {
        let by_name = columns
            .iter()
            .enumerate()
            .map(|(index, column)| (column.name.clone(), index))
            .collect();
        Self {
            name: name.into(),
            quoted: quote_table(name),
            fingerprint,
            columns,
            by_name,
        }
    }

    /// Index of the column with this name.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// The column whose name differs only in case.
    pub fn similar(&self, name: &str) -> Option<&str> {
        let same = |column: &&Column| column.name.to_lowercase() == name.to_lowercase();
        self.columns.iter().find(same).map(|column| column.name.as_str())
    }
}

/// What the values are encoded and cast by: changes if the table is another one, or if a column is added,
/// dropped, renamed or gets another type. The parameter is the name of the table as SQL.
pub(super) fn fingerprint(parameter: usize) -> String {
    format!(
        "(SELECT string_agg(concat_ws(' ', a.attrelid, a.attnum, a.attname, a.atttypid, a.attgenerated, \
         a.attidentity, a.attnotnull, a.atthasdef), ',' ORDER BY a.attnum) FROM pg_catalog.pg_attribute a \
         WHERE a.attrelid = to_regclass(${parameter}::text) AND a.attnum > 0 AND NOT a.attisdropped)"
    )
}

/// The casts from text to the type of a column, as SQL. A text with a zone means that moment: a type without
/// a zone gets it in UTC, the zone of the session.
pub(super) fn cast(type_name: &str, array: bool, element: Element) -> String {
    let moment = match (element, array) {
        (Element::Temporal(Temporal::Date | Temporal::Timestamp), true) => "::pg_catalog.timestamptz[]",
        (Element::Temporal(Temporal::Date | Temporal::Timestamp), false) => "::pg_catalog.timestamptz",
        _ => "",
    };
    // An array of domains is read element by element, by the rules of the domain, and needs no detour.
    format!("{moment}::{type_name}")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A table public.orders with columns of these names and types; the type determines the kind.
    pub fn table(columns: &[(&str, &str)]) -> Table {
        let columns = columns.iter().map(|(name, type_name)| {
            let array = type_name.ends_with("[]");
            let element = match type_name.trim_end_matches("[]") {
                "json" | "jsonb" => Element::Json,
                "timestamp" => Element::Temporal(Temporal::Timestamp),
                _ => Element::Text,
            };
            Column {
                name: name.to_string(),
                cast: cast(type_name, array, element),
                kind: Kind { array, element },
                generated: name.starts_with("generated"),
                collation: (*type_name == "text").then(|| "\"C\"".to_string()),
                key: match *type_name {
                    "integer" | "bigint" => KeyText::Integer,
                    "uuid" => KeyText::Uuid,
                    "text" => KeyText::Text,
                    _ => KeyText::Unknown,
                },
                guarded: name.starts_with("must"),
            }
        });
        Table::new("public.orders", "print".into(), columns.collect())
    }

    #[test]
    fn columns_are_found_by_their_exact_name() {
        let table = table(&[("id", "integer"), ("Name", "text")]);
        assert_eq!((table.find("Name"), table.find("name")), (Some(1), None));
        assert_eq!(
            (table.similar("name"), table.similar("nam")),
            (Some("Name"), None)
        );
    }
}
