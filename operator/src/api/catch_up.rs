//! When a lag will be 0. Pure.

use super::unknown::Unknown;

/// Seconds: the lag divided by how much faster records are finished than added. If it is not known, `unknown`
/// gets the reason.
pub fn catch_up(
    lag: Option<i64>,
    incoming: Option<f64>,
    done: Option<f64>,
    unknown: &mut Unknown,
) -> Option<f64> {
    let why = match (lag, incoming, done) {
        (Some(0), ..) => return Some(0.0),
        (Some(lag), Some(incoming), Some(done)) if done > incoming => {
            return Some(lag as f64 / (done - incoming));
        }
        (Some(_), Some(_), Some(_)) => "the lag does not shrink",
        _ => "lag or rates are not known",
    };
    unknown.insert("catchUpSeconds", why);
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_to_catch_up_is_unknown_unless_the_lag_shrinks() {
        let mut unknown = Unknown::new();
        assert_eq!(
            catch_up(Some(100), Some(10.0), Some(20.0), &mut unknown),
            Some(10.0)
        );
        assert_eq!(catch_up(Some(0), None, None, &mut unknown), Some(0.0));
        assert!(unknown.is_empty());
        assert_eq!(catch_up(Some(100), Some(20.0), Some(10.0), &mut unknown), None);
        assert_eq!(unknown.get("catchUpSeconds"), Some("the lag does not shrink"));
        assert_eq!(catch_up(None, Some(0.0), Some(10.0), &mut unknown), None);
    }
}
