//! The demo's judge. In: what an independent consumer read from the output and the dead letter topic. Out: whether
//! every order is where it must be, once at least, with the right content. Pure; believes nothing that workers say.

use super::orders::{Order, number_in, order, poison_count};

/// Prefix of the headers that say why a record was dead-lettered.
const HEADER_PREFIX: &str = "kafka-consumer.dev/";
/// Wrong records and dead letters that are shown.
const EXAMPLES: usize = 3;

#[derive(Debug)]
pub struct Tally {
    records: u32,
    written: Vec<bool>,
    dead: Vec<bool>,
    pub duplicates: u64,
    pub cents: u64,
    pub wrong: Vec<String>,
    pub examples: Vec<String>,
}

impl Tally {
    /// For the first `records` orders.
    pub fn new(records: u32) -> Self {
        let none = vec![false; records as usize];
        Self {
            records,
            written: none.clone(),
            dead: none,
            duplicates: 0,
            cents: 0,
            wrong: Vec::new(),
            examples: Vec::new(),
        }
    }

    /// Orders that were written and dead-lettered, each counted once.
    pub fn counts(&self) -> (u64, u64) {
        let count = |seen: &[bool]| seen.iter().filter(|seen| **seen).count() as u64;
        (count(&self.written), count(&self.dead))
    }

    /// Every order has been seen; there may be more to come all the same.
    pub fn complete(&self) -> bool {
        let (written, dead) = self.counts();
        written + dead >= u64::from(self.records)
    }

    pub fn note_output(&mut self, key: &[u8], value: &[u8]) {
        let Some(order) = self.find(value) else { return };
        if order.poison.is_some() {
            return self.complain(&order, "is poison and was written");
        }
        if order.key.as_bytes() != key {
            return self.complain(&order, "has another key");
        }
        let json: Option<serde_json::Value> = serde_json::from_slice(value).ok();
        let amount = json.as_ref().and_then(|json| json.get("amount")?.as_f64());
        // The transform turns the amount from text into a number.
        let cents = amount.map(|amount| (amount * 100.0).round() as u64);
        if cents != Some(order.cents) {
            return self.complain(&order, "has another amount");
        }
        if mark(&mut self.written, order.number) {
            self.cents += order.cents;
        } else {
            self.duplicates += 1;
        }
    }

    pub fn note_dead_letter(&mut self, key: &[u8], value: &[u8], headers: &[(String, String)]) {
        let Some(order) = self.find(value) else { return };
        if order.poison.is_none() {
            return self.complain(&order, "is good and was dead-lettered");
        }
        if order.value != value || order.key.as_bytes() != key {
            return self.complain(&order, "was dead-lettered with other bytes");
        }
        let header = |name: &str| {
            headers
                .iter()
                .find(|(key, _)| key.strip_prefix(HEADER_PREFIX) == Some(name))
                .map(|(_, value)| value)
        };
        let (Some(topic), Some(partition), Some(offset), Some(message)) = (
            header("topic"),
            header("partition"),
            header("offset"),
            header("error-message"),
        ) else {
            return self.complain(&order, "was dead-lettered without the headers that say why");
        };
        let kind = order
            .poison
            .map(|poison| format!("{poison:?}"))
            .unwrap_or_default();
        if self.examples.len() < EXAMPLES && !self.examples.iter().any(|example| example.contains(&kind)) {
            let message: String = message
                .lines()
                .next()
                .unwrap_or_default()
                .chars()
                .take(70)
                .collect();
            self.examples
                .push(format!("{topic}-{partition}@{offset} {kind}: {message}"));
        }
        if !mark(&mut self.dead, order.number) {
            self.duplicates += 1;
        }
    }

    /// None: everything is right. Else every reason why not.
    pub fn verdict(&self) -> Result<(), Vec<String>> {
        let (written, dead) = self.counts();
        let poison = u64::from(poison_count(self.records));
        let good = u64::from(self.records) - poison;
        let mut reasons = self.wrong.clone();
        if written != good {
            reasons.push(format!("{written} of {good} good orders were written"));
        }
        if dead != poison {
            reasons.push(format!("{dead} of {poison} poison orders were dead-lettered"));
        }
        let expected: u64 = (0..self.records)
            .map(order)
            .filter(|order| order.poison.is_none())
            .map(|order| order.cents)
            .sum();
        if self.cents != expected {
            reasons.push(format!(
                "the amounts written sum up to {} cents, not {expected}",
                self.cents
            ));
        }
        if reasons.is_empty() { Ok(()) } else { Err(reasons) }
    }

    fn find(&mut self, value: &[u8]) -> Option<Order> {
        match number_in(value).filter(|number| *number < self.records) {
            Some(number) => Some(order(number)),
            None => {
                let shown: String = String::from_utf8_lossy(value).chars().take(40).collect();
                self.push_wrong(format!("a record is of no order: {shown}"));
                None
            }
        }
    }

    fn complain(&mut self, order: &Order, what: &str) {
        self.push_wrong(format!("order {} {what}", order.number));
    }

    fn push_wrong(&mut self, what: String) {
        if self.wrong.len() < EXAMPLES {
            self.wrong.push(what);
        }
    }
}

/// True the first time.
fn mark(seen: &mut [bool], number: u32) -> bool {
    seen.get_mut(number as usize)
        .is_some_and(|seen| !std::mem::replace(seen, true))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORDS: u32 = 1_000;

    fn output(order: &Order) -> Vec<u8> {
        let mut json: serde_json::Value = serde_json::from_slice(&order.value).unwrap();
        json["amount"] = (order.cents as f64 / 100.0).into();
        json.to_string().into_bytes()
    }

    fn headers() -> Vec<(String, String)> {
        ["topic", "partition", "offset", "error-message"]
            .map(|name| (format!("{HEADER_PREFIX}{name}"), "1".to_string()))
            .into()
    }

    /// All orders where they belong, except those that `edit` handles itself.
    fn tally(edit: impl Fn(&mut Tally, &Order) -> bool) -> Tally {
        let mut tally = Tally::new(RECORDS);
        for order in (0..RECORDS).map(order) {
            if edit(&mut tally, &order) {
                continue;
            }
            match order.poison {
                None => tally.note_output(order.key.as_bytes(), &output(&order)),
                Some(_) => tally.note_dead_letter(order.key.as_bytes(), &order.value, &headers()),
            }
        }
        tally
    }

    #[test]
    fn every_order_in_its_place_is_right_also_when_one_was_written_twice() {
        let all = tally(|_, _| false);
        assert_eq!(all.verdict(), Ok(()));
        assert_eq!(all.counts(), (990, 10));
        assert!(all.complete());
        let twice = tally(|tally, order| {
            if order.number == 5 {
                tally.note_output(order.key.as_bytes(), &output(order));
            }
            false
        });
        assert_eq!((twice.verdict(), twice.duplicates), (Ok(()), 1));
    }

    #[test]
    fn each_kind_of_mistake_is_found() {
        type Edit = fn(&mut Tally, &Order) -> bool;
        let table: [(Edit, &str); 6] = [
            (|_, order| order.number == 3, "989 of 990 good"),
            (|_, order| order.number == 37, "9 of 10 poison"),
            (
                |tally, order| {
                    if order.number == 3 {
                        tally.note_output(order.key.as_bytes(), &order.value);
                    }
                    order.number == 3
                },
                "order 3 has another amount",
            ),
            (
                |tally, order| {
                    if order.number == 3 {
                        tally.note_dead_letter(order.key.as_bytes(), &order.value, &headers());
                    }
                    order.number == 3
                },
                "order 3 is good and was dead-lettered",
            ),
            (
                |tally, order| {
                    if order.number == 37 {
                        let changed = [order.value.as_slice(), b" "].concat();
                        tally.note_dead_letter(order.key.as_bytes(), &changed, &headers());
                    }
                    order.number == 37
                },
                "order 37 was dead-lettered with other bytes",
            ),
            (
                |tally, order| {
                    if order.number == 37 {
                        tally.note_dead_letter(order.key.as_bytes(), &order.value, &[]);
                    }
                    order.number == 37
                },
                "without the headers",
            ),
        ];
        for (edit, said) in table {
            let reasons = tally(edit).verdict().unwrap_err().join("; ");
            assert!(reasons.contains(said), "{said} not in {reasons}");
        }
    }
}
