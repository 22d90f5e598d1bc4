//! Which split a patient is in. Pure.
//!
//! Duty: shares of the patients, decided for each patient alone, so that others who come or go move nobody. Must not: know
//! samples or count patients.

use std::str::FromStr;

use sha2::{Digest, Sha256};

use crate::shard;

/// Named shares that add up to 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Shares(Vec<(String, f64)>);

/// Beyond any use.
const MOST: usize = 20;

impl Shares {
    /// The splits' names, in the order given.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// The split of a patient: a hash of seed and id is a point between 0 and 1, and the shares divide that line.
    pub fn of(&self, patient: &str, seed: u64) -> &str {
        let point = point(patient, seed);
        let mut end = 0.0;
        for (name, share) in &self.0 {
            end += share;
            if point < end {
                return name;
            }
        }
        // Only by rounding of the sum.
        self.0.iter().rev().find(|(_, share)| *share > 0.0).map_or("", |(name, _)| name)
    }
}

fn point(patient: &str, seed: u64) -> f64 {
    let hash = Sha256::new().chain_update(b"split\0").chain_update(seed.to_le_bytes()).chain_update(patient).finalize();
    let word = hash.iter().take(8).fold(0u64, |word, byte| word << 8 | u64::from(*byte));
    (word >> 11) as f64 / (1u64 << 53) as f64
}

impl FromStr for Shares {
    type Err = String;

    fn from_str(text: &str) -> Result<Shares, String> {
        let shares: Vec<(String, f64)> = text.split(',').map(|part| share(text, part)).collect::<Result<_, _>>()?;
        let sum: f64 = shares.iter().map(|(_, share)| share).sum();
        let mut names: Vec<&String> = shares.iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        if names.windows(2).any(|pair| pair[0] == pair[1]) {
            Err(format!("`{text}` names a split twice"))
        } else if shares.len() > MOST {
            Err(format!("`{text}` has {} splits; at most {MOST} are allowed", shares.len()))
        } else if (sum - 1.0).abs() > 1e-6 {
            Err(format!("the shares in `{text}` add up to {sum}; they must add up to 1"))
        } else {
            Ok(Shares(shares))
        }
    }
}

fn share(text: &str, part: &str) -> Result<(String, f64), String> {
    let wrong = || format!("`{text}` are no splits: expected NAME=SHARE,… as in train=0.8,val=0.1,test=0.1");
    let (name, share) = part.trim().split_once('=').ok_or_else(wrong)?;
    let share = share.parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share)).ok_or_else(wrong)?;
    shard::check_key(name).map_err(|_| wrong())?;
    Ok((name.to_owned(), share))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn shares_are_kept_and_nobody_moves() {
        let shares: Shares = "train=0.8,val=0.1,test=0.1".parse().unwrap();
        let assign = |count: usize| -> BTreeMap<usize, String> {
            (0..count).map(|i| (i, shares.of(&format!("patient {i}"), 3).to_owned())).collect()
        };
        let (few, many) = (assign(500), assign(5000));
        assert!(few.iter().all(|(id, split)| many[id] == *split));
        let train = many.values().filter(|split| *split == "train").count();
        assert!((3900..4100).contains(&train), "{train}");
        assert!((0..5000).any(|i| shares.of(&format!("patient {i}"), 4) != many[&i]));
    }

    #[test]
    fn the_hash_is_frozen() {
        // python: int.from_bytes(sha256(b"split\0" + (7).to_bytes(8, "little") + b"P1").digest()[:8], "big") >> 11, / 2**53
        assert_eq!(point("P1", 7), POINT);
    }

    const POINT: f64 = 0.06710694585326737;

    #[test]
    fn a_share_of_nothing_gets_nobody() {
        let shares: Shares = "a=0,b=1,c=0".parse().unwrap();
        assert!((0..200).all(|i| shares.of(&i.to_string(), 0) == "b"));
    }

    #[test]
    fn only_shares_are_read() {
        for bad in ["", "train", "train=0.5", "train=1.5,val=-0.5", "a=0.5,a=0.5", "a/b=1", "a=nan,b=1", "=1"] {
            assert!(bad.parse::<Shares>().is_err(), "{bad}");
        }
    }
}
