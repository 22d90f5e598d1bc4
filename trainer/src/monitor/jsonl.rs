//! `metrics.jsonl`: one JSON object a line, handed to the operating system as soon as it is written.

use crate::{Error, files};
use serde_json::{Map, Value};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// The open file.
pub struct MetricsFile {
    file: File,
    path: PathBuf,
}

impl MetricsFile {
    /// Opens the file for a run that goes on after step `step`: lines of later steps, which will be
    /// taken again, and a last line that was cut off are removed first.
    pub fn open(path: &Path, step: u64) -> Result<MetricsFile, Error> {
        let failed = |source| Error::Write { file: path.into(), source };
        if let Ok(old) = std::fs::read_to_string(path) {
            let kept = kept_lines(&old, step);
            if kept != old {
                files::replace(path, kept.as_bytes()).map_err(failed)?;
            }
        }
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(failed)?;
        Ok(MetricsFile { file, path: path.into() })
    }

    /// Appends a line.
    pub fn write(&mut self, line: &Map<String, Value>) -> Result<(), Error> {
        let mut bytes = serde_json::to_vec(line).unwrap_or_default();
        bytes.push(b'\n');
        self.file.write_all(&bytes).map_err(|source| Error::Write { file: self.path.clone(), source })
    }
}

/// The complete lines of steps up to `step`. Events are history and stay.
fn kept_lines(text: &str, step: u64) -> String {
    text.split_inclusive('\n')
        .filter(|line| {
            line.ends_with('\n')
                && serde_json::from_str::<Value>(line)
                    .is_ok_and(|v| v["kind"] == "event" || v["step"].as_u64().is_some_and(|s| s <= step))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn lines_that_will_be_written_again_go() {
        let text = "{\"kind\":\"train\",\"step\":1}\n{\"kind\":\"train\",\"step\":2}\n{\"kind\":\"event\",\"step\":9}\n{\"kind\":\"tr";
        assert_eq!(super::kept_lines(text, 1), "{\"kind\":\"train\",\"step\":1}\n{\"kind\":\"event\",\"step\":9}\n");
    }
}
