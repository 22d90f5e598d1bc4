//! The data sets in a location, on this machine or not.
//!
//! Duty: to open each of them. Must not: read samples.

use std::path::PathBuf;
use std::sync::Arc;

use crate::Error;
use crate::remote::{CacheSettings, Location, RemoteSet, RemoteShards};
use crate::shard::{Collection, Index, LocalShards, Shards, unlisted};

/// An open data set.
#[derive(Debug)]
pub struct Set {
    /// Its samples.
    pub index: Index,
    /// Where its shards are to be had.
    pub shards: Arc<dyn Shards>,
    local: bool,
}

impl Set {
    /// The data set that a location is, or the one in it that is the first of `wanted` which the collection has.
    ///
    /// # Errors
    /// Those of [`Collection::find`] and [`Index::open`]; for a URL [`RemoteSet::find`] and [`RemoteShards::open`].
    pub fn find(location: &Location, wanted: &[&str], cache: &CacheSettings) -> Result<Set, Error> {
        match location.local() {
            Some(dir) => Set::in_directory(Collection::find(dir, wanted)?),
            None => Set::on_server(&RemoteSet::find(location, wanted, cache.clone())?, cache),
        }
    }

    /// All data sets in a location, one after the other; each with its name where it cannot be opened.
    ///
    /// # Errors
    /// Those of [`Collection::open`]; for a URL [`RemoteSet::list`].
    pub fn all(location: &Location, cache: &CacheSettings) -> Result<impl Iterator<Item = Result<Set, Error>>, Error> {
        let places: Vec<Location> = match location.local() {
            Some(dir) => Collection::open(dir)?.sets.into_iter().map(|set| set.dir.into()).collect(),
            None => RemoteSet::list(location, cache.clone())?.into_iter().map(|set| set.location).collect(),
        };
        let cache = cache.clone();
        Ok(places.into_iter().map(move |place| match place.local() {
            Some(dir) => Set::in_directory(dir.to_owned()),
            None => Set::on_server(&place, &cache),
        }))
    }

    /// The shards beside the index that it does not list; none of a remote data set, which cannot be asked.
    ///
    /// # Errors
    /// Those of [`unlisted`].
    pub fn unlisted(&self) -> Result<Vec<Error>, Error> {
        let found = if self.local { unlisted(&self.index)? } else { Vec::new() };
        Ok(found.into_iter().map(Error::from).collect())
    }

    fn in_directory(dir: PathBuf) -> Result<Set, Error> {
        Ok(Set { index: Index::open(&dir)?, shards: Arc::new(LocalShards), local: true })
    }

    fn on_server(location: &Location, cache: &CacheSettings) -> Result<Set, Error> {
        let (index, shards) = RemoteShards::open(location, cache.clone())?;
        Ok(Set { index, shards: Arc::new(shards), local: false })
    }
}
