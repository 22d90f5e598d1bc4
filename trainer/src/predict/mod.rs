//! Prediction on image files: mask, overlay, result, and a report of all of them.

mod overlay;
mod report;

use crate::error::Error;
use crate::network::{Description, Input, Network, Output};
use crate::{checkpoint, files, weights};
use data_shards::decode::Rgb;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};

/// What to predict, with what, to where.
pub struct Request<'a> {
    /// A run, a checkpoint or a weights file.
    pub weights: &'a Path,
    /// Output folder.
    pub out: &'a Path,
    /// Images, or folders of them.
    pub inputs: &'a [PathBuf],
    /// Write `tensors.safetensors` for each input.
    pub save_tensors: bool,
    /// Probability from which a pixel counts as lesion.
    pub threshold: f64,
    /// Where to compute.
    pub device: Device,
    /// Part of the inputs to take: number `part.0` of `part.1`.
    pub part: (usize, usize),
}

/// `result.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// The input, as given.
    pub input: String,
    /// Folder of this input's files, below the output folder.
    pub folder: String,
    /// Height and width of the input, in pixels.
    pub size: [usize; 2],
    /// Probability from which a pixel counts as lesion.
    pub threshold: f64,
    /// Pixels of the input that count as lesion.
    pub lesion_pixels: u64,
    /// The same as a share of all pixels.
    pub lesion_share: f64,
    /// Largest probability.
    pub max_probability: f64,
}

const IMAGE_ENDINGS: [&str; 3] = ["png", "jpg", "jpeg"];

/// Predicts this worker's part of the inputs, and returns the outcomes.
pub fn predict(request: &Request<'_>, show: &mut dyn FnMut(u64, u64)) -> Result<Vec<Outcome>, Error> {
    let inputs = named(expand(request.inputs)?);
    let file = checkpoint::resolve_weights(request.weights)?;
    let (network, description) = Network::from_weights(&weights::read(&file)?, request.device)?;
    if !description.assumed.is_empty() {
        tracing::warn!("{} does not say, so assumed: {}", file.display(), description.assumed.join(", "));
    }
    if description.from_features {
        let problem = "was trained on features and takes no images: use jcs eval";
        return Err(Error::Usage(format!("{} {problem}", file.display())));
    }
    std::fs::create_dir_all(request.out).map_err(|source| Error::Output { file: request.out.into(), source })?;
    let mine: Vec<_> = inputs.iter().skip(request.part.0).step_by(request.part.1).collect();
    let mut outcomes = Vec::with_capacity(mine.len());
    for (input, folder) in &mine {
        outcomes.push(predict_one(request, &network, &description, input, folder)?);
        show(outcomes.len() as u64, mine.len() as u64);
    }
    Ok(outcomes)
}

/// The outcomes of all ranks in the order of the inputs: rank r took inputs r, r + world size, …
pub fn merge(gathered: &[Vec<u8>]) -> Vec<Outcome> {
    let parts: Vec<Vec<Outcome>> = gathered.iter().map(|b| serde_json::from_slice(b).unwrap_or_default()).collect();
    let longest = parts.iter().map(Vec::len).max().unwrap_or(0);
    (0..longest).flat_map(|i| parts.iter().filter_map(move |p| p.get(i).cloned())).collect()
}

/// Writes `predictions.csv` and `report.html` about all outcomes.
pub fn write_report(out: &Path, outcomes: &[Outcome], weights: &Path) -> Result<(), Error> {
    write(&out.join("predictions.csv"), report::csv(outcomes).as_bytes())?;
    write(&out.join("report.html"), report::html(outcomes, weights).as_bytes())
}

/// Files of folders in order of name; files as they are.
fn expand(inputs: &[PathBuf]) -> Result<Vec<PathBuf>, Error> {
    let mut all = Vec::new();
    for input in inputs {
        if !input.is_dir() {
            all.push(input.clone());
            continue;
        }
        let entries = std::fs::read_dir(input).map_err(|e| Error::Usage(format!("{}: {e}", input.display())))?;
        let mut files: Vec<PathBuf> = entries.flatten().map(|e| e.path()).filter(|p| is_image(p)).collect();
        files.sort();
        if files.is_empty() {
            return Err(Error::Usage(format!("{} holds no .png, .jpg or .jpeg file", input.display())));
        }
        all.extend(files);
    }
    Ok(all)
}

fn is_image(path: &Path) -> bool {
    let ending = path.extension().map(|e| e.to_string_lossy().to_lowercase());
    ending.is_some_and(|e| IMAGE_ENDINGS.contains(&e.as_str()))
}

/// Gives each input a folder of its own: its name without ending, numbered where that is taken.
fn named(inputs: Vec<PathBuf>) -> Vec<(PathBuf, String)> {
    let mut taken = BTreeSet::new();
    let name = |input: &PathBuf| {
        let stem = input.file_stem().map_or("input".into(), |s| s.to_string_lossy().into_owned());
        let mut candidates = std::iter::once(stem.clone()).chain((2..).map(|n| format!("{stem}-{n}")));
        candidates.find(|c| taken.insert(c.clone())).unwrap_or(stem)
    };
    let names: Vec<String> = inputs.iter().map(name).collect();
    inputs.into_iter().zip(names).collect()
}

fn predict_one(
    request: &Request<'_>,
    network: &Network,
    description: &Description,
    input: &Path,
    folder: &str,
) -> Result<Outcome, Error> {
    let (pixels, original) = data_shards::load_image(input, &description.geometry())?;
    let (h, w) = description.size;
    let image = Tensor::from_slice(&pixels).view([1, 3, h as i64, w as i64]).to_device(request.device);
    let Output::Maps(logits) = tch::no_grad(|| network.forward(&Input::Images(image.shallow_clone()))) else {
        return Err(Error::Usage(format!(
            "{} holds a classifier: name segmentation weights",
            request.weights.display()
        )));
    };
    let logits = logits.to_kind(Kind::Float);
    let output = logits.sigmoid();
    let probability = at_size_of(&output, &original);
    let dir = request.out.join(folder);
    std::fs::create_dir_all(&dir).map_err(|source| Error::Write { file: dir.clone(), source })?;
    let mask: Vec<bool> = probability.iter().map(|p| f64::from(*p) >= request.threshold).collect();
    write(&dir.join("mask.png"), &overlay::mask_png(&mask, &original)?)?;
    write(&dir.join("overlay.png"), &overlay::overlay_png(&mask, &original)?)?;
    if request.save_tensors {
        let tensors = [("input".into(), image), ("output".into(), output), ("logits".into(), logits)];
        write(&dir.join("tensors.safetensors"), &weights::to_bytes(&tensors, HashMap::new())?)?;
    }
    let outcome = outcome(request, input, folder, &original, &mask, &probability);
    write(&dir.join("result.json"), &serde_json::to_vec_pretty(&outcome).unwrap_or_default())?;
    Ok(outcome)
}

/// Map 0 resized to the original's size, row by row.
fn at_size_of(output: &Tensor, original: &Rgb) -> Vec<f32> {
    let map = output.narrow(1, 0, 1);
    let size = [original.height as i64, original.width as i64];
    let map = map.upsample_bilinear2d(size, false, None, None).contiguous().view([-1]).to_device(Device::Cpu);
    Vec::<f32>::try_from(&map).unwrap_or_default()
}

fn outcome(
    request: &Request<'_>,
    input: &Path,
    folder: &str,
    original: &Rgb,
    mask: &[bool],
    probability: &[f32],
) -> Outcome {
    let lesion_pixels = mask.iter().filter(|m| **m).count() as u64;
    Outcome {
        input: input.display().to_string(),
        folder: folder.into(),
        size: [original.height, original.width],
        threshold: request.threshold,
        lesion_pixels,
        lesion_share: lesion_pixels as f64 / mask.len().max(1) as f64,
        max_probability: probability.iter().copied().fold(0.0, f32::max).into(),
    }
}

fn write(file: &Path, bytes: &[u8]) -> Result<(), Error> {
    files::replace(file, bytes).map_err(|source| Error::Write { file: file.into(), source })
}
