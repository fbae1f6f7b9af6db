//! Rows in the order in which they are written: one [`Group`] per statement. Pure.
//!
//! Rows with different sets of columns cannot share a statement, because a column that a record does not
//! mention must keep its value. A row joins the last group of its form, unless a later group may contain a
//! row with the same key, which it must follow. Which keys are the same, the database decides: `7` and `007`
//! are one integer. A row whose key cannot be compared by its text follows all groups of another form.

use std::{borrow::Cow, collections::HashSet};

use super::table::KeyText;

/// Text of a column; `None` is NULL.
pub(super) type ColumnText<'a> = Option<Cow<'a, str>>;

/// A row to write, or to delete.
#[derive(Debug)]
pub(super) struct Row<'a> {
    /// With the columns of its key only.
    pub delete: bool,
    /// Index of a column in the table, and its text; ascending.
    pub values: Vec<(usize, ColumnText<'a>)>,
    pub key: RowKey<'a>,
}

/// What is known about the key of a row.
#[derive(Debug)]
pub(super) enum RowKey<'a> {
    /// No other row has it.
    Unique,
    /// Equal keys have the same text.
    Text(Vec<Cow<'a, str>>),
    /// It may be the same as any other. Equal texts are the same key, and so may be others.
    Unknown(Vec<Cow<'a, str>>),
}

/// Rows with the same columns.
#[derive(Clone, Debug)]
pub(super) struct Group<'a> {
    pub delete: bool,
    /// Indices in the table, ascending.
    pub columns: Vec<usize>,
    /// The values of each column, row by row.
    pub values: Vec<Vec<ColumnText<'a>>>,
    keys: HashSet<Vec<Cow<'a, str>>>,
    /// Rows whose key a later row of the group has, as far as the texts show.
    repeated: usize,
    has_unknown_keys: bool,
}

impl<'a> Group<'a> {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.values.first().map_or(0, Vec::len)
    }

    /// The number of rows that a later row of the same key replaces, as far as the texts show. The number of
    /// rows that the statement changes does not show it: it lacks rows that are deleted without being there,
    /// that exist and stay as they are, and that a trigger suppresses.
    pub fn merged(&self) -> usize {
        self.repeated
    }

    /// The same columns without a row.
    pub fn without_rows(&self) -> Group<'static> {
        Group::new(self.delete, self.columns.clone())
    }

    /// The last row alone.
    pub fn last_row(&self) -> Group<'static> {
        let owned = |text: &ColumnText<'a>| text.as_ref().map(|text| Cow::Owned(text.clone().into_owned()));
        let values = self
            .values
            .iter()
            .map(|values| values.last().map(owned).into_iter().collect());
        Group {
            values: values.collect(),
            ..self.without_rows()
        }
    }

    /// Bytes of the texts.
    pub fn size(&self) -> usize {
        let texts = self.values.iter().flatten().flatten();
        texts.map(|text| text.len()).sum()
    }

    fn new(delete: bool, columns: Vec<usize>) -> Self {
        Self {
            delete,
            values: vec![Vec::new(); columns.len()],
            columns,
            keys: HashSet::new(),
            repeated: 0,
            has_unknown_keys: false,
        }
    }

    fn has_form_of(&self, row: &Row<'_>) -> bool {
        self.delete == row.delete && self.columns.iter().eq(row.values.iter().map(|(index, _)| index))
    }

    fn may_contain(&self, key: &RowKey<'a>) -> bool {
        match key {
            RowKey::Unique => false,
            RowKey::Text(key) => self.has_unknown_keys || self.keys.contains(key),
            RowKey::Unknown(_) => true,
        }
    }
}

/// Adds a row behind all rows that it must follow. If rows of one key must not `merge`, a group has no key
/// twice.
pub(super) fn add<'a>(groups: &mut Vec<Group<'a>>, row: Row<'a>, merge: bool) {
    let mut home = None;
    for (index, group) in groups.iter().enumerate().rev() {
        let may_contain = group.may_contain(&row.key);
        if group.has_form_of(&row) && (merge || !may_contain) {
            home = Some(index);
            break;
        }
        if may_contain {
            break;
        }
    }
    let home = home.unwrap_or_else(|| {
        let columns = row.values.iter().map(|(index, _)| *index);
        groups.push(Group::new(row.delete, columns.collect()));
        groups.len() - 1
    });
    let group = &mut groups[home];
    match row.key {
        RowKey::Unique => {}
        RowKey::Text(key) => {
            group.repeated += usize::from(!group.keys.insert(key));
        }
        RowKey::Unknown(key) => {
            group.has_unknown_keys = true;
            group.repeated += usize::from(!group.keys.insert(key));
        }
    }
    for (values, (_, text)) in group.values.iter_mut().zip(row.values) {
        values.push(text);
    }
}

/// A text that is the same for all texts of the same key. `None` if only the database knows.
pub(super) fn comparable<'a>(text: &Cow<'a, str>, kind: KeyText) -> Option<Cow<'a, str>> {
    match kind {
        KeyText::Integer => {
            let trimmed = text.trim_ascii();
            let number: i64 = trimmed.parse().ok()?;
            let canonical = number.to_string();
            Some(if canonical == **text {
                text.clone()
            } else {
                canonical.into()
            })
        }
        KeyText::Uuid => {
            let digits: String = text
                .chars()
                .filter(|c| !matches!(c, '-' | '{' | '}'))
                .map(|c| c.to_ascii_lowercase())
                .collect();
            let valid = digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            valid.then(|| digits.into())
        }
        KeyText::Text if text.ends_with(' ') => Some(text.trim_end_matches(' ').to_owned().into()),
        KeyText::Text => Some(text.clone()),
        KeyText::Unknown => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(kind: KeyText, a: &str, b: &str) -> Option<bool> {
        let (a, b) = (Cow::Borrowed(a), Cow::Borrowed(b));
        Some(comparable(&a, kind)? == comparable(&b, kind)?)
    }

    #[test]
    fn keys_are_compared_as_the_database_compares_them_or_not_at_all() {
        for (kind, a, b, expected) in [
            (KeyText::Integer, "7", "007", Some(true)),
            (KeyText::Integer, "7", " +7 ", Some(true)),
            (KeyText::Integer, "-0", "0", Some(true)),
            (KeyText::Integer, "7", "8", Some(false)),
            (KeyText::Integer, "7", "0x7", None),
            (KeyText::Integer, "7", "7.0", None),
            (
                KeyText::Uuid,
                "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
                "{a0eebc999c0b4ef8bb6d6bb9bd380a11}",
                Some(true),
            ),
            (
                KeyText::Uuid,
                "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
                "a0ee",
                None,
            ),
            (KeyText::Text, "a", "A", Some(false)),
            (KeyText::Text, "a", "a  ", Some(true)),
            (KeyText::Unknown, "a", "a", None),
        ] {
            assert_eq!(same(kind, a, b), expected, "{a} {b}");
        }
    }

    /// Keys and columns of the rows of each group: `1ab` is key 1 with columns a and b, `?a` an unknown key,
    /// `1-` a delete.
    fn grouped(rows: &[&str], merge: bool) -> Vec<String> {
        let mut groups = Vec::new();
        for row in rows {
            let (key, columns) = row.split_at(1);
            let mut values = vec![(0, Some(Cow::Borrowed(key)))];
            let indices = columns.bytes().filter(u8::is_ascii_lowercase);
            values.extend(indices.map(|name| (usize::from(name - b'a') + 1, None)));
            let row = Row {
                delete: columns == "-",
                values,
                key: match key {
                    "?" => RowKey::Unknown(vec![key.into()]),
                    key => RowKey::Text(vec![key.into()]),
                },
            };
            add(&mut groups, row, merge);
        }
        let keys = |group: &Group<'_>| -> String {
            let keys = group.values[0].iter().map(|key| key.as_deref().unwrap_or("NULL"));
            let form = if group.delete {
                "-".to_string()
            } else {
                format!("{:?}", &group.columns[1..])
            };
            format!("{} {form}", keys.collect::<String>())
        };
        groups.iter().map(keys).collect()
    }

    #[test]
    fn a_row_never_overtakes_another_of_its_key() {
        assert_eq!(
            grouped(&["1a", "1b", "1a", "2a"], true),
            ["1 [1]", "1 [2]", "12 [1]"]
        );
        assert_eq!(grouped(&["1a", "2b", "3a", "4b"], true), ["13 [1]", "24 [2]"]);
        assert_eq!(
            grouped(&["1a", "1-", "1a", "2-"], true),
            ["1 [1]", "12 -", "1 [1]"]
        );
        // A key that cannot be compared keeps its place among rows of other forms.
        assert_eq!(grouped(&["?a", "?b", "?a"], true), ["? [1]", "? [2]", "? [1]"]);
        assert_eq!(
            grouped(&["?a", "?a", "1b", "1a"], true),
            ["?? [1]", "1 [2]", "1 [1]"]
        );
        assert_eq!(grouped(&["1a", "?b", "2a"], true), ["1 [1]", "? [2]", "2 [1]"]);
    }

    #[test]
    fn rows_count_as_merged_only_if_their_texts_show_it() {
        let unknown = |key: &'static str| RowKey::Unknown(vec![key.into()]);
        let text = |key: &'static str| RowKey::Text(vec![key.into()]);
        for delete in [false, true] {
            for (keys, merged) in [
                (
                    vec![unknown("1.0"), unknown("1.5"), unknown("1.0"), unknown("1.00")],
                    1,
                ),
                (vec![text("1"), text("2"), text("1"), text("1")], 2),
                (vec![RowKey::Unique, RowKey::Unique], 0),
            ] {
                let mut groups = Vec::new();
                for key in keys {
                    let row = Row {
                        delete,
                        values: vec![(0, None)],
                        key,
                    };
                    add(&mut groups, row, true);
                }
                assert_eq!(groups.iter().map(Group::merged).collect::<Vec<_>>(), [merged]);
            }
        }
    }

    #[test]
    fn without_merging_a_statement_has_no_key_twice() {
        assert_eq!(
            grouped(&["1a", "2a", "1a", "2a", "3a"], false),
            ["12 [1]", "123 [1]"]
        );
        assert_eq!(grouped(&["?a", "?a"], false), ["? [1]", "? [1]"]);
    }
}
