//! Several measurements of one value: median and spread. Pure.

/// Median, lowest and highest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Range {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Range {
    /// None without values.
    pub fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            1 => values[middle],
            _ => f64::midpoint(values[middle - 1], values[middle]),
        };
        Some(Self { median, min, max })
    }

    /// "median (lowest-highest)".
    pub fn text(self, number: fn(f64) -> String) -> String {
        format!(
            "{} ({}-{})",
            number(self.median),
            number(self.min),
            number(self.max)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        let range = Range::of([4.0, 1.0, 3.0, 2.0].into_iter()).unwrap();
        assert_eq!(
            range,
            Range {
                median: 2.5,
                min: 1.0,
                max: 4.0
            }
        );
        assert_eq!(range.text(|value| format!("{value:.1}")), "2.5 (1.0-4.0)");
        assert_eq!(Range::of(std::iter::empty()), None);
    }
}
