//! The history of a group in fixed memory: rings of points, fine ones for minutes, coarse ones for days. In:
//! samples with their times. Out: points. Pure; the time is a parameter.
//!
//! A point needs 10 bytes: the lag is exact to seven digits, rates to three. All rings of a group together need
//! 16 KiB, those of a cluster 13 KiB.

use std::collections::VecDeque;

use serde::Serialize;

/// A ring: seconds between two points, and the number of points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolution {
    pub step: i64,
    pub points: usize,
}

/// 10 minutes in steps of 2 s, an hour in steps of 15 s, 6 hours in steps of a minute, 7 days in steps of 15
/// minutes. Local mode publishes every 1.0 to 1.4 s, so a step of 2 s has no gaps. In a cluster, values change
/// every 15 s, so the first ring is missing there.
pub const RESOLUTIONS: [Resolution; 4] = [
    Resolution { step: 2, points: 300 },
    Resolution {
        step: 15,
        points: 240,
    },
    Resolution {
        step: 60,
        points: 360,
    },
    Resolution {
        step: 900,
        points: 672,
    },
];

/// The values of one group at one time; None: unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample {
    pub lag: Option<f64>,
    pub incoming: Option<f64>,
    pub done: Option<f64>,
    pub replicas: Option<u16>,
}

/// Points of equal distance. A value that is not known is null.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[cfg_attr(feature = "api", derive(utoipa::ToSchema))]
pub struct Points {
    /// Seconds between two points.
    pub step: i64,
    /// Times, in Unix seconds.
    pub time: Vec<i64>,
    /// Records not yet committed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag: Option<Vec<Option<f32>>>,
    /// Records that producers add, per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(rename = "in")]
    pub incoming: Option<Vec<Option<f32>>>,
    /// Records that the workers finish, per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub done: Option<Vec<Option<f32>>>,
    /// Number of workers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<Vec<Option<u16>>>,
}

/// Half of an f32: its sign, its exponent and 7 digits of its fraction, which are precise enough for a rate.
#[derive(Clone, Copy, Debug)]
struct Half(u16);

impl Half {
    fn of(value: f32) -> Self {
        if value.is_nan() {
            return Self(0x7fc0);
        }
        // Half of the last digit is added, so that it is rounded. Finite values stay finite in practice: rates
        // are far below 1e38.
        Self((value.to_bits().saturating_add(0x8000) >> 16) as u16)
    }

    fn get(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }
}

/// Unknown is NaN, and for replicas the largest number: a point stays small. Packed, because alignment would
/// add two bytes to each of a thousand points of each group.
#[derive(Clone, Copy, Debug)]
#[repr(C, packed(2))]
struct Point {
    lag: f32,
    incoming: Half,
    done: Half,
    replicas: u16,
}

const NO_POINT: Point = Point {
    lag: f32::NAN,
    incoming: Half(0x7fc0),
    done: Half(0x7fc0),
    replicas: u16::MAX,
};

#[derive(Clone, Debug)]
struct Ring {
    resolution: Resolution,
    /// Grows up to the number of points, so that a young group needs little memory.
    points: VecDeque<Point>,
    /// Number of the last slot: its time divided by the step.
    last: i64,
}

impl Ring {
    fn note(&mut self, time: i64, point: Point) {
        let slot = time.div_euclid(self.resolution.step);
        if self.points.is_empty() {
            self.last = slot;
            self.push(point);
            return;
        }
        if slot < self.last {
            // The clock was set back: the last point stays until the clock reaches it again.
            return;
        }
        let missing = usize::try_from(slot - self.last).unwrap_or(usize::MAX);
        if missing == 0 {
            if let Some(last) = self.points.back_mut() {
                *last = point;
            }
            return;
        }
        // Gaps are unknown, not a line from one value to the next.
        for _ in 1..missing.min(self.resolution.points) {
            self.push(NO_POINT);
        }
        self.push(point);
        self.last = slot;
    }

    fn push(&mut self, point: Point) {
        let most = self.resolution.points;
        if self.points.len() >= most {
            self.points.pop_front();
        } else if self.points.len() == self.points.capacity() {
            // Doubles as usual, but not beyond what the ring needs.
            let more = self.points.len().max(8).min(most - self.points.len());
            self.points.reserve_exact(more);
        }
        self.points.push_back(point);
    }

    fn since(&self, since: i64) -> impl Iterator<Item = (i64, Point)> + '_ {
        let first = self.last - i64::try_from(self.points.len()).unwrap_or(0) + 1;
        let step = self.resolution.step;
        let times = (first..).map(move |slot| slot * step);
        times
            .zip(self.points.iter().copied())
            .filter(move |(time, _)| *time >= since)
    }
}

/// All rings of one group.
#[derive(Clone, Debug)]
pub struct Series(Vec<Ring>);

impl Series {
    /// Empty rings; `fine` ones begin with the first of [`RESOLUTIONS`].
    pub fn of(fine: bool) -> Self {
        let ring = |resolution| Ring {
            resolution,
            points: VecDeque::new(),
            last: 0,
        };
        let skipped = usize::from(!fine);
        Self(RESOLUTIONS.into_iter().skip(skipped).map(ring).collect())
    }

    /// Notes a sample; of several in one step the last one counts.
    pub fn note(&mut self, unix_seconds: i64, sample: Sample) {
        let known = |value: Option<f64>| value.map_or(f32::NAN, |value| value as f32);
        let point = Point {
            lag: known(sample.lag),
            incoming: Half::of(known(sample.incoming)),
            done: Half::of(known(sample.done)),
            replicas: sample.replicas.unwrap_or(u16::MAX),
        };
        self.0.iter_mut().for_each(|ring| ring.note(unix_seconds, point));
    }

    /// All points since a time. `step` is one of [`RESOLUTIONS`]; None selects the finest that reaches back
    /// far enough. If there is no ring with that step, the next coarser one is read.
    pub fn points(&self, since: i64, step: Option<i64>, now: i64) -> Points {
        let reaches = |resolution: &Resolution| match step {
            Some(step) => resolution.step >= step,
            None => since >= now - resolution.step * i64::try_from(resolution.points).unwrap_or(i64::MAX),
        };
        let ring = self.0.iter().find(|ring| reaches(&ring.resolution));
        let Some(ring) = ring.or(self.0.last()) else {
            return Points::default();
        };
        let mut points = Points {
            step: ring.resolution.step,
            ..Points::default()
        };
        let number = |value: f32| (!value.is_nan()).then_some(value);
        for (time, point) in ring.since(since) {
            points.time.push(time);
            points.lag.get_or_insert_default().push(number(point.lag));
            points
                .incoming
                .get_or_insert_default()
                .push(number(point.incoming.get()));
            points.done.get_or_insert_default().push(number(point.done.get()));
            let replicas = (point.replicas != u16::MAX).then_some(point.replicas);
            points.replicas.get_or_insert_default().push(replicas);
        }
        points
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lag(lag: f64) -> Sample {
        Sample {
            lag: Some(lag),
            ..Sample::default()
        }
    }

    #[test]
    fn the_last_sample_of_a_step_counts_and_a_gap_is_unknown() {
        let mut series = Series::of(true);
        for (time, value) in [(100, 0.0), (101, 1.0), (102, 2.0), (108, 3.0)] {
            series.note(time, lag(value));
        }
        let fine = series.points(0, Some(2), 108);
        assert_eq!(fine.time, [100, 102, 104, 106, 108]);
        assert_eq!(fine.lag.unwrap(), [Some(1.0), Some(2.0), None, None, Some(3.0)]);
        assert_eq!(fine.replicas.unwrap()[0], None, "unknown is never 0");
        let coarse = series.points(0, Some(15), 108);
        assert_eq!(
            (coarse.time, coarse.lag.unwrap()),
            (vec![90, 105], vec![Some(2.0), Some(3.0)])
        );
    }

    #[test]
    fn a_ring_keeps_its_last_points_only() {
        let mut series = Series::of(true);
        for time in 0..2000 {
            series.note(time, lag(time as f64));
        }
        let fine = series.points(0, Some(2), 1999);
        assert_eq!((fine.time.len(), fine.time[0]), (300, 1400));
        // A jump beyond the whole ring leaves one point and no memory for the gap.
        series.note(1_000_000_000, lag(1.0));
        assert_eq!(series.points(0, Some(2), 0).time.len(), 300);
        assert_eq!(
            series.points(999_999_998, Some(2), 0).lag.unwrap(),
            [None, Some(1.0)]
        );
    }

    #[test]
    fn without_a_step_the_finest_ring_that_reaches_back_is_read() {
        let (series, now) = (Series::of(true), 1_000_000);
        for (age, step) in [
            (60, 2),
            (3600, 15),
            (21_600, 60),
            (86_400, 900),
            (30 * 86_400, 900),
        ] {
            assert_eq!(series.points(now - age, None, now).step, step, "{age}");
        }
    }

    #[test]
    fn a_step_without_a_ring_is_answered_by_the_next_coarser_one() {
        let series = Series::of(false);
        assert_eq!(series.points(0, Some(2), 100).step, 15);
        assert_eq!(series.points(90, None, 100).step, 15);
    }

    #[test]
    fn a_thousand_groups_of_a_cluster_need_thirteen_mebibytes() {
        let mut series = Series::of(false);
        for time in (0..8 * 86_400).step_by(15) {
            series.note(time, lag(1.0));
        }
        let bytes: usize = series
            .0
            .iter()
            .map(|ring| ring.points.capacity() * size_of::<Point>())
            .sum();
        assert!(bytes <= 13 * 1024, "{bytes}");
    }

    #[test]
    fn rates_keep_three_digits() {
        for value in [0.0, 1.0, 0.033, 123.0, 99_999.0, 1e9] {
            let kept = Half::of(value).get();
            assert!((kept - value).abs() <= value / 256.0, "{value} became {kept}");
        }
        assert!(Half::of(f32::NAN).get().is_nan());
    }

    #[test]
    fn a_clock_that_is_set_back_adds_no_point() {
        let mut series = Series::of(true);
        series.note(100, lag(1.0));
        series.note(50, lag(2.0));
        assert_eq!(series.points(0, Some(2), 100).time, [100]);
    }
}
