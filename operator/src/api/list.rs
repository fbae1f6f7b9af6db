//! Lists: filter, order, pages. In: query parameters and groups. Out: one page, and a cursor for the next. The
//! cursor holds the place in the order and not a number, so a list that changes between two pages repeats and
//! skips only what has moved. Pure.

use std::cmp::Ordering;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use crds::spec::DesiredState;
use serde::{Deserialize, Serialize};

use super::model::{Summary, Truth};
use super::problem::Problem;

/// Groups of a page if the request does not say.
const LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;

/// Query parameters of a list of groups.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Only groups of this namespace.
    pub namespace: Option<String>,
    /// Only groups with these labels: `app=shop,tier!=test,team`.
    pub label_selector: Option<String>,
    /// Only groups whose name, group id or namespace contains this text; case does not matter.
    pub search: Option<String>,
    /// Only groups with this desired state: `Running`, `Paused` or `Stopped`.
    pub state: Option<String>,
    /// Only groups whose condition Ready has this status: `True`, `False` or `Unknown`.
    pub ready: Option<String>,
    /// `attention` (default: groups that are not ready first, then by lag), `name`, `lag`, `inPerSecond`,
    /// `donePerSecond`, `workers` or `deadLettersPerMinute`. A minus in front reverses the order. Unknown
    /// values come last.
    pub sort: Option<String>,
    /// Groups per page, 1 to 1000. Default: 100.
    pub limit: Option<usize>,
    /// `nextCursor` of the page before, with the same other parameters.
    pub cursor: Option<String>,
}

/// What a list is ordered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Attention,
    Name,
    Lag,
    Incoming,
    Done,
    Workers,
    DeadLetters,
}

const KEYS: [(&str, Key); 7] = [
    ("attention", Key::Attention),
    ("name", Key::Name),
    ("lag", Key::Lag),
    ("inPerSecond", Key::Incoming),
    ("donePerSecond", Key::Done),
    ("workers", Key::Workers),
    ("deadLettersPerMinute", Key::DeadLetters),
];

/// A place in the order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Place {
    sort: String,
    first: f64,
    second: f64,
    namespace: String,
    name: String,
}

/// One page.
#[derive(Debug)]
pub struct Page<'a> {
    pub items: Vec<&'a Summary>,
    pub next_cursor: Option<String>,
    /// Number of groups that the filters select, on all pages.
    pub total: usize,
}

impl ListQuery {
    /// The page of these groups.
    pub fn page<'a>(&self, groups: impl Iterator<Item = &'a Summary>) -> Result<Page<'a>, Problem> {
        let sort = self.sort.as_deref().unwrap_or("attention");
        let (key, reverse) = sort_key(sort)?;
        let limit = self.limit.unwrap_or(LIMIT);
        if !(1..=MAX_LIMIT).contains(&limit) {
            let detail = format!("limit is {limit}; it must be 1 to {MAX_LIMIT}");
            return Err(Problem::bad_request("InvalidQuery", detail));
        }
        one_of("state", self.state.as_deref(), &["Running", "Paused", "Stopped"])?;
        one_of("ready", self.ready.as_deref(), &["True", "False", "Unknown"])?;
        let selector = selector(self.label_selector.as_deref().unwrap_or_default())?;
        let after = self
            .cursor
            .as_deref()
            .map(|cursor| place_of(cursor, sort))
            .transpose()?;
        let search = self.search.as_deref().unwrap_or_default().to_lowercase();
        let mut found: Vec<(Place, &Summary)> = groups
            .filter(|group| self.selects(group, &selector, &search))
            .map(|group| (place(group, key, reverse, sort), group))
            .collect();
        let total = found.len();
        found.sort_by(|one, other| compare(&one.0, &other.0));
        let start = after.map_or(0, |after| {
            found.partition_point(|(place, _)| compare(place, &after) != Ordering::Greater)
        });
        let rest = &found[start..];
        let shown = &rest[..rest.len().min(limit)];
        let next_cursor = match shown.last() {
            Some((place, _)) if rest.len() > shown.len() => Some(cursor(place)),
            _ => None,
        };
        Ok(Page {
            items: shown.iter().map(|(_, group)| *group).collect(),
            next_cursor,
            total,
        })
    }

    fn selects(&self, group: &Summary, selector: &[Term<'_>], search: &str) -> bool {
        let is =
            |wanted: &Option<String>, value: &str| wanted.as_deref().is_none_or(|wanted| wanted == value);
        let contains = |text: &str| text.to_lowercase().contains(search);
        is(&self.namespace, &group.namespace)
            && is(&self.state, &state_name(group.desired_state))
            && is(&self.ready, &format!("{:?}", group.ready))
            && selector.iter().all(|term| term.holds(group))
            && (contains(&group.name) || contains(&group.group_id) || contains(&group.namespace))
    }
}

/// The name of a state; empty if the resource cannot be read.
pub(super) fn state_name(state: Option<DesiredState>) -> String {
    state.map_or_else(String::new, |state| format!("{state:?}"))
}

fn one_of(name: &str, value: Option<&str>, allowed: &[&str]) -> Result<(), Problem> {
    match value {
        Some(value) if !allowed.contains(&value) => Err(Problem::bad_request(
            "InvalidQuery",
            format!("{name} is \"{value}\"; it must be {}", allowed.join(", ")),
        )),
        _ => Ok(()),
    }
}

fn sort_key(sort: &str) -> Result<(Key, bool), Problem> {
    let name = sort.strip_prefix('-').unwrap_or(sort);
    let key = KEYS.iter().find(|(known, _)| *known == name).map(|(_, key)| *key);
    let names: Vec<&str> = KEYS.iter().map(|(name, _)| *name).collect();
    let key = key.ok_or_else(|| {
        let detail = format!(
            "sort is \"{sort}\"; it must be {}, or one of them with a minus in front",
            names.join(", ")
        );
        Problem::bad_request("InvalidQuery", detail)
    })?;
    Ok((key, name.len() < sort.len()))
}

/// Smaller places come first; unknown values are infinite in both directions of the order.
fn place(group: &Summary, key: Key, reverse: bool, sort: &str) -> Place {
    let down = |value: Option<f64>| match value {
        Some(value) if reverse => -value,
        Some(value) => value,
        None => f64::INFINITY,
    };
    let (first, second) = match key {
        Key::Attention => {
            let rank = f64::from(match group.ready {
                Truth::False => 0_u8,
                Truth::Unknown => 1,
                Truth::True => 2,
            });
            (
                if reverse { -rank } else { rank },
                group.lag.map_or(f64::INFINITY, |lag| -(lag as f64)),
            )
        }
        Key::Name => (0.0, 0.0),
        Key::Lag => (down(group.lag.map(|lag| lag as f64)), 0.0),
        Key::Incoming => (down(group.in_per_second), 0.0),
        Key::Done => (down(group.done_per_second), 0.0),
        Key::Workers => (down(group.workers.map(|workers| workers as f64)), 0.0),
        Key::DeadLetters => (down(group.dead_letters_per_minute.map(|count| count as f64)), 0.0),
    };
    // JSON has no infinity.
    let finite = |value: f64| value.clamp(f64::MIN, f64::MAX);
    Place {
        sort: sort.into(),
        first: finite(first),
        second: finite(second),
        namespace: group.namespace.clone(),
        name: group.name.clone(),
    }
}

fn compare(one: &Place, other: &Place) -> Ordering {
    let numbers = one
        .first
        .total_cmp(&other.first)
        .then(one.second.total_cmp(&other.second));
    let names = (&one.name, &one.namespace).cmp(&(&other.name, &other.namespace));
    let names = if one.sort == "-name" {
        names.reverse()
    } else {
        names
    };
    numbers.then(names)
}

fn cursor(place: &Place) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(place).unwrap_or_default())
}

fn place_of(cursor: &str, sort: &str) -> Result<Place, Problem> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(cursor).ok();
    let place: Option<Place> = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    place.filter(|place| place.sort == sort).ok_or_else(|| {
        Problem::bad_request(
            "InvalidCursor",
            "the cursor does not belong to this list; use nextCursor of the page before with the same sort, or start without a cursor",
        )
    })
}

/// One part of a label selector.
#[derive(Debug)]
enum Term<'a> {
    Equal(&'a str, &'a str),
    NotEqual(&'a str, &'a str),
    Has(&'a str),
    HasNot(&'a str),
}

impl Term<'_> {
    fn holds(&self, group: &Summary) -> bool {
        let label = |name: &str| group.labels.get(name).map(String::as_str);
        match self {
            Self::Equal(name, value) => label(name) == Some(value),
            Self::NotEqual(name, value) => label(name) != Some(value),
            Self::Has(name) => label(name).is_some(),
            Self::HasNot(name) => label(name).is_none(),
        }
    }
}

fn selector(text: &str) -> Result<Vec<Term<'_>>, Problem> {
    let terms = text.split(',').map(str::trim).filter(|term| !term.is_empty());
    terms
        .map(|term| {
            let parsed = if let Some((name, value)) = term.split_once("!=") {
                Term::NotEqual(name.trim(), value.trim())
            } else if let Some((name, value)) = term.split_once('=') {
                Term::Equal(name.trim(), value.trim_start_matches('=').trim())
            } else if let Some(name) = term.strip_prefix('!') {
                Term::HasNot(name.trim())
            } else {
                Term::Has(term)
            };
            let (Term::Equal(name, _) | Term::NotEqual(name, _) | Term::Has(name) | Term::HasNot(name)) =
                parsed;
            if name.is_empty() || name.contains(|letter: char| letter.is_whitespace() || "()".contains(letter))
            {
                let detail = format!(
                    "labelSelector has the part \"{term}\"; write name=value, name!=value, name or !name, separated by commas"
                );
                return Err(Problem::bad_request("InvalidQuery", detail));
            }
            Ok(parsed)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::summary;
    use super::*;

    fn query(text: &str) -> ListQuery {
        let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
        let object = pairs.map(|(name, value)| {
            let value = value.parse::<u64>().map_or(value.into(), serde_json::Value::from);
            (name.to_string(), value)
        });
        serde_json::from_value(serde_json::Value::Object(object.collect())).unwrap()
    }

    fn groups() -> Vec<Summary> {
        [("a", Some(5)), ("b", None), ("c", Some(50)), ("d", Some(5))]
            .map(|(name, lag)| Summary {
                lag,
                ready: if name == "d" { Truth::False } else { Truth::True },
                labels: [("app".to_string(), name.to_string())].into(),
                ..summary(name)
            })
            .to_vec()
    }

    fn names(text: &str) -> Vec<String> {
        let groups = groups();
        let page = query(text).page(groups.iter()).unwrap();
        page.items.iter().map(|group| group.name.clone()).collect()
    }

    #[test]
    fn what_needs_attention_comes_first_and_unknown_values_last() {
        assert_eq!(names(""), ["d", "c", "a", "b"]);
        assert_eq!(names("sort=lag"), ["a", "d", "c", "b"]);
        assert_eq!(names("sort=-lag"), ["c", "a", "d", "b"]);
        assert_eq!(names("sort=-name"), ["d", "c", "b", "a"]);
    }

    #[test]
    fn filters_select() {
        assert_eq!(names("ready=False"), ["d"]);
        assert_eq!(names("search=DEFAULT.C"), ["c"]);
        assert_eq!(names("labelSelector=app!=a,app&sort=name"), ["b", "c", "d"]);
        assert_eq!(names("namespace=other"), [""; 0]);
        assert_eq!(names("state=Paused"), [""; 0]);
    }

    #[test]
    fn pages_hold_every_group_once_in_every_order() {
        let groups = groups();
        for (sort, _) in KEYS {
            for sort in [sort.to_string(), format!("-{sort}")] {
                let mut list = query(&format!("limit=1&sort={sort}"));
                let mut seen = Vec::new();
                loop {
                    let page = list.page(groups.iter()).unwrap();
                    assert_eq!(page.total, 4);
                    seen.extend(page.items.iter().map(|group| group.name.clone()));
                    list.cursor = page.next_cursor;
                    if list.cursor.is_none() {
                        break;
                    }
                }
                seen.sort();
                assert_eq!(seen, ["a", "b", "c", "d"], "{sort}");
            }
        }
    }

    #[test]
    fn wrong_parameters_are_refused_with_the_words_to_use() {
        let groups = groups();
        for (text, part) in [
            ("sort=size", "with a minus in front"),
            ("limit=0", "1 to 1000"),
            ("limit=1001", "1 to 1000"),
            ("state=Halted", "Running, Paused, Stopped"),
            ("ready=Yes", "True, False, Unknown"),
            ("labelSelector=a in (b)", "name=value"),
            ("cursor=x", "nextCursor"),
        ] {
            let problem = query(text).page(groups.iter()).unwrap_err();
            assert!(problem.detail.contains(part), "{text}: {}", problem.detail);
            assert_eq!(problem.status, 400);
        }
        // A cursor of another order would skip groups silently.
        let first = query("limit=1&sort=lag").page(groups.iter()).unwrap();
        let mut other = query("limit=1&sort=name");
        other.cursor = first.next_cursor;
        assert_eq!(other.page(groups.iter()).unwrap_err().reason, "InvalidCursor");
    }
}
