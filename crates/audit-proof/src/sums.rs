//! Sums over canonical records, by which two stores are compared without their rows: [`Sums`].
//!
//! Each record becomes a number of 256 bits, the HMAC-SHA-256 of its [meaning](Canonical::meaning) under a key that
//! nobody who writes to a store can know. The numbers of a bucket are added. So the order in which records come does
//! not matter, a record can be taken out again, and equal sums mean equal records. It is a sum and not an exclusive or,
//! in which a record that is there twice is the same as one that is not there. A record is unique by its position,
//! which is part of it; a snapshot by table, baseline and key. Snapshots of a table without a key can be equal, and
//! then count as often as they are there.

use std::collections::{BTreeMap, BTreeSet};

use audit_core::stored::Record;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::Canonical;
use crate::canonical::committed_at;

/// The records that are counted together, of one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bucket {
    /// The rows of a baseline, which each sink has at positions of its own.
    Baseline(Option<u32>),
    /// What was committed in an hour, counted from 1970-01-01 00:00 UTC; the hour's end is not part of it.
    Hour(i64),
}

const HOUR_MICROS: i64 = 3_600_000_000;

impl Bucket {
    pub fn of(record: &Record) -> Bucket {
        match record.event.as_str() {
            "snapshot" => Bucket::Baseline(record.baseline),
            _ => Bucket::Hour(committed_at(record).0.div_euclid(HOUR_MICROS)),
        }
    }
}

/// A sum of numbers of 256 bits, the lowest 64 first, and how many they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    pub count: i64,
    limbs: [u64; 4],
}

impl Sum {
    fn add(&mut self, other: Sum) {
        self.count += other.count;
        let mut carry = false;
        for (limb, other) in self.limbs.iter_mut().zip(other.limbs) {
            let (sum, over) = limb.overflowing_add(other);
            let (sum, again) = sum.overflowing_add(u64::from(carry));
            (*limb, carry) = (sum, over || again);
        }
    }

    fn negated(self) -> Sum {
        let mut negated = Sum { count: -self.count, limbs: self.limbs.map(|limb| !limb) };
        negated.add(Sum { count: 0, limbs: [1, 0, 0, 0] });
        negated
    }
}

/// The sums of each table's buckets, under a key.
#[derive(Clone)]
pub struct Sums {
    key: [u8; 32],
    sums: BTreeMap<(String, Bucket), Sum>,
}

impl Sums {
    /// The key must be drawn anew, at random, for each comparison.
    pub fn new(key: [u8; 32]) -> Sums {
        Sums { key, sums: BTreeMap::new() }
    }

    /// Adds the record that `canonical` was made of.
    pub fn add(&mut self, record: &Record, canonical: &Canonical) {
        let element = self.element(canonical);
        self.sum(record).add(element);
    }

    /// Takes it out again.
    pub fn subtract(&mut self, record: &Record, canonical: &Canonical) {
        let element = self.element(canonical).negated();
        self.sum(record).add(element);
    }

    fn sum(&mut self, record: &Record) -> &mut Sum {
        self.sums.entry((record.table_name.clone(), Bucket::of(record))).or_default()
    }

    fn element(&self, canonical: &Canonical) -> Sum {
        // A key of any length is taken.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.key) else { return Sum::default() };
        mac.update(&canonical.meaning());
        let digest: [u8; 32] = mac.finalize().into_bytes().into();
        let (limbs, _) = digest.as_chunks::<8>();
        let mut sum = Sum { count: 1, limbs: [0; 4] };
        for (limb, bytes) in sum.limbs.iter_mut().zip(limbs) {
            *limb = u64::from_le_bytes(*bytes);
        }
        sum
    }

    /// The sum of a bucket.
    pub fn get(&self, table: &str, bucket: Bucket) -> Sum {
        self.sums.get(&(table.to_owned(), bucket)).copied().unwrap_or_default()
    }

    /// Number of all records.
    pub fn count(&self) -> i64 {
        self.sums.values().map(|sum| sum.count).sum()
    }

    /// The buckets in which the two differ. Both must have the same key.
    pub fn differences(&self, other: &Sums) -> BTreeSet<(String, Bucket)> {
        let differs = |(table, bucket): &&(String, Bucket)| self.get(table, *bucket) != other.get(table, *bucket);
        self.sums.keys().chain(other.sums.keys()).filter(differs).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_added_can_be_taken_out_again(limbs: [u64; 4], others: [u64; 4]) {
            let (sum, other) = (Sum { count: 3, limbs }, Sum { count: 1, limbs: others });
            let mut one = sum;
            one.add(other);
            let mut two = other;
            two.add(sum);
            prop_assert_eq!(one, two);
            one.add(other.negated());
            prop_assert_eq!(one, sum);
        }
    }

    #[test]
    fn a_carry_goes_through_all_limbs() {
        let mut sum = Sum { count: 1, limbs: [u64::MAX, u64::MAX, u64::MAX, 7] };
        sum.add(Sum { count: 1, limbs: [1, 0, 0, 0] });
        assert_eq!(sum, Sum { count: 2, limbs: [0, 0, 0, 8] });
    }
}
