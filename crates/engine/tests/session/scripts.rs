//! Every short script of client, upstream and store events, and many long ones: the invariants hold in each.

mod migrate;

use crate::peer::{Peers, STEPS, Step};

fn run(script: &[Step]) {
    let mut peers = Peers::new();
    for &step in script {
        peers.apply(step);
    }
    peers.finish_and_check();
}

/// Runs a script and names it if it breaks something.
fn check(script: &[Step]) {
    if let Err(panic) = std::panic::catch_unwind(|| run(script)) {
        eprintln!("the script that broke: {script:?}");
        std::panic::resume_unwind(panic);
    }
}

/// Every sequence of `len` steps after `begin`.
fn check_all(begin: &[Step], len: usize) {
    if len == 0 {
        check(begin);
        return;
    }
    for &step in &STEPS {
        let mut longer = begin.to_vec();
        longer.push(step);
        check_all(&longer, len - 1);
    }
}

#[test]
fn every_short_script_keeps_the_invariants() {
    check_all(&[], 3);
}

/// After a turn has begun, all that can follow; longer than from a fresh start, since little can happen there without it.
#[test]
fn every_short_script_of_a_running_turn_keeps_the_invariants() {
    for begin in [Step::Create, Step::CreateStored] {
        for middle in [Step::Text, Step::Call] {
            check_all(&[begin, Step::Opened, middle], 3);
        }
    }
    // The summary is in the making.
    check_all(&[Step::CreateCompacting, Step::Counted, Step::Opened, Step::Text], 2);
    check_all(&[Step::CreateTrigger, Step::Opened, Step::Text], 2);
}

/// Fewer where they are slow.
pub const SEEDS: u64 = if cfg!(debug_assertions) { 5_000 } else { 100_000 };

/// A long one.
pub fn seeded(seed: u64) -> Vec<Step> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let steps = (0..60).map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let weighted = [
            Step::Create,
            Step::CreateInA,
            Step::Opened,
            Step::Text,
            Step::Finish,
            Step::Committed,
            Step::Continue,
            Step::Steer,
            Step::CreateCompacting,
            Step::Counted,
        ];
        // One in five is of the usual ones.
        let pick = usize::try_from(state % (STEPS.len() as u64 * 5 / 4)).unwrap();
        STEPS.get(pick).copied().unwrap_or_else(|| weighted[pick % weighted.len()])
    });
    // A script that ends early shows little.
    steps
        .filter(|step| !matches!(step, Step::ClientGone | Step::Drain | Step::Revoke) || seed.is_multiple_of(7))
        .collect()
}

#[test]
fn seeded_long_scripts_keep_the_invariants() {
    for seed in 0..SEEDS {
        let script = seeded(seed);
        if let Err(panic) = std::panic::catch_unwind(|| run(&script)) {
            eprintln!("seed {seed} broke it: {script:?}");
            std::panic::resume_unwind(panic);
        }
    }
}
