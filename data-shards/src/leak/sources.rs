//! What the arguments of `leak` stand for.
//!
//! Duty: lists, tables, directories with these, data sets and collections to candidates with their splits. Must not: read
//! an image before it is asked for.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::find::Candidate;
use super::grey::Grey;
use crate::list::{self, Entry};
use crate::shard::{self, Collection, Index, Kind, Kinds, LocalShards, Shards};

/// How the list files of splits are called, or how their names end after `_` or `-`.
const SPLITS: [&str; 8] = ["train", "training", "val", "valid", "validation", "eval", "dev", "test"];

/// Arguments that give no splits to compare.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// A path where nothing is.
    #[error("{}: there is no such file or directory", path.display())]
    Absent {
        /// The path.
        path: PathBuf,
    },
    /// Arguments that come to fewer than two splits.
    #[error("there is only one split, `{split}`; leaks are looked for between splits: name another list or data set")]
    OneSplit {
        /// The split.
        split: String,
    },
    /// A directory that holds nothing to compare.
    #[error("{}: no index.json of a data set, and no list files such as train.txt and test.txt", dir.display())]
    NoLists {
        /// The directory.
        dir: PathBuf,
    },
    /// A list that cannot be read.
    #[error(transparent)]
    List(#[from] crate::Error),
    /// A data set that cannot be opened.
    #[error(transparent)]
    Shards(#[from] shard::Error),
}

impl SourceError {
    /// Whether the arguments are at fault rather than what they name.
    pub fn is_usage(&self) -> bool {
        matches!(self, SourceError::Absent { .. } | SourceError::OneSplit { .. } | SourceError::NoLists { .. })
    }
}

/// A split that an argument stands for.
enum Source {
    List(PathBuf),
    DataSet(PathBuf),
}

/// The candidates that the arguments stand for. Each list, table or data set is a split; a directory is the data sets of
/// its collection, or the lists in it: those called `train`, `val`, `test` and the like, else those whose names end so.
///
/// # Errors
/// [`SourceError`].
pub fn candidates(arguments: &[PathBuf]) -> Result<Vec<Candidate<'static>>, SourceError> {
    let mut sources: Vec<(String, Source)> = Vec::new();
    for argument in arguments {
        sources.extend(sources_of(argument)?);
    }
    unique(&mut sources);
    if let [(split, _)] = &sources[..] {
        return Err(SourceError::OneSplit { split: split.clone() });
    }
    let mut candidates = Vec::new();
    for (split, source) in sources {
        candidates.extend(match source {
            Source::List(path) => of_list(&split, &path)?,
            Source::DataSet(dir) => of_data_set(&split, &dir)?,
        });
    }
    Ok(candidates)
}

fn sources_of(argument: &Path) -> Result<Vec<(String, Source)>, SourceError> {
    let shown = argument.display().to_string();
    if argument.is_file() {
        return Ok(vec![(shown, Source::List(argument.to_owned()))]);
    }
    if !argument.is_dir() {
        return Err(SourceError::Absent { path: argument.to_owned() });
    }
    if argument.join(shard::INDEX).is_file() {
        let sets = Collection::open(argument)?.sets;
        let named = |set: shard::Named| (set.split.unwrap_or_else(|| shown.clone()), Source::DataSet(set.dir));
        return Ok(sets.into_iter().map(named).collect());
    }
    let lists = lists_of(argument)?;
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let sources: Vec<_> = lists.into_iter().map(|path| (name(&path), Source::List(path))).collect();
    if sources.is_empty() { Err(SourceError::NoLists { dir: argument.to_owned() }) } else { Ok(sources) }
}

/// Tells splits of one name apart by where they lie.
fn unique(sources: &mut [(String, Source)]) {
    let mut seen = BTreeSet::new();
    let twice: BTreeSet<String> =
        sources.iter().map(|(name, _)| name).filter(|name| !seen.insert(*name)).cloned().collect();
    let mut numbers = BTreeSet::new();
    for (number, (name, source)) in sources.iter_mut().enumerate().filter(|(_, (name, _))| twice.contains(name)) {
        let (Source::List(path) | Source::DataSet(path)) = source;
        *name = path.display().to_string();
        if !numbers.insert(name.clone()) {
            *name = format!("{name} (argument {})", number + 1);
        }
    }
}

/// The lists in a directory, in the order of their names: train before test.
fn lists_of(dir: &Path) -> Result<Vec<PathBuf>, SourceError> {
    let failed = |source| crate::Error::Read { path: dir.to_owned(), source };
    let mut exact = Vec::new();
    let mut ending = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let extension = path.extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase);
        if !matches!(extension.as_deref(), Some("txt" | "csv")) || !path.is_file() {
            continue;
        }
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().to_lowercase()).unwrap_or_default();
        let last = stem.rsplit(['_', '-']).next().unwrap_or_default();
        let place = |name: &str| SPLITS.iter().position(|split| *split == name);
        match (place(&stem), place(last)) {
            (Some(place), _) => exact.push((place, path)),
            (None, Some(place)) => ending.push((place, path)),
            (None, None) => {}
        }
    }
    let mut chosen =
        if exact.len() > 1 || ending.is_empty() { exact } else { exact.into_iter().chain(ending).collect() };
    chosen.sort();
    Ok(chosen.into_iter().map(|(_, path)| path).collect())
}

fn of_list(split: &str, path: &Path) -> Result<Vec<Candidate<'static>>, SourceError> {
    let mut written = list::read_written(path, None)?;
    let beside = path.with_file_name("labels.csv");
    if beside != path && beside.is_file() {
        // A table that merely lies beside the list may be of another kind.
        let _ = list::add_labels(&mut written, &beside);
    }
    let folder = path.parent().unwrap_or(Path::new("")).to_owned();
    let candidate = |Entry { image, patient, .. }: Entry| Candidate {
        split: split.to_owned(),
        name: image.strip_prefix(&folder).unwrap_or(&image).display().to_string(),
        patient,
        load: Box::new(move || Grey::read(&image).map_err(|error| error.to_string())),
    };
    Ok(written.into_iter().map(|written| candidate(written.entry)).collect())
}

fn of_data_set(split: &str, dir: &Path) -> Result<Vec<Candidate<'static>>, SourceError> {
    let index = Arc::new(Index::open(dir)?);
    let candidate = |sample: usize| {
        let index = Arc::clone(&index);
        let patient = index.patient(sample).and_then(|patient| index.patients().get(patient)).cloned();
        let name = index.key(sample).unwrap_or_default().to_owned();
        let load = Box::new(move || packed(&index, sample));
        Candidate { split: split.to_owned(), name, patient, load }
    };
    Ok((0..index.len()).map(candidate).collect())
}

fn packed(index: &Index, sample: usize) -> Result<Grey, String> {
    let shard = index.shard_of(sample).unwrap_or_default();
    let reader = LocalShards.open(index, shard).map_err(|error| error.to_string())?;
    let members = reader.read(index, sample, Kinds::NONE.with(Kind::Image)).map_err(|error| error.to_string())?;
    let bytes = members.get(Kind::Image).ok_or("it has no image (features alone cannot be compared)")?;
    let name = reader.path().join(index.key(sample).unwrap_or_default());
    Grey::decode(bytes, &name).map_err(|error| error.to_string())
}
