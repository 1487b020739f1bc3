//! When a turn that waits will start: told to its client, and to who is refused as the time to come back.
//!
//! A turn that has run for a while is thought to need what is left of the mean; one that has run long, as long again: those that
//! outlast the mean would otherwise be due at once, over and over. Knows nothing of who waits for what.

/// In how many milliseconds a turn starts behind `ahead` others, each in the place of one that ends; 0 where none runs that could end.
/// `ages_ms` is how long those have run by now that hold the places, of which there are `places` (more may run, where there were
/// more); `turn_ms` is how long turns have taken lately.
pub fn wait_ms(ages_ms: impl Iterator<Item = u64>, places: usize, turn_ms: u64, ahead: usize) -> u64 {
    let mut left_ms: Vec<u64> = ages_ms.map(|age_ms| turn_ms.saturating_sub(age_ms).max(age_ms).max(1)).collect();
    left_ms.sort_unstable();
    // Nobody takes the places of those that are too many.
    let left_ms = left_ms.get(left_ms.len().saturating_sub(places.max(1))..).unwrap_or_default();
    let Some(rounds) = ahead.checked_div(left_ms.len()) else { return 0 };
    let first_ms = left_ms.get(ahead % left_ms.len()).copied().unwrap_or(turn_ms);
    first_ms.saturating_add(turn_ms.max(1).saturating_mul(rounds as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(ages_ms: &[u64], ahead: usize) -> u64 {
        wait_ms(ages_ms.iter().copied(), ages_ms.len(), 1_000, ahead)
    }

    #[test]
    fn the_turn_that_will_end_first_makes_room_first() {
        let ages_ms = [0, 400, 100];
        let waits = [0, 1, 2, 3, 4, 7].map(|ahead| told(&ages_ms, ahead));
        assert_eq!(waits, [600, 900, 1_000, 1_600, 1_900, 2_900]);
    }

    #[test]
    fn a_turn_that_has_run_long_may_run_as_long_again() {
        let waits = [499, 500, 501, 1_000, 30_000].map(|age_ms| told(&[age_ms], 0));
        assert_eq!(waits, [501, 500, 501, 1_000, 30_000]);
        assert_eq!(told(&[30_000, 200], 0), 800, "beside one that is as others");
    }

    #[test]
    fn those_that_are_too_many_leave_first() {
        assert_eq!(wait_ms([0, 100, 200, 300].into_iter(), 2, 1_000, 0), 900);
        assert_eq!(wait_ms([0, 100, 200, 300].into_iter(), 2, 1_000, 2), 1_900);
    }

    #[test]
    fn nobody_is_told_no_time_while_somebody_runs() {
        assert_eq!(wait_ms([0].into_iter(), 1, 0, 0), 1);
        assert_eq!(wait_ms([0].into_iter(), 0, 0, 3), 4);
        assert_eq!(told(&[], 9), 0);
    }
}
