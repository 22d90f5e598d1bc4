//! Prediction on image files: diagnosis, attention, lesions, and a report of all of them.

mod diagnosis;
mod lesions;
mod models;
mod overlay;
mod report;

pub use diagnosis::{Class, Diagnosis};
pub use lesions::Lesions;

use crate::error::Error;
use crate::{files, weights};
use data_shards::decode::Rgb;
use models::{Loaded, Models};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use tch::{Device, Tensor};

/// What to predict, with what, to where.
pub struct Request<'a> {
    /// A run, a checkpoint or a weights file, of any network.
    pub weights: &'a Path,
    /// The same of a classifier beside a segmentation network.
    pub cls_weights: Option<&'a Path>,
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The input, as given.
    pub input: String,
    /// Folder of this input's files, below the output folder.
    pub folder: String,
    /// Height and width of the input, in pixels.
    pub size: [usize; 2],
    /// What the segmentation says, where there is one.
    #[serde(flatten)]
    pub lesions: Option<Lesions>,
    /// What the classifier says, where there is one.
    #[serde(flatten)]
    pub diagnosis: Option<Diagnosis>,
}

const IMAGE_ENDINGS: [&str; 3] = ["png", "jpg", "jpeg"];

/// Predicts this worker's part of the inputs, and returns the outcomes.
pub fn predict(request: &Request<'_>, show: &mut dyn FnMut(u64, u64)) -> Result<Vec<Outcome>, Error> {
    let inputs = named(expand(request.inputs)?);
    let models = Models::load(request.weights, request.cls_weights, request.device)?;
    std::fs::create_dir_all(request.out).map_err(|source| Error::Output { file: request.out.into(), source })?;
    let mine: Vec<_> = inputs.iter().skip(request.part.0).step_by(request.part.1).collect();
    let mut outcomes = Vec::with_capacity(mine.len());
    for (input, folder) in &mine {
        outcomes.push(predict_one(request, &models, input, folder)?);
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
pub fn write_report(request: &Request<'_>, outcomes: &[Outcome]) -> Result<(), Error> {
    let weights: Vec<String> =
        [Some(request.weights), request.cls_weights].iter().flatten().map(|path| path.display().to_string()).collect();
    write(&request.out.join("predictions.csv"), report::csv(outcomes).as_bytes())?;
    write(&request.out.join("report.html"), report::html(outcomes, &weights.join(", ")).as_bytes())
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

fn predict_one(request: &Request<'_>, models: &Models, input: &Path, folder: &str) -> Result<Outcome, Error> {
    let mut files = Files::new(request, folder)?;
    let mut size = [0, 0];
    let mut seen_by = |loaded: &Loaded| -> Result<(Tensor, Rgb), Error> {
        let (pixels, original) = data_shards::load_image(input, &loaded.description.geometry())?;
        let (h, w) = loaded.description.size;
        size = [original.height, original.width];
        Ok((Tensor::from_slice(&pixels).view([1, 3, h as i64, w as i64]).to_device(request.device), original))
    };
    let mut lesions = None;
    if let Some(segmenter) = &models.segmenter {
        let (image, original) = seen_by(segmenter)?;
        let network = (&segmenter.network, &segmenter.description);
        lesions = Some(lesions::find(request, network, image, &original, &mut files)?);
    }
    let mut diagnosis = None;
    if let Some(classifier) = &models.classifier {
        let (image, original) = seen_by(classifier)?;
        let network = (&classifier.network, &classifier.description);
        diagnosis = Some(diagnosis::diagnose(network, image, &original, &mut files)?);
    }
    let outcome = Outcome { input: input.display().to_string(), folder: folder.into(), size, lesions, diagnosis };
    files.write("result.json", &serde_json::to_vec_pretty(&outcome).unwrap_or_default())?;
    files.finish(request.save_tensors)?;
    Ok(outcome)
}

/// The files of one input.
struct Files {
    dir: PathBuf,
    tensors: Vec<(String, Tensor)>,
}

impl Files {
    fn new(request: &Request<'_>, folder: &str) -> Result<Files, Error> {
        let dir = request.out.join(folder);
        std::fs::create_dir_all(&dir).map_err(|source| Error::Write { file: dir.clone(), source })?;
        Ok(Files { dir, tensors: Vec::new() })
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        write(&self.dir.join(name), bytes)
    }

    /// For `tensors.safetensors`. A classifier alone has the plain names.
    fn keep<const N: usize>(&mut self, tensors: [(&str, Tensor); N]) {
        let alone = self.tensors.is_empty();
        let name = |name: &str| name.strip_prefix("cls_").filter(|_| alone).unwrap_or(name).to_owned();
        self.tensors.extend(tensors.map(|(key, tensor)| (name(key), tensor)));
    }

    fn finish(self, save_tensors: bool) -> Result<(), Error> {
        if !save_tensors {
            return Ok(());
        }
        self.write("tensors.safetensors", &weights::to_bytes(&self.tensors, HashMap::new())?)
    }
}

/// A map `(1, 1, h, w)` resized, row by row.
fn resized(map: &Tensor, size: [i64; 2]) -> Vec<f32> {
    let map = map.upsample_bilinear2d(size, false, None, None).contiguous().view([-1]).to_device(Device::Cpu);
    Vec::<f32>::try_from(&map).unwrap_or_default()
}

fn write(file: &Path, bytes: &[u8]) -> Result<(), Error> {
    files::replace(file, bytes).map_err(|source| Error::Write { file: file.into(), source })
}
