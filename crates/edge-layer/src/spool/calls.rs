//! A map of running calls. Its keys are our own counters, so nobody chooses them, and the hash is one multiplication.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

use super::record::CallId;

/// What is known of each call that runs.
pub(crate) type Calls<T> = HashMap<CallId, T, BuildHasherDefault<CounterHasher>>;

/// For counters only.
#[derive(Debug, Default)]
pub(crate) struct CounterHasher(u64);

impl Hasher for CounterHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64((*byte).into());
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(number.into());
    }

    fn write_u64(&mut self, number: u64) {
        // Fibonacci hashing; the table takes its place from the low bits and its tags from the high ones.
        let product = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = product ^ (product >> 32);
    }
}
