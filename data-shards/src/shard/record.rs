//! A sample as it goes into a shard, and what its members are called.
//!
//! Duty: names, and what a record must hold to be readable by others. Must not: do input or output.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Error;

/// A feature file of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Feature {
    /// `vgg_feats`: `KEY.vgg.npy`, (C, H, W).
    Vgg,
    /// `res2net_feats`: `KEY.res2net.npy`, (C, H/2, W/2).
    Res2Net,
}

impl Feature {
    /// The member that holds it.
    pub const fn kind(self) -> Kind {
        match self {
            Feature::Vgg => Kind::Vgg,
            Feature::Res2Net => Kind::Res2Net,
        }
    }
}

/// A member of a sample: a file in the tar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// `KEY.png`
    #[serde(rename = "png")]
    Image,
    /// `KEY.mask.png`
    #[serde(rename = "mask.png")]
    Mask,
    /// `KEY.json`
    #[serde(rename = "json")]
    Facts,
    /// `KEY.vgg.npy`
    #[serde(rename = "vgg.npy")]
    Vgg,
    /// `KEY.res2net.npy`
    #[serde(rename = "res2net.npy")]
    Res2Net,
}

impl Kind {
    /// All, in the order in which they stand in a shard.
    pub const ALL: [Kind; 5] = [Kind::Image, Kind::Mask, Kind::Facts, Kind::Vgg, Kind::Res2Net];

    /// What follows `KEY.` in the member's name.
    pub const fn extension(self) -> &'static str {
        match self {
            Kind::Image => "png",
            Kind::Mask => "mask.png",
            Kind::Facts => "json",
            Kind::Vgg => "vgg.npy",
            Kind::Res2Net => "res2net.npy",
        }
    }

    /// What its columns in `samples.csv` begin with.
    pub(crate) const fn column(self) -> &'static str {
        match self {
            Kind::Image => "png",
            Kind::Mask => "mask",
            Kind::Facts => "json",
            Kind::Vgg => "vgg",
            Kind::Res2Net => "res2net",
        }
    }

    /// The member's name in the tar.
    pub fn name(self, key: &str) -> String {
        format!("{key}.{}", self.extension())
    }

    /// How the bytes of such a member begin.
    const fn magic(self) -> &'static [u8] {
        match self {
            Kind::Image | Kind::Mask => b"\x89PNG\r\n\x1a\n",
            Kind::Facts => b"{",
            Kind::Vgg | Kind::Res2Net => b"\x93NUMPY",
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A set of members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kinds(u8);

impl Kinds {
    /// None of them.
    pub const NONE: Kinds = Kinds(0);
    /// All of them.
    pub const ALL: Kinds = Kinds(0b1_1111);

    /// This one as well.
    #[must_use]
    pub const fn with(self, kind: Kind) -> Kinds {
        Kinds(self.0 | kind.bit())
    }

    /// Whether this one is among them.
    pub const fn has(self, kind: Kind) -> bool {
        self.0 & kind.bit() != 0
    }

    /// Members in the order of [`Kind::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Kind> {
        Kind::ALL.into_iter().filter(move |kind| self.has(*kind))
    }

    /// How many.
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// A sample to be written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    /// See [`check_key`]; no other sample of the data set has it.
    pub key: String,
    /// Bytes of a PNG: 8 or 16 bits, grey or RGB.
    pub image: Option<Vec<u8>>,
    /// Bytes of a PNG of the image's size: 8 bits grey, 255 at lesions and 0 elsewhere.
    pub mask: Option<Vec<u8>>,
    /// Bytes of `.npy` files, at most one a feature.
    pub features: Vec<(Feature, Vec<u8>)>,
    /// Whether it is COVID-19, where that is known.
    pub label: Option<bool>,
    /// Whose image it is, where that is known; not empty.
    pub patient: Option<String>,
    /// What else `KEY.json` says, beside `label` and `patient`.
    pub facts: Map<String, Value>,
}

/// Most bytes of a key, so that no member's name needs an extension of the tar format.
const LONGEST_KEY: usize = 80;
/// Most bytes of a patient's id.
const LONGEST_PATIENT: usize = 1000;

/// Sees that a key is one: 1 to 80 of the letters a to z and A to Z, digits, `_` and `-`.
///
/// # Errors
/// [`Error::Record`].
pub fn check_key(key: &str) -> Result<(), Error> {
    if is_plain(key) && key.len() <= LONGEST_KEY {
        return Ok(());
    }
    let shown: String = key.chars().take(LONGEST_KEY).collect();
    let problem = format!("no key: expected 1 to {LONGEST_KEY} of the characters a-z, A-Z, 0-9, `_` and `-`");
    Err(Error::Record { key: shown.escape_debug().to_string(), problem })
}

/// What keys, splits and the stems of shards are made of: nothing that a path, a tar or a table treats in a special way.
pub(crate) fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

/// A member with its bytes.
pub(crate) type Content<'a> = (Kind, Cow<'a, [u8]>);

impl Record {
    /// The members with their bytes, in the order of [`Kind::ALL`].
    pub(crate) fn members(&self) -> Result<Vec<Content<'_>>, Error> {
        self.check()?;
        let mut members = vec![(Kind::Facts, Cow::Owned(self.json()?))];
        members.extend(self.image.iter().map(|bytes| (Kind::Image, Cow::from(bytes))));
        members.extend(self.mask.iter().map(|bytes| (Kind::Mask, Cow::from(bytes))));
        members.extend(self.features.iter().map(|(feature, bytes)| (feature.kind(), Cow::from(bytes))));
        members.sort_by_key(|(kind, _)| *kind);
        if members.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Err(self.wrong("the same feature twice".to_owned()));
        }
        members.iter().try_for_each(|(kind, bytes)| self.check_member(*kind, bytes))?;
        Ok(members)
    }

    fn check(&self) -> Result<(), Error> {
        check_key(&self.key)?;
        if self.image.is_none() && self.features.is_empty() {
            return Err(self.wrong("neither an image nor features".to_owned()));
        }
        if let Some(patient) = &self.patient
            && (patient.is_empty() || patient.len() > LONGEST_PATIENT || patient.chars().any(char::is_control))
        {
            let problem = format!("a patient id must have 1 to {LONGEST_PATIENT} bytes and no control characters");
            return Err(self.wrong(problem));
        }
        match ["label", "patient"].into_iter().find(|name| self.facts.contains_key(*name)) {
            Some(name) => Err(self.wrong(format!("`{name}` among its facts, which is a field of its own"))),
            None => Ok(()),
        }
    }

    fn check_member(&self, kind: Kind, bytes: &[u8]) -> Result<(), Error> {
        let name = kind.name(&self.key);
        if !bytes.starts_with(kind.magic()) {
            return Err(self.wrong(format!("{name} does not begin as a .{} does", kind.extension())));
        }
        match u64::try_from(bytes.len()) {
            Ok(size) if size <= super::LARGEST_MEMBER => Ok(()),
            _ => Err(self.wrong(format!(
                "{name} has {} bytes; at most {} are allowed",
                bytes.len(),
                super::LARGEST_MEMBER
            ))),
        }
    }

    fn json(&self) -> Result<Vec<u8>, Error> {
        let mut facts = Map::new();
        facts.insert("label".to_owned(), self.label.map_or(Value::Null, |label| Value::from(u8::from(label))));
        facts.insert("patient".to_owned(), self.patient.clone().map_or(Value::Null, Value::from));
        facts.extend(self.facts.clone());
        serde_json::to_vec(&facts).map_err(|error| self.wrong(format!("its facts are no JSON: {error}")))
    }

    pub(crate) fn wrong(&self, problem: String) -> Error {
        Error::Record { key: self.key.clone(), problem }
    }
}
