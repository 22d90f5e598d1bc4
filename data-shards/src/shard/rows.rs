//! Rows of `samples.csv`.
//!
//! Duty: the columns, and a row to text and back. Must not: open files.

use serde::{Deserialize, Serialize};

use super::{Kind, Kinds};

/// A member in its shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Which one.
    pub kind: Kind,
    /// Where its bytes begin in the shard (behind its tar header), a multiple of 512.
    pub offset: u64,
    /// How many.
    pub size: u64,
    /// CRC-32 (IEEE 802.3, as in zlib, gzip and PNG) of the bytes.
    pub crc32: u32,
}

/// A sample in its shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Its key.
    pub key: String,
    /// Whether it is COVID-19.
    pub label: Option<bool>,
    /// Whose image it is.
    pub patient: Option<String>,
    /// Its members, in the order of [`Kind::ALL`].
    pub members: Vec<Member>,
}

/// The four leading columns.
pub(crate) const LEADING: [&str; 4] = ["key", "shard", "label", "patient"];
/// What follows the name of a member in its three columns.
const MEMBER: [&str; 3] = ["offset", "size", "crc32"];

/// The names of all columns.
pub(crate) fn columns() -> Vec<String> {
    let members = Kind::ALL.iter().flat_map(|kind| MEMBER.map(|column| format!("{}_{column}", kind.column())));
    LEADING.iter().map(|column| (*column).to_owned()).chain(members).collect()
}

impl Row {
    /// The cells of the row, for the shard of this number.
    pub(crate) fn cells(&self, shard: usize) -> Vec<String> {
        let label = self.label.map_or("", |label| if label { "1" } else { "0" });
        let leading = [self.key.clone(), shard.to_string(), label.to_owned(), self.patient.clone().unwrap_or_default()];
        let cells = |kind: Kind| match self.members.iter().find(|member| member.kind == kind) {
            Some(Member { offset, size, crc32, .. }) => [offset.to_string(), size.to_string(), format!("{crc32:08x}")],
            None => Default::default(),
        };
        leading.into_iter().chain(Kind::ALL.into_iter().flat_map(cells)).collect()
    }
}

/// A row as it is read, with its text borrowed.
pub(crate) struct Cells<'a> {
    pub(crate) key: &'a str,
    pub(crate) shard: usize,
    pub(crate) label: Option<bool>,
    pub(crate) patient: Option<&'a str>,
    pub(crate) members: [Option<Member>; 5],
}

impl<'a> Cells<'a> {
    /// Reads the cells of a row, of which there are as many as [`columns`] (the csv reader sees to that).
    pub(crate) fn of(record: &'a csv::StringRecord) -> Result<Cells<'a>, String> {
        let cell = |at: usize| record.get(at).unwrap_or_default();
        let label = match cell(2) {
            "" => None,
            "0" => Some(false),
            "1" => Some(true),
            other => return Err(format!("label `{}`; expected 1, 0 or nothing", shown(other))),
        };
        let mut members = [None; 5];
        for (place, (kind, member)) in Kind::ALL.into_iter().zip(&mut members).enumerate() {
            let first = LEADING.len() + MEMBER.len() * place;
            *member = member_of(kind, [cell(first), cell(first + 1), cell(first + 2)])?;
        }
        let patient = Some(cell(3)).filter(|id| !id.is_empty());
        Ok(Cells { key: cell(0), shard: number(cell(1), "shard")?, label, patient, members })
    }

    pub(crate) fn kinds(&self) -> Kinds {
        self.members.iter().flatten().fold(Kinds::NONE, |kinds, member| kinds.with(member.kind))
    }
}

fn member_of(kind: Kind, cells: [&str; 3]) -> Result<Option<Member>, String> {
    let [offset, size, crc32] = cells;
    if cells.iter().all(|cell| cell.is_empty()) {
        return Ok(None);
    }
    let (offset, size) = (number(offset, "offset")?, number(size, "size")?);
    let wrong = || format!("checksum `{}`; expected 8 hexadecimal digits", shown(crc32));
    let digits = crc32.len() == 8 && crc32.bytes().all(|byte| byte.is_ascii_hexdigit());
    let crc32 = u32::from_str_radix(crc32, 16).ok().filter(|_| digits).ok_or_else(wrong)?;
    Ok(Some(Member { kind, offset, size, crc32 }))
}

/// A decimal number, and nothing else that Rust would read as one.
fn number<T: std::str::FromStr>(text: &str, what: &str) -> Result<T, String> {
    let wrong = || format!("{what} `{}`; expected a whole number in range", shown(text));
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits).ok_or_else(wrong)
}

fn shown(text: &str) -> String {
    text.chars().take(40).collect::<String>().escape_debug().to_string()
}
