//! The weights that a network starts from: files of the whole network or of parts of it.

use crate::model::Store;
use crate::weights::{self, Loaded, Weights};
use crate::{Error, checkpoint};
use protocol::config::{Model, ModelKind};
use std::path::{Path, PathBuf};

/// Loads what the configuration names, the whole network first, then parts, and tells what was loaded, missing and left
/// over.
pub fn load(model: &Model, store: &Store) -> Result<(), Error> {
    let named = |file: &'_ Option<PathBuf>| file.clone().filter(|file| !file.as_os_str().is_empty());
    if let Some(file) = &named(&model.init) {
        let weights = read(file)?;
        weights::load_into(store, &weights)?;
        let copied = store.entries().len();
        report("model.init", &weights.file, &Loaded { copied, ..Loaded::default() });
    }
    let parts = [
        ("model.init_vgg", &model.init_vgg, vgg as Part),
        ("model.init_res2net", &model.init_res2net, res2net as Part),
        ("model.init_cls", &model.init_cls, res2net as Part),
    ];
    for (key, file, part) in parts {
        let Some(file) = named(file) else { continue };
        check_kind(key, model.kind)?;
        let weights = read(&file)?;
        let loaded = part(store, &weights, model.kind)?;
        if loaded.copied == 0 {
            let problem = format!("none of its tensors belongs to what {key} is for");
            return Err(weights::Error::Mismatch { file: weights.file, problem }.into());
        }
        report(key, &weights.file, &loaded);
    }
    Ok(())
}

type Part = fn(&Store, &Weights, ModelKind) -> Result<Loaded, weights::Error>;

fn read(file: &Path) -> Result<Weights, Error> {
    Ok(weights::read(&checkpoint::resolve_weights(file)?)?)
}

fn check_kind(key: &str, kind: ModelKind) -> Result<(), Error> {
    let fits = match key {
        "model.init_vgg" => kind != ModelKind::Cls,
        "model.init_res2net" => kind != ModelKind::Single,
        _ => kind == ModelKind::Joint,
    };
    if fits {
        Ok(())
    } else {
        Err(Error::Usage(format!("{key} is for another network than model.kind = {}", kind.name())))
    }
}

fn report(key: &str, file: &Path, loaded: &Loaded) {
    let (missing, left_over) = (grouped(&loaded.missing), grouped(&loaded.left_over));
    let text =
        format!("{key}: {} tensors from {}; missing: {missing}; left over: {left_over}", loaded.copied, file.display());
    if loaded.missing.is_empty() { tracing::info!("{text}") } else { tracing::warn!("{text}") }
}

/// All names, those of one layer (what stands before the last dot) in one word: `conv1_1.bn.{weight, bias}`.
fn grouped(names: &[String]) -> String {
    let mut layers: Vec<(&str, Vec<&str>)> = Vec::new();
    for name in names {
        let (layer, tensor) = name.rsplit_once('.').unwrap_or(("", name));
        match layers.last_mut().filter(|(last, _)| *last == layer) {
            Some((_, tensors)) => tensors.push(tensor),
            None => layers.push((layer, vec![tensor])),
        }
    }
    let word = |(layer, tensors): &(&str, Vec<&str>)| match (*layer, &tensors[..]) {
        ("", _) => tensors.join(", "),
        (_, [tensor]) => format!("{layer}.{tensor}"),
        _ => format!("{layer}.{{{}}}", tensors.join(", ")),
    };
    if layers.is_empty() { "nothing".to_owned() } else { layers.iter().map(word).collect::<Vec<_>>().join(", ") }
}

/// VGG-16-BN of torchvision (`features.N`), or all that a trained `single` shares with the network.
fn vgg(store: &Store, weights: &Weights, _: ModelKind) -> Result<Loaded, weights::Error> {
    weights::load_part(store, weights, "", &|name| {
        if name.starts_with("features.") {
            vgg_name(name)
        } else {
            (!name.starts_with("classifier.")).then(|| name.to_owned())
        }
    })
}

/// Place of each convolution in torchvision's sequence; its norm follows.
const VGG_CONVS: [(usize, &str); 13] = [
    (0, "conv1_1"),
    (3, "conv1_2"),
    (7, "conv2_1"),
    (10, "conv2_2"),
    (14, "conv3_1"),
    (17, "conv3_2"),
    (20, "conv3_3"),
    (24, "conv4_1"),
    (27, "conv4_2"),
    (30, "conv4_3"),
    (34, "conv5_1"),
    (37, "conv5_2"),
    (40, "conv5_3"),
];

fn vgg_name(name: &str) -> Option<String> {
    let (at, rest) = name.strip_prefix("features.")?.split_once('.')?;
    let at: usize = at.parse().ok()?;
    VGG_CONVS.iter().find_map(|(conv, block)| match at.checked_sub(*conv)? {
        0 => Some(format!("vgg16.{block}.conv.{rest}")),
        1 => Some(format!("vgg16.{block}.bn.{rest}")),
        _ => None,
    })
}

/// Res2Net-101 with its names at the root, as ImageNet's files and the classifier have it; its last layer is left over.
fn res2net(store: &Store, weights: &Weights, kind: ModelKind) -> Result<Loaded, weights::Error> {
    let scope = if kind == ModelKind::Joint { "res2net." } else { "" };
    weights::load_part(store, weights, scope, &|name| (!name.starts_with("fc.")).then(|| format!("{scope}{name}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_told() {
        let names = ["a.b.weight", "a.b.bias", "fc.weight", "x"].map(str::to_owned);
        assert_eq!(grouped(&names), "a.b.{weight, bias}, fc.weight, x");
        assert_eq!(grouped(&[]), "nothing");
    }

    #[test]
    fn torchvisions_sequence_is_understood() {
        assert_eq!(vgg_name("features.0.weight").as_deref(), Some("vgg16.conv1_1.conv.weight"));
        assert_eq!(vgg_name("features.41.running_var").as_deref(), Some("vgg16.conv5_3.bn.running_var"));
        assert_eq!(vgg_name("features.2.weight"), None);
        assert_eq!(vgg_name("features.x.weight"), None);
    }
}
