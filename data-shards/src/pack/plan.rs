//! Which unit goes into which shard of which split.
//!
//! Duty: all of it before anything is written, by the source, the seed and the options alone. Must not: write, or look at the
//! number of threads.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::time::UNIX_EPOCH;

use sha2::{Digest, Sha256};

use super::ids::Ids;
use super::report::{LeftOut, Why};
use super::sources::{Found, Unit};
use super::{Options, PackError};
use crate::shard;

/// About how many samples a shard has.
const SAMPLES: usize = 512;
/// About how many bytes a shard has.
const BYTES: u64 = 256 << 20;
/// Counts as a change of what is written.
const VERSION: u32 = 1;

/// A unit with its key.
pub(crate) struct Planned {
    pub(crate) unit: Unit,
    pub(crate) key: String,
}

pub(crate) struct ShardPlan {
    pub(crate) name: String,
    pub(crate) units: Vec<Planned>,
}

pub(crate) struct SplitPlan {
    /// None where there are no splits.
    pub(crate) split: Option<String>,
    pub(crate) shards: Vec<ShardPlan>,
}

pub(crate) struct Plan {
    pub(crate) splits: Vec<SplitPlan>,
    pub(crate) left_out: Vec<LeftOut>,
    pub(crate) notes: Vec<String>,
    /// SHA-256 over the units and the state of their files.
    pub(crate) source: String,
    /// SHA-256 over whatever else decides over bytes.
    pub(crate) options: String,
}

impl Plan {
    pub(crate) fn make(mut found: Found, source: &Path, ids: &Ids, options: &Options) -> Result<Plan, PackError> {
        let names = assign(&mut found, source, options)?;
        let fingerprints = (fingerprint(&found.units), options_text(options, ids));
        let mut by_split: BTreeMap<Option<String>, Vec<Unit>> = BTreeMap::new();
        for unit in found.units {
            by_split.entry(unit.split.clone()).or_default().push(unit);
        }
        let (mut left_out, mut notes) = (found.left_out, found.notes);
        let mut splits = Vec::new();
        for name in names {
            match by_split.remove(&name) {
                Some(units) => {
                    let units = keyed(units, ids, &mut left_out);
                    splits.push(SplitPlan { shards: shards(units, name.as_deref(), options.seed), split: name });
                }
                None => {
                    notes.push(format!("split {}: nobody is in it, so that it is not made", name.unwrap_or_default()))
                }
            }
        }
        left_out.sort();
        Ok(Plan { splits, left_out, notes, source: fingerprints.0, options: fingerprints.1 })
    }

    /// Both fingerprints in one.
    pub(crate) fn fingerprint(&self) -> String {
        crate::hex(&Sha256::new().chain_update(&self.source).chain_update(&self.options).finalize())
    }

    pub(crate) fn units(&self) -> impl Iterator<Item = (Option<&str>, &Planned)> {
        self.splits.iter().flat_map(|split| {
            split.shards.iter().flat_map(|shard| &shard.units).map(|planned| (split.split.as_deref(), planned))
        })
    }

    /// Samples, if nothing is left out.
    pub(crate) fn samples(&self) -> usize {
        self.units().map(|(_, planned)| planned.unit.slices).sum()
    }
}

/// Gives each unit its split; returns the splits in their order.
fn assign(found: &mut Found, source: &Path, options: &Options) -> Result<Vec<Option<String>>, PackError> {
    let given = !found.splits.is_empty();
    let Some(shares) = &options.split else {
        return Ok(if given { found.splits.iter().cloned().map(Some).collect() } else { vec![None] });
    };
    if given {
        return Err(PackError::Given { from: source.to_owned(), splits: found.splits.join(", ") });
    }
    let nobody: Vec<&Unit> = found.units.iter().filter(|unit| unit.patient.is_none()).collect();
    if let Some(first) = nobody.first() {
        let (count, total, example) = (nobody.len(), found.units.len(), first.shown());
        return Err(PackError::NoPatient { from: source.to_owned(), count, total, example });
    }
    for unit in &mut found.units {
        unit.split = unit.patient.as_deref().map(|patient| shares.of(patient, options.seed).to_owned());
    }
    Ok(shares.names().map(|name| Some(name.to_owned())).collect())
}

/// Different files of one key can only be the same name with different extensions, where names are kept.
fn keyed(units: Vec<Unit>, ids: &Ids, left_out: &mut Vec<LeftOut>) -> Vec<Planned> {
    let mut keys = BTreeSet::new();
    let mut planned = Vec::new();
    for unit in units {
        let key = ids.key(&unit.name);
        if keys.insert(key.clone()) {
            planned.push(Planned { unit, key });
        } else {
            let reason = format!("another input has its name without the extension, `{key}`");
            left_out.push(LeftOut::new(unit.shown(), Why::Duplicate, reason));
        }
    }
    planned
}

/// Units in an order that depends on the seed, each whole, until a shard is full.
fn shards(mut units: Vec<Planned>, split: Option<&str>, seed: u64) -> Vec<ShardPlan> {
    units.sort_by_cached_key(|planned| {
        let hash = Sha256::new().chain_update(b"order\0").chain_update(seed.to_le_bytes());
        (hash.chain_update(&planned.unit.name).finalize().to_vec(), planned.unit.name.clone())
    });
    let mut shards: Vec<ShardPlan> = Vec::new();
    let (mut samples, mut bytes) = (0, 0u64);
    for planned in units {
        let (more, size) = (planned.unit.slices, planned.unit.bytes);
        let full = samples + more > SAMPLES || bytes.saturating_add(size) > BYTES;
        match shards.last_mut() {
            Some(shard) if !full => shard.units.push(planned),
            _ => {
                (samples, bytes) = (0, 0);
                shards.push(ShardPlan { name: shard::shard_name(split, shards.len()), units: vec![planned] });
            }
        }
        (samples, bytes) = (samples + more, bytes.saturating_add(size));
    }
    shards
}

fn fingerprint(units: &[Unit]) -> String {
    let mut hash = Sha256::new();
    for unit in units {
        let Unit { name, split, label, patient, .. } = unit;
        hash.update(format!("{name:?} {split:?} {label:?} {patient:?}\n"));
        let mask = unit.mask.as_ref().map(|mask| mask.path());
        unit.input.files().into_iter().chain(mask).for_each(|path| hash.update(stamp(path)));
    }
    crate::hex(&hash.finalize())
}

/// Changes whenever a file is written.
fn stamp(path: &Path) -> String {
    let Ok(found) = std::fs::metadata(path) else { return "absent\n".to_owned() };
    let when = found.modified().ok().and_then(|when| when.duration_since(UNIX_EPOCH).ok());
    format!("{:?} {} {:?}\n", path.file_name(), found.len(), when)
}

fn options_text(options: &Options, ids: &Ids) -> String {
    let Options { mask_values, window, split, seed, .. } = options;
    let mut text = format!("{VERSION} {window:?} {seed} {} ", ids.fingerprint());
    // Writing to a String cannot fail.
    let _ = write!(text, "{split:?} {:?}", mask_values.as_ref().map(super::MaskValues::text));
    crate::hex(&Sha256::digest(text))
}
