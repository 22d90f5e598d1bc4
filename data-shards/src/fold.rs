//! Cross-validation by patient. Pure.
//!
//! Duty: which fold each patient is in; balanced over folds in each class. Must not: depend on the order of the samples.

use std::collections::BTreeMap;

use crate::rng;

/// Fold `number` (from 1) of `of`: its patients are held out for evaluation, the others are trained on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fold {
    /// From 1 to `of`.
    pub number: usize,
    /// Folds in all, at least 2.
    pub of: usize,
}

/// Beyond any use.
const MOST: usize = 1000;

impl std::str::FromStr for Fold {
    type Err = String;

    fn from_str(text: &str) -> Result<Fold, String> {
        let wrong = || format!("`{text}` is no fold: expected K/N with 1 <= K <= N and N from 2 to {MOST}, as in 1/5");
        let (number, of) = text.split_once('/').ok_or_else(wrong)?;
        let fold = Fold { number: number.parse().map_err(|_| wrong())?, of: of.parse().map_err(|_| wrong())? };
        let sound = (2..=MOST).contains(&fold.of) && (1..=fold.of).contains(&fold.number);
        if sound { Ok(fold) } else { Err(wrong()) }
    }
}

/// The fold (from 1) of each patient, given by id with whether it is positive: patients of a class are put into an order
/// that depends on the seed and dealt out, the two classes from opposite ends, so that folds differ by at most one
/// patient of each class.
pub fn assign(patients: &BTreeMap<String, bool>, of: usize, seed: u64) -> BTreeMap<String, usize> {
    let mut folds = BTreeMap::new();
    for class in [false, true] {
        let mut members: Vec<&String> = patients.iter().filter(|(_, c)| **c == class).map(|(id, _)| id).collect();
        members.sort_by_cached_key(|id| (draw(seed, id), (*id).clone()));
        for (place, id) in members.into_iter().enumerate() {
            let at = place % of;
            folds.insert(id.clone(), 1 + if class { of - 1 - at } else { at });
        }
    }
    folds
}

/// A number for a patient that no other patient changes.
fn draw(seed: u64, id: &str) -> u64 {
    use rand_chacha::rand_core::Rng;
    use sha2::{Digest, Sha256};
    let hash = Sha256::digest(id.as_bytes());
    let word = |from: usize| hash[from..from + 8].iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
    rng::stream(b"fold\0\0\0\0", seed, word(0), word(8)).next_u64()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patients(count: usize) -> BTreeMap<String, bool> {
        (0..count).map(|i| (format!("p{i}"), i % 3 == 0)).collect()
    }

    #[test]
    fn folds_are_balanced_in_each_class() {
        let all = patients(31);
        let folds = assign(&all, 5, 7);
        for class in [false, true] {
            let sizes: Vec<usize> =
                (1..=5).map(|fold| all.iter().filter(|(id, c)| **c == class && folds[*id] == fold).count()).collect();
            assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1, "{sizes:?}");
        }
        assert_ne!(folds, assign(&all, 5, 8));
    }

    #[test]
    fn only_sensible_folds_are_read() {
        assert_eq!("2/5".parse(), Ok(Fold { number: 2, of: 5 }));
        for bad in ["", "1", "0/5", "6/5", "1/1", "a/b", "1/5/2", "-1/5"] {
            assert!(bad.parse::<Fold>().is_err(), "{bad}");
        }
    }
}
