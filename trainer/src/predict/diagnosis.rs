//! COVID-19 or not, and what speaks for it: the classifier's part of a result.

use super::{Files, overlay};
use crate::error::Error;
use crate::model::grad_cam;
use crate::network::{Description, Input, Network, Output};
use data_shards::decode::Rgb;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// A class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Class {
    /// Index 1 of the network's classes.
    #[serde(rename = "COVID-19")]
    Covid,
    /// Index 0.
    #[serde(rename = "no COVID-19")]
    Other,
}

impl Class {
    /// As it is written everywhere.
    pub fn name(self) -> &'static str {
        match self {
            Class::Covid => "COVID-19",
            Class::Other => "no COVID-19",
        }
    }
}

/// What the classifier says about an input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// The likelier class.
    pub class: Class,
    /// Probability of COVID-19.
    pub covid_probability: f64,
}

/// Writes `attention.png`, and returns the class. `image` is `(1, 3, H, W)`.
pub(super) fn diagnose(
    (network, description): (&Network, &Description),
    image: Tensor,
    original: &Rgb,
    files: &mut Files,
) -> Result<Diagnosis, Error> {
    let output = tch::no_grad(|| network.forward(&Input::Images(image.shallow_clone())));
    let Output::Classes { logits, activation } = output else {
        return Err(Error::Usage(format!("a network of kind {} puts out no classes", description.kind.name())));
    };
    let logits = logits.to_kind(Kind::Float);
    let probabilities = logits.softmax(-1, Kind::Float);
    let covid_probability = probabilities.double_value(&[0, 1]);
    // Grad-CAM of the logit of COVID-19: the map that speaks for it, and where it is negative nothing does.
    let attention = grad_cam(&activation.to_kind(Kind::Float));
    let seen = description.geometry().view((original.height, original.width));
    let heat = super::resized(&attention.unsqueeze(1), [seen.height as i64, seen.width as i64]);
    files.write("attention.png", &overlay::attention_png(&heat, seen, original)?)?;
    files.keep([("cls_input", image), ("cls_output", probabilities), ("cls_logits", logits), ("attention", attention)]);
    let class = if covid_probability > 0.5 { Class::Covid } else { Class::Other };
    Ok(Diagnosis { class, covid_probability })
}
