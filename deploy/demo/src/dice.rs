//! Chance that repeats: the same seed gives the same numbers, on every machine. Not for secrets.

/// SplitMix64, <https://prng.di.unimi.it/splitmix64.c>.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// Dice of a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Dice of any bytes, by FNV-1a.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        Self(bytes.iter().fold(0xcbf2_9ce4_8422_2325, step))
    }

    /// 64 random bits.
    pub const fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number below `end`, which is not 0; the tiny bias does not matter here.
    pub const fn below(&mut self, end: u64) -> u64 {
        self.roll() % end
    }

    /// One of the choices, as often as its weight says; the weights do not add up to 0.
    pub fn choose<'a, T>(&mut self, choices: &'a [(T, u32)]) -> &'a T {
        let total: u64 = choices.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let mut rest = self.below(total);
        for (choice, weight) in choices {
            match rest.checked_sub(u64::from(*weight)) {
                Some(less) => rest = less,
                None => return choice,
            }
        }
        unreachable!("the rest is below the sum of the weights")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rolls_the_published_numbers() {
        let mut dice = Dice::new(1_234_567);
        // First values of the reference implementation for this seed.
        assert_eq!([dice.roll(), dice.roll()], [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]);
    }

    #[test]
    fn chooses_by_weight() {
        let mut dice = Dice::new(1);
        let choices = [("never", 0), ("rarely", 1), ("mostly", 9)];
        let chosen: Vec<_> = (0..1000).map(|_| *dice.choose(&choices)).collect();
        let count = |name| chosen.iter().filter(|&&choice| choice == name).count();
        assert_eq!(count("never"), 0);
        assert!((50..200).contains(&count("rarely")), "{}", count("rarely"));
    }
}
