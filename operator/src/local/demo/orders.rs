//! The orders of the demo: always the same, so that the output can be compared with the input. In: a number.
//! Out: the order with that number. Pure.

use jiff::{SignedDuration, Timestamp};

/// One order out of this many is invalid.
const POISON_EVERY: u32 = 100;
const POISON_AT: u32 = 37;

/// What is wrong with an invalid order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poison {
    CutOff,
    NotJson,
    NotUtf8,
    AmountInWords,
    NoAmount,
}

/// An order as it is produced to the topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    pub number: u32,
    pub key: String,
    pub value: Vec<u8>,
    pub cents: u64,
    pub poison: Option<Poison>,
}

const CURRENCIES: [&str; 4] = ["eur", "usd", "gbp", "chf"];
const COUNTRIES: [&str; 8] = ["DE", "FR", "US", "GB", "CH", "AT", "NL", "ES"];
const STATES: [&str; 3] = ["paid", "open", "shipped"];
const NOTES: [&str; 4] = [
    "leave at the door",
    "call before delivery",
    "gift, no invoice inside",
    "second floor",
];

/// How many of the first `records` orders are invalid.
pub fn poison_count(records: u32) -> u32 {
    records / POISON_EVERY + u32::from(records % POISON_EVERY > POISON_AT)
}

/// The order with this number.
pub fn order(number: u32) -> Order {
    let mut random = Random(u64::from(number));
    let cents = 100 + random.below(49_900);
    let user = format!("u-{:05}", random.below(5_000));
    let (sku, quantity) = (random.below(10_000), 1 + random.below(5));
    let mut pick = |from: &'static [&'static str]| {
        let index = random.below(from.len() as u64) as usize;
        from.get(index).copied().unwrap_or_default()
    };
    let (currency, state) = (pick(&CURRENCIES), pick(&STATES));
    let (country, note) = (pick(&COUNTRIES), pick(&NOTES));
    let begin = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(1_767_225_600);
    let created = begin + SignedDuration::from_secs(i64::from(number));
    let poison = (number % POISON_EVERY == POISON_AT).then_some(match number / POISON_EVERY % 5 {
        0 => Poison::CutOff,
        1 => Poison::NotJson,
        2 => Poison::NotUtf8,
        3 => Poison::AmountInWords,
        _ => Poison::NoAmount,
    });
    let id = id(number);
    let amount = match poison {
        Some(Poison::AmountInWords) => "\"amount\":\"twelve\",".to_string(),
        Some(Poison::NoAmount) => String::new(),
        _ => format!("\"amount\":\"{}.{:02}\",", cents / 100, cents % 100),
    };
    let mut value = format!(
        "{{\"order_id\":\"{id}\",\"user_id\":\"{user}\",{amount}\"currency\":\"{currency}\",\"items\":[{{\"sku\":\"sku-{sku:05}\",\"qty\":{quantity}}}],\"status\":\"{state}\",\"country\":\"{country}\",\"note\":\"{note}\",\"created_at\":\"{created}\"}}"
    )
    .into_bytes();
    match poison {
        Some(Poison::CutOff) => value.truncate(60),
        Some(Poison::NotJson) => value = format!("{id};{user};{cents};{currency}").into_bytes(),
        Some(Poison::NotUtf8) => value.extend_from_slice(b" \xff\xfe"),
        Some(Poison::AmountInWords | Poison::NoAmount) | None => {}
    }
    Order {
        number,
        key: user,
        value,
        cents,
        poison,
    }
}

fn id(number: u32) -> String {
    format!("o-{number:07}")
}

/// The number of the order that these bytes belong to, even if they are damaged.
pub fn number_in(value: &[u8]) -> Option<u32> {
    let at = value.windows(2).position(|two| two == b"o-")?;
    let digits = value.get(at + 2..at + 9)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// SplitMix64: small, and the same on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0.wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_deterministic_and_has_a_realistic_size() {
        assert_eq!(order(42), order(42));
        let sizes: Vec<usize> = (0..100)
            .map(order)
            .filter(|it| it.poison.is_none())
            .map(|it| it.value.len())
            .collect();
        assert!(sizes.iter().all(|size| (190..260).contains(size)), "{sizes:?}");
    }

    #[test]
    fn valid_orders_are_json_with_their_amount_and_one_in_a_hundred_is_poison() {
        let mut poison = 0;
        for number in 0..2_000 {
            let order = order(number);
            assert_eq!(number_in(&order.value), Some(number));
            match order.poison {
                None => {
                    let json: serde_json::Value = serde_json::from_slice(&order.value).unwrap();
                    let amount: f64 = json["amount"].as_str().unwrap().parse().unwrap();
                    assert_eq!((amount * 100.0).round() as u64, order.cents);
                }
                Some(_) => poison += 1,
            }
        }
        assert_eq!(poison, poison_count(2_000));
        assert_eq!([poison_count(37), poison_count(38), poison_count(100)], [0, 1, 1]);
    }

    #[test]
    fn the_keys_are_distributed_over_users() {
        let keys: std::collections::BTreeSet<String> = (0..1_000).map(|number| order(number).key).collect();
        assert!(keys.len() > 800, "{}", keys.len());
    }
}
