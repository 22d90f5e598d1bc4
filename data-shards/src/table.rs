//! Tables of samples: CSV with the columns `file` (or `image`), and as far as they are known `label` (1 = COVID-19, else 0),
//! `patient_id` (or `patient`) and `mask`.
//!
//! Duty: text to rows, with the line of each. Must not: open what the rows name.

use std::path::Path;

use crate::Error;

/// A row as it is written; empty cells are `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) image: String,
    pub(crate) mask: Option<String>,
    pub(crate) label: Option<bool>,
    pub(crate) patient: Option<String>,
    /// Line in the file, from 1.
    pub(crate) line: usize,
}

/// Whether the file is a table rather than a list, by its name.
pub(crate) fn is_table(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv"))
}

/// Reads a table.
pub(crate) fn read(path: &Path) -> Result<Vec<Row>, Error> {
    let text = crate::list::text(path)?;
    // The reader counts a CRLF as part of the next line.
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text).replace("\r\n", "\n");
    let wrong = |line: usize, problem: String| Error::Table { table: path.to_owned(), line, problem };
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text.as_bytes());
    let columns = Columns::of(reader.headers().map_err(|error| wrong(1, error.to_string()))?);
    let columns = columns.map_err(|found| Error::Columns { table: path.to_owned(), found })?;
    let mut lines = Lines { text: &text, byte: 0, line: 1 };
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|error| wrong(lines.of(error.position()), error.to_string()))?;
        let line = lines.of(record.position());
        rows.push(columns.row(&record, line).map_err(|problem| wrong(line, problem))?);
    }
    if rows.is_empty() { Err(Error::Empty { list: path.to_owned() }) } else { Ok(rows) }
}

/// Counts lines up to where a record starts. The reader's own count is of where the record before it ended, which differs by
/// the blank lines between them.
struct Lines<'a> {
    text: &'a str,
    byte: usize,
    line: usize,
}

impl Lines<'_> {
    fn of(&mut self, record: Option<&csv::Position>) -> usize {
        let end = record.map_or(self.byte, |position| position.byte() as usize);
        let rest = self.text.as_bytes().get(self.byte..).unwrap_or_default();
        let blank = |byte: &u8| *byte == b'\n';
        let before = rest.get(..end.saturating_sub(self.byte)).unwrap_or_default();
        let after = rest.get(before.len()..).unwrap_or_default().iter().take_while(|byte| blank(byte)).count();
        self.line += before.iter().filter(|byte| blank(byte)).count() + after;
        self.byte += before.len() + after;
        self.line
    }
}

/// Places of the columns.
struct Columns {
    image: usize,
    mask: Option<usize>,
    label: Option<usize>,
    patient: Option<usize>,
}

impl Columns {
    /// Fails with the columns that there are.
    fn of(headers: &csv::StringRecord) -> Result<Columns, String> {
        let find =
            |names: &[&str]| headers.iter().position(|header| names.iter().any(|n| header.eq_ignore_ascii_case(n)));
        let found = headers.iter().collect::<Vec<_>>().join(",");
        let image = find(&["file", "image"]).ok_or(found)?;
        Ok(Columns { image, mask: find(&["mask"]), label: find(&["label"]), patient: find(&["patient_id", "patient"]) })
    }

    fn row(&self, record: &csv::StringRecord, line: usize) -> Result<Row, String> {
        let cell = |at: Option<usize>| at.and_then(|at| record.get(at)).filter(|cell| !cell.is_empty());
        let label = match cell(self.label) {
            None => None,
            Some("0") => Some(false),
            Some("1") => Some(true),
            Some(other) => return Err(format!("label `{other}`; expected 1 (COVID-19) or 0")),
        };
        Ok(Row {
            image: cell(Some(self.image)).ok_or("no file is named")?.to_owned(),
            mask: cell(self.mask).map(str::to_owned),
            label,
            patient: cell(self.patient).map(str::to_owned),
            line,
        })
    }
}
