//! A data set of shards on a server.
//!
//! Duty: its index, and its shards as readers that hold them in the cache. Must not: fetch anything by itself.

use std::collections::HashMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::{CacheSettings, Error, Held, Location, Remote};
use crate::shard::{self, Head, INDEX, Index, Listed, Listing, SAMPLES, Shard, ShardReader, Shards, blocks};

/// Most bytes of a `samples.csv`.
const LARGEST_SAMPLES: u64 = 1 << 31;

/// The shards of a remote data set.
#[derive(Debug)]
pub struct RemoteShards {
    remote: Remote,
    plan: Mutex<Plan>,
}

/// In which order shards are going to be read.
#[derive(Debug, Default)]
struct Plan {
    order: Vec<usize>,
    /// Of each shard in `order`.
    place: HashMap<usize, usize>,
    /// Whether the shard at this place was asked for ahead.
    asked: Vec<bool>,
}

/// A data set of a remote collection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteSet {
    /// The split that it is; none where `location` is a data set without splits.
    pub split: Option<String>,
    /// Where it is.
    pub location: Location,
}

impl RemoteSet {
    /// The data sets in `location`: one, or those of a collection.
    ///
    /// # Errors
    /// Those of [`Remote::open`] and [`Remote::small`], and of [`Head::parse`].
    pub fn list(location: &Location, cache: CacheSettings) -> Result<Vec<RemoteSet>, crate::Error> {
        let set = |split: String| Ok(RemoteSet { location: location.join(&split)?, split: Some(split) });
        match sound(&Remote::open(location, cache)?, |bytes| head(location, bytes))? {
            Head::DataSet(Listing { split, .. }) => Ok(vec![RemoteSet { split, location: location.clone() }]),
            Head::Collection(splits) => splits.into_iter().map(set).collect(),
        }
    }

    /// The data set that is meant by `location` and, where it is a collection, the first of `wanted` that it has. A data set
    /// on its own is meant whatever is wanted.
    ///
    /// # Errors
    /// Those of [`Self::list`]; [`shard::Error::Splits`] where it is a collection without such a split.
    pub fn find(location: &Location, wanted: &[&str], cache: CacheSettings) -> Result<Location, crate::Error> {
        let head = sound(&Remote::open(location, cache)?, |bytes| head(location, bytes))?;
        Ok(match head.choose(&shown(location), wanted)? {
            Some(split) => location.join(split)?,
            None => location.clone(),
        })
    }
}

impl RemoteShards {
    /// The data set in `location`: its index, and where its shards are to be had.
    ///
    /// # Errors
    /// Those of [`Remote::open`], [`Remote::small`], [`Remote::shard`], [`Head::parse`] and [`Index::parse`];
    /// [`shard::Error::Splits`] for a collection.
    pub fn open(location: &Location, cache: CacheSettings) -> Result<(Index, RemoteShards), crate::Error> {
        let remote = Remote::open(location, cache)?;
        let index = sound(&remote, |bytes| index(&remote, bytes))?;
        Ok((index, RemoteShards { remote, plan: Mutex::default() }))
    }

    /// Where they come from.
    pub fn remote(&self) -> &Remote {
        &self.remote
    }

    fn reader(&self, index: &Index, shard: usize, held: Held) -> Result<ShardReader, crate::Error> {
        let name = index.shards().get(shard).map(|shard| shard.name.as_str()).unwrap_or_default();
        let file = held.file().try_clone().map_err(Error::cache("open", held.path()))?;
        Ok(ShardReader::held(index, shard, &index.dir().join(name), file, Arc::new(held))?)
    }
}

impl Shards for RemoteShards {
    fn open(&self, index: &Index, shard: usize) -> Result<ShardReader, crate::Error> {
        let Shard { name, bytes, sha256, .. } = listed(index, shard)?;
        let held = self.remote.shard(name, *bytes, sha256)?;
        let next = self.plan.lock().unwrap_or_else(PoisonError::into_inner).after(shard);
        for Shard { name, bytes, sha256, .. } in next.into_iter().filter_map(|shard| index.shards().get(shard)) {
            self.remote.prefetch(name, *bytes, sha256);
        }
        self.reader(index, shard, held)
    }

    fn again(&self, index: &Index, shard: usize) -> Result<Option<ShardReader>, crate::Error> {
        let Shard { name, bytes, sha256, .. } = listed(index, shard)?;
        let held = self.remote.shard_again(name, *bytes, sha256)?;
        self.reader(index, shard, held).map(Some)
    }

    fn stop(&self) {
        self.remote.stop();
    }

    /// Where the cache takes less than the block that is read and the one that is fetched ahead, shards are fetched
    /// again and again.
    fn remark(&self, index: &Index) -> Option<String> {
        let limit = self.remote.limit_bytes()?;
        let mut sizes: Vec<u64> = index.shards().iter().map(|shard| shard.bytes).collect();
        sizes.sort_unstable_by_key(|bytes| std::cmp::Reverse(*bytes));
        let need = sizes.iter().take(2 * blocks::BLOCK).fold(0u64, |sum, bytes| sum.saturating_add(*bytes));
        (limit < need).then(|| {
            format!(
                "data.cache_limit: {limit} bytes are less than the {need} of {} shards, so that shards of {} will be fetched \
                 more than once an epoch",
                sizes.len().min(2 * blocks::BLOCK),
                index.dir().display()
            )
        })
    }

    fn expect(&self, order: &[usize]) {
        *self.plan.lock().unwrap_or_else(PoisonError::into_inner) = Plan::new(order);
    }

    /// Sizes are compared when a shard arrives: to ask for each now would cost a request a shard and worker.
    fn check(&self, _: &Index) -> Result<(), crate::Error> {
        Ok(())
    }
}

impl Plan {
    fn new(order: &[usize]) -> Plan {
        let place = order.iter().enumerate().map(|(at, shard)| (*shard, at)).collect();
        Plan { order: order.to_owned(), place, asked: vec![false; order.len()] }
    }

    /// The shards of about a block behind this one that were not given before: a block is read as a whole, so that the next
    /// one is on its way when it begins.
    fn after(&mut self, shard: usize) -> Vec<usize> {
        let Some(at) = self.place.get(&shard) else { return Vec::new() };
        let next = self.order.iter().zip(&mut self.asked).skip(at + 1).take(blocks::BLOCK);
        next.filter_map(|(shard, asked)| (!std::mem::replace(asked, true)).then_some(*shard)).collect()
    }
}

/// What the index says. No checksum tells whether it is right: where it seems not to be, it is fetched afresh, once.
fn sound<T>(remote: &Remote, read: impl Fn(&[u8]) -> Result<T, crate::Error>) -> Result<T, crate::Error> {
    read(&remote.small(INDEX)?).or_else(|error| match &error {
        crate::Error::Shard(shard::Error::Splits { .. }) => Err(error),
        crate::Error::Shard(_) => read(&remote.small_again(INDEX)?),
        crate::Error::Remote(Error::NoChecksum { .. } | Error::Name { .. }) => read(&remote.small_again(INDEX)?),
        _ => Err(error),
    })
}

fn head(location: &Location, bytes: &[u8]) -> Result<Head, crate::Error> {
    Ok(Head::parse(&shown(location).join(INDEX), bytes)?)
}

fn index(remote: &Remote, bytes: &[u8]) -> Result<Index, crate::Error> {
    let location = remote.location();
    match head(location, bytes)? {
        Head::Collection(splits) => Err(not_a_set(location, &splits)),
        Head::DataSet(listing) => {
            let samples = samples(remote, &listing.samples_file)?;
            Ok(Index::parse(&shown(location), listing, &samples)?)
        }
    }
}

fn samples(remote: &Remote, listed: &Listed) -> Result<Vec<u8>, crate::Error> {
    let path = || shown(remote.location()).join(SAMPLES);
    if listed.bytes > LARGEST_SAMPLES {
        let problem = format!("{} bytes are listed, but at most {LARGEST_SAMPLES} are expected", listed.bytes);
        return Err(shard::Error::Damaged { path: path(), problem }.into());
    }
    let held = remote.shard(&listed.name, listed.bytes, &listed.sha256)?;
    let mut bytes = Vec::new();
    held.file().take(listed.bytes).read_to_end(&mut bytes).map_err(Error::cache("read", held.path()))?;
    Ok(bytes)
}

fn listed(index: &Index, shard: usize) -> Result<&Shard, crate::Error> {
    let none = || shard::Error::NoShard { path: index.dir().join(INDEX), shard, len: index.shards().len() };
    Ok(index.shards().get(shard).ok_or_else(none)?)
}

fn not_a_set(location: &Location, splits: &[String]) -> crate::Error {
    shard::Error::Splits { dir: shown(location), splits: splits.join(", ") }.into()
}

/// The URL in place of a directory, for messages.
fn shown(location: &Location) -> PathBuf {
    Path::new(&location.to_string()).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_ahead_and_each_shard_once() {
        let order: Vec<usize> = (0..20).rev().collect();
        let mut plan = Plan::new(&order);
        // Within a block, shards are read in any order.
        assert_eq!(plan.after(17), [16, 15, 14, 13, 12, 11, 10, 9]);
        assert_eq!(plan.after(19), [18, 17]);
        assert!(plan.after(17).is_empty());
        assert_eq!(plan.after(16), [8]);
        assert!(plan.after(0).is_empty());
        assert!(plan.after(99).is_empty());
        assert!(Plan::default().after(0).is_empty());
    }
}
