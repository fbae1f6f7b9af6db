//! The check of the demo. In: what an independent consumer read from the output topic and the dead letter
//! topic. Out: whether every order is in the right topic, at least once, with the right content. Pure; uses
//! no data of the workers.

use crds::dead_letter::HEADER_PREFIX;

use super::orders::{Order, number_in, order, poison_count};

/// Maximum number of wrong records and of dead letters that are shown.
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
    /// A tally of the first `records` orders.
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

    /// Numbers of written and dead-lettered orders, each order counted once.
    pub fn counts(&self) -> (u64, u64) {
        let count = |seen: &[bool]| seen.iter().filter(|seen| **seen).count() as u64;
        (count(&self.written), count(&self.dead))
    }

    /// True when every order has arrived; duplicates may still follow.
    pub fn complete(&self) -> bool {
        let (written, dead) = self.counts();
        written + dead >= u64::from(self.records)
    }

    pub fn note_output(&mut self, key: &[u8], value: &[u8]) {
        let Some(order) = self.find(value) else { return };
        if order.poison.is_some() {
            return self.report(&order, "is invalid and was written");
        }
        if order.key.as_bytes() != key {
            return self.report(&order, "has a different key");
        }
        let json: Option<serde_json::Value> = serde_json::from_slice(value).ok();
        let amount = json.as_ref().and_then(|json| json.get("amount")?.as_f64());
        // The transform turns the amount from text into a number.
        let cents = amount.map(|amount| (amount * 100.0).round() as u64);
        if cents != Some(order.cents) {
            return self.report(&order, "has a different amount");
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
            return self.report(&order, "is valid and was dead-lettered");
        }
        if order.value != value || order.key.as_bytes() != key {
            return self.report(&order, "was dead-lettered with different bytes");
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
            return self.report(
                &order,
                "was dead-lettered without the headers that contain the reason",
            );
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

    /// Ok if everything is correct; otherwise every reason why not.
    pub fn verdict(&self) -> Result<(), Vec<String>> {
        let (written, dead) = self.counts();
        let poison = u64::from(poison_count(self.records));
        let good = u64::from(self.records) - poison;
        let mut reasons = self.wrong.clone();
        if written != good {
            reasons.push(format!("{written} of {good} valid orders were written"));
        }
        if dead != poison {
            reasons.push(format!("{dead} of {poison} invalid orders were dead-lettered"));
        }
        let expected: u64 = (0..self.records)
            .map(order)
            .filter(|order| order.poison.is_none())
            .map(|order| order.cents)
            .sum();
        if self.cents != expected {
            reasons.push(format!(
                "the sum of the written amounts is {} cents, not {expected}",
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
                self.push_wrong(format!("a record belongs to no order: {shown}"));
                None
            }
        }
    }

    fn report(&mut self, order: &Order, what: &str) {
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

    /// All orders in their right topic, except those that `edit` handles itself.
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
    fn complete_output_is_correct_also_with_a_duplicate() {
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
    fn each_kind_of_error_is_found() {
        type Fault = fn(&mut Tally, &Order) -> bool;
        let table: [(Fault, &str); 6] = [
            (|_, order| order.number == 3, "989 of 990 valid"),
            (|_, order| order.number == 37, "9 of 10 invalid"),
            (
                |tally, order| {
                    if order.number == 3 {
                        tally.note_output(order.key.as_bytes(), &order.value);
                    }
                    order.number == 3
                },
                "order 3 has a different amount",
            ),
            (
                |tally, order| {
                    if order.number == 3 {
                        tally.note_dead_letter(order.key.as_bytes(), &order.value, &headers());
                    }
                    order.number == 3
                },
                "order 3 is valid and was dead-lettered",
            ),
            (
                |tally, order| {
                    if order.number == 37 {
                        let changed = [order.value.as_slice(), b" "].concat();
                        tally.note_dead_letter(order.key.as_bytes(), &changed, &headers());
                    }
                    order.number == 37
                },
                "order 37 was dead-lettered with different bytes",
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
        for (fault, message) in table {
            let reasons = tally(fault).verdict().unwrap_err().join("; ");
            assert!(reasons.contains(message), "{message} not in {reasons}");
        }
    }
}
