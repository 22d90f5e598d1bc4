//! Cross-validation by patient. Pure.
//!
//! Duty: which fold a patient is in. Must not: depend on other patients, a seed or the order of the samples.

use sha2::{Digest, Sha256};

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

/// The fold (from 1) of a patient. It follows from the id alone: the same in every list, run and stage, so that nobody is
/// trained on in one and evaluated on in another. Folds are as large as chance makes them.
pub fn of_patient(id: &str, of: usize) -> usize {
    let hash = Sha256::digest([b"fold ", id.as_bytes()].concat());
    let number = hash.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte));
    1 + (number % of.max(1) as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folds_are_alike_in_size_and_never_change() {
        let mut sizes = [0; 5];
        (0..1000).for_each(|i| sizes[of_patient(&format!("p{i}"), 5) - 1] += 1);
        assert!(sizes.iter().all(|size| (160..240).contains(size)), "{sizes:?}");
        let golden: Vec<usize> = (0..8).map(|i| of_patient(&format!("p{i}"), 5)).collect();
        assert_eq!(golden, [1, 3, 2, 2, 2, 5, 3, 1]);
    }

    #[test]
    fn only_sensible_folds_are_read() {
        assert_eq!("2/5".parse(), Ok(Fold { number: 2, of: 5 }));
        for bad in ["", "1", "0/5", "6/5", "1/1", "a/b", "1/5/2", "-1/5"] {
            assert!(bad.parse::<Fold>().is_err(), "{bad}");
        }
    }
}
