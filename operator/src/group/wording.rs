//! Numbers in messages. In: a number and a noun. Out: both, in singular or plural. Pure.

use std::fmt::Display;

/// `1 worker`, `2 workers`.
pub fn count<N: Display + PartialEq + From<u8>>(number: N, noun: &str) -> String {
    let plural = if number == N::from(1) { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_singular_and_zero_is_plural() {
        let counts = [0, 1, 2].map(|number| count(number, "worker"));
        assert_eq!(counts, ["0 workers", "1 worker", "2 workers"]);
    }
}
