//! Tests that cannot run here. They say so by name, in a list too (`JCS_TEST_SKIPPED` names the file; `make test` prints it), and fail
//! in CI for want of anything that it can install.

use crate::{repository, say};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;

/// Says that a test is skipped for want of something that CI can install: there it is a failure.
pub fn skip(test: &str, why: &str) {
    cannot_run(test, why);
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{test} was skipped in CI: {why}");
}

/// Says that a test is skipped for want of something that nobody can install: a privilege (root), a kernel's feature, no GPU.
pub fn cannot_run(test: &str, why: &str) {
    let line = format!("SKIPPED {test}: {why}");
    say(&line);
    if let Some(file) = std::env::var_os("JCS_TEST_SKIPPED") {
        let mut file = std::fs::File::options().create(true).append(true).open(file).unwrap();
        file.write_all(format!("{line}\n").as_bytes()).unwrap();
    }
}

/// The folder of real slices of this name beside the repository, which has none. A CI without them sets `JCS_TEST_DATA=none`.
pub fn data(test: &str, name: &str) -> Option<PathBuf> {
    let folder = repository().join("../shared/data").join(name);
    if folder.is_dir() {
        return Some(folder);
    }
    let why =
        format!("there are no slices in {} (JCS_TEST_DATA=none says that this is as it should be)", folder.display());
    if std::env::var("JCS_TEST_DATA").as_deref() == Ok("none") {
        cannot_run(test, &why)
    } else {
        skip(test, &why)
    }
    None
}

/// The Python that `JCS_TEST_PYTHON` names, where it has these modules (`setup/python.sh` makes one).
pub fn python(test: &str, modules: &str) -> Option<String> {
    let named = std::env::var("JCS_TEST_PYTHON").ok();
    let imports = |python: &String| {
        let imported = Command::new(python).args(["-c", &format!("import {modules}")]).output();
        imported.is_ok_and(|out| out.status.success())
    };
    let found = named.filter(imports);
    if found.is_none() {
        skip(test, &format!("JCS_TEST_PYTHON names no Python that has {modules}: run setup/python.sh"));
    }
    found
}
