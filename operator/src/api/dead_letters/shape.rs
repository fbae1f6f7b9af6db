//! Counts errors that look the same. In: dead letters. Out: how many have the same class, component, stage and
//! shape of the message: its text without numbers and what is quoted. Pure.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use super::item::DeadLetter;

/// Longest shape, in bytes.
const LONGEST: usize = 200;
/// Kinds of errors that are counted; more are counted together.
const KINDS: usize = 1000;
/// Kinds in an answer.
const SHOWN: usize = 50;

/// Number of dead letters with the same error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ErrorCount {
    /// Error class; null: unknown.
    pub class: Option<String>,
    /// Transform, writer or decoder; null: unknown.
    pub component: Option<String>,
    /// `decode`, `transform` or `write`; null: unknown.
    pub stage: Option<String>,
    /// The message with `#` for each number and `…` for what is quoted; null: there is none, or it belongs to too
    /// many kinds of errors.
    pub shape: Option<String>,
    pub count: u64,
}

/// Class, component, stage and shape.
type Kind = (Option<String>, Option<String>, Option<String>, Option<String>);

/// Counts of errors.
#[derive(Debug, Default)]
pub struct Errors(BTreeMap<Kind, u64>);

impl Errors {
    pub fn count(&mut self, letter: &DeadLetter) {
        let shape = letter.message.as_deref().map(shape);
        let (class, stage) = (letter.class.clone(), letter.stage.clone());
        let mut kind = (class, letter.component.clone(), stage, shape);
        if self.0.len() >= KINDS && !self.0.contains_key(&kind) {
            kind = (None, None, None, None);
        }
        *self.0.entry(kind).or_default() += 1;
    }

    /// The most frequent first.
    pub fn most(self) -> Vec<ErrorCount> {
        let counts = self.0.into_iter();
        let mut counts: Vec<ErrorCount> = counts
            .map(|((class, component, stage, shape), count)| ErrorCount {
                class,
                component,
                stage,
                shape,
                count,
            })
            .collect();
        counts.sort_by_key(|it| std::cmp::Reverse(it.count));
        counts.truncate(SHOWN);
        counts
    }
}

/// The message with `#` for each number and `…` for what is between double quotes.
fn shape(message: &str) -> String {
    let mut shape = String::new();
    let mut characters = message.chars().peekable();
    while let Some(character) = characters.next() {
        if shape.len() >= LONGEST {
            shape.push('…');
            break;
        }
        match character {
            '0'..='9' => {
                while characters.next_if(char::is_ascii_digit).is_some() {}
                shape.push('#');
            }
            '"' => {
                let rest: String = characters.clone().collect();
                match rest.find('"') {
                    Some(end) => {
                        let inner = rest[..end].chars().count();
                        characters.by_ref().take(inner + 1).for_each(drop);
                        shape.push_str("\"…\"");
                    }
                    None => shape.push('"'),
                }
            }
            other => shape.push(other),
        }
    }
    shape
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_quoted_texts_do_not_matter() {
        for (message, expected) in [
            ("", ""),
            ("line 12, column 7", "line #, column #"),
            (
                r#"relation "x" does not exist (SQLSTATE 42P01)"#,
                r##"relation "…" does not exist (SQLSTATE #P#)"##,
            ),
            (r#"an open " quote"#, r#"an open " quote"#),
            (r#""ä""b""#, r#""…""…""#),
        ] {
            assert_eq!(shape(message), expected);
        }
        assert!(shape(&"ä".repeat(5000)).len() < 220);
        assert!(shape(&"\"".repeat(5001)).len() < 220);
    }

    #[test]
    fn the_most_frequent_error_comes_first_and_the_kinds_are_bounded() {
        let letter = |component: String, message: &str| DeadLetter {
            component: Some(component),
            message: Some(message.into()),
            ..DeadLetter::default()
        };
        let mut errors = Errors::default();
        errors.count(&letter("a".into(), "id 1"));
        errors.count(&letter("b".into(), "id 2"));
        errors.count(&letter("b".into(), "id 33"));
        let most = errors.most();
        assert_eq!((most[0].count, most[0].shape.as_deref()), (2, Some("id #")));
        let mut errors = Errors::default();
        for number in 0..3 * KINDS {
            errors.count(&letter(format!("c{number}"), "x"));
        }
        assert!(errors.0.len() <= KINDS + 1);
        let most = errors.most();
        assert_eq!((most.len(), most[0].count), (SHOWN, 2 * KINDS as u64));
        assert_eq!(most[0].component, None);
    }
}
