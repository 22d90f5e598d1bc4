//! What a weights file, a checkpoint or a run holds, as text.

use crate::checkpoint::{self, Found, MANIFEST};
use crate::error::Error;
use crate::weights;
use std::fmt::Write;
use std::path::Path;

/// Describes `path`: a run directory, a checkpoint, or a weights file.
pub fn inspect(path: &Path) -> Result<String, Error> {
    if path.join("checkpoints").is_dir() {
        return describe_run(path);
    }
    if path.join(MANIFEST).is_file() {
        return Ok(describe_checkpoint(&checkpoint::verify(path)?));
    }
    describe_weights(&checkpoint::resolve_weights(path)?)
}

fn describe_run(run: &Path) -> Result<String, Error> {
    let checkpoints = run.join("checkpoints");
    let mut text = format!("run {}\n", run.display());
    for pointer in [checkpoint::LATEST, checkpoint::BEST] {
        if let Ok(name) = std::fs::read_to_string(checkpoints.join(pointer)) {
            let _ = writeln!(text, "{pointer:<12}{}", name.trim());
        }
    }
    match checkpoint::newest(&checkpoints)? {
        (None, _) => text.push_str("no checkpoint yet\n"),
        (Some(found), refused) => {
            for e in refused {
                let _ = writeln!(text, "damaged     {e}");
            }
            text.push_str(&describe_checkpoint(&found));
        }
    }
    Ok(text)
}

fn describe_checkpoint(found: &Found) -> String {
    let s = &found.state;
    let best = s.best.map_or("none".into(), |b| format!("{:?} {:.4} at step {}", b.metric, b.value, b.step));
    let rows = [
        ("checkpoint", format!("{} (every checksum is right)", found.folder.display())),
        ("step", format!("{} of {}, epoch {}, {} samples", s.step, s.max_steps, s.epoch, s.samples)),
        ("batches", format!("{} samples a step, {} a micro-batch", s.global_batch, s.micro_batch)),
        ("data", format!("{} samples, fingerprint {:.12}…", s.data.samples, s.data.fingerprint)),
        ("model", s.config["model"].to_string()),
        ("best", best),
        (
            "written by",
            format!(
                "jcs {} ({}), libtorch {}, {}, {} workers × {} threads",
                s.versions.jcs,
                s.versions.commit,
                s.versions.libtorch,
                s.versions.collectives,
                s.world_size,
                s.versions.threads
            ),
        ),
    ];
    rows.iter().map(|(name, value)| format!("{name:<12}{value}\n")).collect()
}

fn describe_weights(file: &Path) -> Result<String, Error> {
    let w = weights::read(file)?;
    let elements: usize = w.tensors.iter().map(|(_, t)| t.numel()).sum();
    let mut text = format!("weights {}\n{} tensors, {elements} values\n", file.display(), w.tensors.len());
    let mut metadata: Vec<_> = w.metadata.iter().collect();
    metadata.sort();
    for (key, value) in metadata {
        let _ = writeln!(text, "{key:<12}{value}");
    }
    for (name, tensor) in &w.tensors {
        let shape = tensor.size().iter().map(i64::to_string).collect::<Vec<_>>().join("x");
        let _ = writeln!(text, "  {name}  {shape}  {:?}", tensor.kind());
    }
    Ok(text)
}
