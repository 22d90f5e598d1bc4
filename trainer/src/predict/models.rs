//! The networks that predict, by what their files hold.

use crate::error::Error;
use crate::network::{Description, Network};
use crate::{checkpoint, weights};
use protocol::config::ModelKind;
use std::path::Path;
use tch::Device;

/// A network with what its file says about it.
pub(super) struct Loaded {
    pub(super) network: Network,
    pub(super) description: Description,
}

/// One network or both; never none.
pub(super) struct Models {
    /// `single` or `joint`.
    pub(super) segmenter: Option<Loaded>,
    /// `cls`.
    pub(super) classifier: Option<Loaded>,
}

impl Models {
    /// `weights` may hold either network, `cls_weights` a classifier beside it.
    pub(super) fn load(weights: &Path, cls_weights: Option<&Path>, device: Device) -> Result<Models, Error> {
        let first = load(weights, device)?;
        let second = cls_weights.map(|path| load(path, device)).transpose()?;
        let is_classifier = |loaded: &Loaded| loaded.description.kind == ModelKind::Cls;
        let refused = |path: &Path, problem: &str| Err(Error::Usage(format!("{} {problem}", path.display())));
        match (cls_weights, second) {
            (Some(path), Some(second)) if !is_classifier(&second) => {
                refused(path, "holds no classifier: --cls-weights takes weights of model.kind = cls")
            }
            (Some(_), Some(_)) if is_classifier(&first) => refused(
                weights,
                "holds a classifier, as --cls-weights does: --weights takes the segmentation beside it",
            ),
            (_, None) if is_classifier(&first) => Ok(Models { segmenter: None, classifier: Some(first) }),
            (_, classifier) => Ok(Models { segmenter: Some(first), classifier }),
        }
    }
}

fn load(path: &Path, device: Device) -> Result<Loaded, Error> {
    let file = checkpoint::resolve_weights(path)?;
    let (network, description) = Network::from_weights(&weights::read(&file)?, device)?;
    if !description.assumed.is_empty() {
        tracing::warn!("{} does not say, so assumed: {}", file.display(), description.assumed.join(", "));
    }
    if description.from_features {
        let problem = "was trained on features and takes no images: use jcs eval";
        return Err(Error::Usage(format!("{} {problem}", file.display())));
    }
    Ok(Loaded { network, description })
}
