//! The commands about shards.
//!
//! Duty: what they print, and their exit codes. Must not: hold logic that the library could.

mod info;
mod pack;
mod verify;

use std::fmt::Display;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use data_shards::Error;
use data_shards::remote::{Blame, CacheSettings};

use crate::{BAD_DATA, USAGE};

pub(crate) use info::info;
pub(crate) use pack::{PackArgs, pack};
pub(crate) use verify::verify;

/// Where shards of a URL are kept.
#[derive(Args)]
pub(crate) struct ServerArgs {
    /// Folder on a disk of this machine in which what a URL leads to is kept [default: jcs-cache-UID in TMPDIR, or in /var/tmp]
    #[arg(long, value_name = "DIR")]
    cache_dir: Option<PathBuf>,
}

impl ServerArgs {
    fn cache(self) -> CacheSettings {
        let default = CacheSettings::default();
        CacheSettings { dir: self.cache_dir.unwrap_or(default.dir), ..default }
    }
}

fn failed(error: &Error) -> ExitCode {
    crate::failed(error, if error.blame() == Blame::Input { BAD_DATA } else { USAGE })
}

/// The answer, on standard output. A reader that has seen enough (`| head`) is no failure.
pub(crate) fn answer(text: impl Display) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// A number of things, as in `1 shard`.
fn several(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Refuses URLs where paths of this machine are meant: they would be shown with their credentials.
pub(crate) fn refuse_urls<'a>(paths: impl IntoIterator<Item = &'a PathBuf>) -> Option<ExitCode> {
    let url = paths.into_iter().any(|path| path.to_string_lossy().contains("://"));
    url.then(|| crate::failed(&"a URL is not taken here: name files and folders of this machine", USAGE))
}
