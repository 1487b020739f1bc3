//! How evenly something was shared out. Knows nothing of what.

/// Jain's index: 1 where all have the same, 1/n where one has all.
#[must_use]
pub fn jain(shares: &[f64]) -> f64 {
    let (sum, squares) = shares.iter().fold((0.0, 0.0), |(sum, squares), share| (sum + share, squares + share * share));
    if squares == 0.0 { 1.0 } else { sum * sum / (shares.len() as f64 * squares) }
}

/// What each would get of `all` if it were shared out evenly and nobody got more than wanted (max-min).
#[must_use]
pub fn even_shares(wanted: &[f64], all: f64) -> Vec<f64> {
    let mut order: Vec<f64> = wanted.to_vec();
    order.sort_by(f64::total_cmp);
    let (mut left, mut level) = (all, 0.0);
    for (done, want) in order.iter().enumerate() {
        level = left / (order.len() - done) as f64;
        if *want >= level {
            break;
        }
        left -= want;
        level = f64::INFINITY;
    }
    wanted.iter().map(|want| want.min(level)).collect()
}

/// Jain's index of what each got against its even share; who wanted nothing does not count.
#[must_use]
pub fn against_even_shares(wanted_and_got: &[(f64, f64)]) -> f64 {
    let asked: Vec<_> = wanted_and_got.iter().filter(|(wanted, _)| *wanted > 0.0).collect();
    let wanted: Vec<f64> = asked.iter().map(|(wanted, _)| *wanted).collect();
    let even = even_shares(&wanted, asked.iter().map(|(_, got)| got).sum());
    let parts: Vec<f64> =
        asked.iter().zip(even).filter(|(_, even)| *even > 0.0).map(|((_, got), even)| got / even).collect();
    jain(&parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_gets_more_than_wanted_and_the_rest_is_shared() {
        assert_eq!(even_shares(&[1.0, 10.0, 10.0], 11.0), [1.0, 5.0, 5.0]);
        assert_eq!(even_shares(&[10.0, 2.0, 3.0], 4.5), [1.5, 1.5, 1.5]);
        assert_eq!(even_shares(&[1.0, 2.0], 9.0), [1.0, 2.0]);
    }

    #[test]
    fn one_that_has_all_is_as_unfair_as_can_be() {
        assert!((jain(&[1.0, 1.0, 1.0, 1.0]) - 1.0).abs() < 1e-9);
        assert!((jain(&[4.0, 0.0, 0.0, 0.0]) - 0.25).abs() < 1e-9);
        assert!((against_even_shares(&[(10.0, 5.0), (1.0, 1.0), (9.0, 5.0), (0.0, 0.0)]) - 1.0).abs() < 1e-9);
        assert!(against_even_shares(&[(10.0, 9.0), (10.0, 1.0)]) < 0.7);
    }
}
