//! What a file is, by its name, and where that says nothing by how it begins.
//!
//! Duty: telling kinds apart. Must not: decode.

use std::path::Path;

use super::{dicom, nifti};
use crate::pack::Format;

/// A kind of file that can be packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Image,
    Dicom,
    Nifti,
    Mat,
}

impl Kind {
    pub(crate) fn of(path: &Path) -> Option<Kind> {
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        match extension.as_str() {
            "png" | "jpg" | "jpeg" => Some(Kind::Image),
            "mat" => Some(Kind::Mat),
            "dcm" | "dicom" => Some(Kind::Dicom),
            _ if nifti::is_nifti(path) => Some(Kind::Nifti),
            "csv" | "txt" | "json" | "md" | "pdf" | "xlsx" | "zip" | "gz" | "tar" => None,
            // Scanners give names like `IM0001`, `I.17` or bare UIDs.
            _ => dicom::is_dicom(path).then_some(Kind::Dicom),
        }
    }

    /// What the kind is called on the command line.
    pub(crate) fn format(self) -> Format {
        match self {
            Kind::Image => Format::Folder,
            Kind::Dicom => Format::Dicom,
            Kind::Nifti => Format::Nifti,
            Kind::Mat => Format::Mat,
        }
    }
}
