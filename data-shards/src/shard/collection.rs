//! A directory that is a data set or several.
//!
//! Duty: the data sets that a directory stands for. Must not: open them.

use std::path::{Path, PathBuf};

use super::{Error, Head, index};

/// The data sets of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collection {
    /// In the order in which the index names them; one where the directory is itself a data set.
    pub sets: Vec<Named>,
}

/// A data set of a collection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The split that it is; none where the directory is a data set without splits.
    pub split: Option<String>,
    /// Its directory.
    pub dir: PathBuf,
}

impl Collection {
    /// Reads the `index.json` in `dir`.
    ///
    /// # Errors
    /// [`Error::NoIndex`], [`Error::Read`], and those of [`Head::parse`].
    pub fn open(dir: &Path) -> Result<Collection, Error> {
        let sets = match index::head(dir)? {
            Head::DataSet(listing) => vec![Named { split: listing.split, dir: dir.to_owned() }],
            Head::Collection(splits) => {
                splits.into_iter().map(|split| Named { dir: dir.join(&split), split: Some(split) }).collect()
            }
        };
        Ok(Collection { sets })
    }

    /// The directory of the data set that is meant by `dir` and, where `dir` is a collection, the first of `wanted` that it
    /// has. A data set on its own is meant whatever is wanted.
    ///
    /// # Errors
    /// Those of [`Self::open`]; [`Error::Splits`] where `dir` is a collection without such a split.
    pub fn find(dir: &Path, wanted: &[&str]) -> Result<PathBuf, Error> {
        Ok(index::head(dir)?.choose(dir, wanted)?.map_or_else(|| dir.to_owned(), |split| dir.join(split)))
    }
}
