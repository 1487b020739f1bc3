//! The rules of admission: all short scripts, and long ones from seeds, in time that is passed in.

mod hedge;
mod limit;
mod load;
mod prefill;
mod queue;
mod swap;
mod whole;
mod window;

use crate::session::Owner;
use crate::time::Now;

/// Chance that repeats (SplitMix64).
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 up to `below`.
    pub fn below(&mut self, below: u64) -> u64 {
        self.next() % below
    }
}

pub fn at_ms(ms: u64) -> Now {
    Now { mono_ns: ms * 1_000_000, unix_ms: 1_700_000_000_000 + ms }
}

pub fn owner(number: u8) -> Owner {
    Owner([number; 32])
}

/// Every script of `length` of these steps.
pub fn scripts<T: Copy>(steps: &[T], length: u32, mut run: impl FnMut(&[T])) {
    let count = steps.len().pow(length);
    for number in 0..count {
        let mut rest = number;
        let script: Vec<T> = (0..length)
            .map(|_| {
                let step = steps[rest % steps.len()];
                rest /= steps.len();
                step
            })
            .collect();
        run(&script);
    }
}
