//! The history of a group in fixed memory: rings of points, fine ones for minutes, coarse ones for days. In:
//! samples with their times. Out: points. Pure; the time is a parameter.
//!
//! A group needs 16 bytes per point, 72 KiB when all rings are full.

use serde::Serialize;

/// A ring: seconds between two points, and the number of points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolution {
    pub step: i64,
    pub points: usize,
}

/// Local mode publishes every 1.0 to 1.4 s, so a step of 2 s has no gaps.
///
/// 10 minutes in steps of 2 s, 6 hours in steps of 15 s, 7 days in steps of 5 min.
pub const RESOLUTIONS: [Resolution; 3] = [
    Resolution { step: 2, points: 300 },
    Resolution {
        step: 15,
        points: 1440,
    },
    Resolution {
        step: 300,
        points: 2016,
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

/// Unknown is NaN, and for replicas the largest number: a point stays small.
#[derive(Clone, Copy, Debug)]
struct Point {
    lag: f32,
    incoming: f32,
    done: f32,
    replicas: u16,
}

const NO_POINT: Point = Point {
    lag: f32::NAN,
    incoming: f32::NAN,
    done: f32::NAN,
    replicas: u16::MAX,
};

#[derive(Clone, Debug)]
struct Ring {
    resolution: Resolution,
    /// Grows up to the number of points, so that a young group needs little memory.
    points: std::collections::VecDeque<Point>,
    /// Number of the last slot: its time divided by the step.
    last: i64,
}

impl Ring {
    fn note(&mut self, time: i64, point: Point) {
        let slot = time.div_euclid(self.resolution.step);
        if self.points.is_empty() {
            self.last = slot;
            self.points.push_back(point);
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
            self.points.push_back(NO_POINT);
        }
        self.points.push_back(point);
        let surplus = self.points.len().saturating_sub(self.resolution.points);
        self.points.drain(..surplus);
        self.last = slot;
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

impl Default for Series {
    fn default() -> Self {
        let ring = |resolution| Ring {
            resolution,
            points: std::collections::VecDeque::new(),
            last: 0,
        };
        Self(RESOLUTIONS.into_iter().map(ring).collect())
    }
}

impl Series {
    /// Notes a sample; of several in one step the last one counts.
    pub fn note(&mut self, unix_seconds: i64, sample: Sample) {
        let known = |value: Option<f64>| value.map_or(f32::NAN, |value| value as f32);
        let point = Point {
            lag: known(sample.lag),
            incoming: known(sample.incoming),
            done: known(sample.done),
            replicas: sample.replicas.unwrap_or(u16::MAX),
        };
        self.0.iter_mut().for_each(|ring| ring.note(unix_seconds, point));
    }

    /// All points since a time. `step` is one of [`RESOLUTIONS`]; None selects the finest that reaches back
    /// far enough.
    pub fn points(&self, since: i64, step: Option<i64>, now: i64) -> Points {
        let wanted = RESOLUTIONS
            .iter()
            .find(|resolution| match step {
                Some(step) => resolution.step == step,
                None => since >= now - resolution.step * i64::try_from(resolution.points).unwrap_or(i64::MAX),
            })
            .unwrap_or(&RESOLUTIONS[RESOLUTIONS.len() - 1]);
        let mut points = Points {
            step: wanted.step,
            ..Points::default()
        };
        let Some(ring) = self.0.iter().find(|ring| ring.resolution == *wanted) else {
            return points;
        };
        let number = |value: f32| (!value.is_nan()).then_some(value);
        for (time, point) in ring.since(since) {
            points.time.push(time);
            points.lag.get_or_insert_default().push(number(point.lag));
            points
                .incoming
                .get_or_insert_default()
                .push(number(point.incoming));
            points.done.get_or_insert_default().push(number(point.done));
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
        let mut series = Series::default();
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
        let mut series = Series::default();
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
        let (series, now) = (Series::default(), 1_000_000);
        for (age, step) in [(60, 2), (3600, 15), (86_400, 300), (30 * 86_400, 300)] {
            assert_eq!(series.points(now - age, None, now).step, step, "{age}");
        }
    }

    #[test]
    fn a_clock_that_is_set_back_adds_no_point() {
        let mut series = Series::default();
        series.note(100, lag(1.0));
        series.note(50, lag(2.0));
        assert_eq!(series.points(0, Some(2), 100).time, [100]);
    }
}
