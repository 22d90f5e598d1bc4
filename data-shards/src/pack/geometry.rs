//! Where voxels lie in space. Pure.
//!
//! Duty: affine maps from voxels to millimetres (x to the patient's left-to-right: RAS, as NIfTI has it), and the view of a
//! volume as radiology shows it. Must not: hold voxels.

/// A map from voxel (i, j, k) to RAS millimetres.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Affine(pub(crate) [[f64; 4]; 3]);

impl Affine {
    /// From columns: the steps of the three axes, and where voxel (0, 0, 0) is.
    pub(crate) fn new(steps: [[f64; 3]; 3], origin: [f64; 3]) -> Affine {
        Affine(std::array::from_fn(|row| [steps[0][row], steps[1][row], steps[2][row], origin[row]]))
    }

    /// The point of a voxel, which may lie between voxels.
    pub(crate) fn apply(&self, voxel: [f64; 3]) -> [f64; 3] {
        self.0.map(|[a, b, c, d]| a * voxel[0] + b * voxel[1] + c * voxel[2] + d)
    }

    /// The step of an axis.
    pub(crate) fn step(&self, axis: usize) -> [f64; 3] {
        self.0.map(|row| row.get(axis).copied().unwrap_or_default())
    }

    /// The map back; none where the axes do not span space, or numbers are none.
    pub(crate) fn inverse(&self) -> Option<Affine> {
        let [a, b, c] = [0, 1, 2].map(|axis| self.step(axis));
        let det = dot(a, cross(b, c));
        // Relative to the axes' lengths: voxels of any size may do.
        let size = length(a) * length(b) * length(c);
        if !det.is_finite() || !size.is_finite() || det.abs() <= 1e-6 * size {
            return None;
        }
        let rows = [cross(b, c), cross(c, a), cross(a, b)].map(|row| row.map(|part| part / det));
        let origin = self.0.map(|row| row[3]);
        let inverse = Affine(rows.map(|row| [row[0], row[1], row[2], -dot(row, origin)]));
        inverse.0.iter().flatten().all(|part| part.is_finite()).then_some(inverse)
    }
}

pub(crate) fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

pub(crate) fn cross(a: [f64; 3], b: [f64; 3]) -> [f64; 3] {
    [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
}

pub(crate) fn length(a: [f64; 3]) -> f64 {
    dot(a, a).sqrt()
}

/// A volume seen in axial slices: columns run to the patient's left, rows to the back, slices to the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct View {
    /// Columns, rows, slices.
    pub(crate) size: [usize; 3],
    /// The voxel axis of columns, rows and slices.
    pub(crate) axis: [usize; 3],
    /// Whether it runs the other way.
    flip: [bool; 3],
}

/// Which way columns, rows and slices run in RAS.
const WAYS: [[f64; 3]; 3] = [[-1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, 1.0]];
const PERMUTATIONS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

impl View {
    /// The view whose ways are nearest to the volume's own axes; voxels are never interpolated.
    pub(crate) fn axial(affine: &Affine, dims: [usize; 3]) -> View {
        Self::nearest(affine, dims, &PERMUTATIONS)
    }

    /// As [`Self::axial`], of a single slice that stays one: only its rows and columns may change places.
    pub(crate) fn of_slice(affine: &Affine, columns: usize, rows: usize) -> View {
        Self::nearest(affine, [columns, rows, 1], &[[0, 1, 2], [1, 0, 2]])
    }

    fn nearest(affine: &Affine, dims: [usize; 3], permutations: &[[usize; 3]]) -> View {
        let along = |way: usize, axis: usize| {
            let step = affine.step(axis);
            dot(step, WAYS[way]) / length(step).max(f64::MIN_POSITIVE)
        };
        let fit = |axis: &[usize; 3]| -> f64 { (0..3).map(|way| along(way, axis[way]).abs()).sum() };
        let better = |best: [usize; 3], next: &[usize; 3]| if fit(next) > fit(&best) + 1e-9 { *next } else { best };
        let axis = permutations.iter().fold([0, 1, 2], better);
        let flip = std::array::from_fn(|way| along(way, axis[way]) < 0.0);
        View { size: axis.map(|axis| dims[axis]), axis, flip }
    }

    /// The voxel at a column, row and slice.
    pub(crate) fn voxel(&self, place: [usize; 3]) -> [usize; 3] {
        let mut voxel = [0; 3];
        for way in 0..3 {
            let last = self.size[way].saturating_sub(1);
            voxel[self.axis[way]] = if self.flip[way] { last.saturating_sub(place[way]) } else { place[way] };
        }
        voxel
    }

    /// The voxels of a slice, row after row.
    pub(crate) fn voxels(&self, slice: usize) -> impl Iterator<Item = [usize; 3]> + '_ {
        let [columns, rows, _] = self.size;
        (0..rows).flat_map(move |row| (0..columns).map(move |column| self.voxel([column, row, slice])))
    }

    /// Millimetres between columns, rows and slices.
    pub(crate) fn spacing(&self, affine: &Affine) -> [f64; 3] {
        self.axis.map(|axis| length(affine.step(axis)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inverse_leads_back() {
        let affine = Affine([[-0.7, 0.1, 0.0, 170.0], [0.05, 0.0, 2.5, -3.0], [0.0, 0.9, 0.2, 40.0]]);
        let back = affine.inverse().unwrap().apply(affine.apply([3.0, 4.0, 5.0]));
        assert!(back.iter().zip([3.0, 4.0, 5.0]).all(|(a, b)| (a - b).abs() < 1e-9), "{back:?}");
        assert!(Affine([[1.0, 2.0, 0.0, 0.0], [1.0, 2.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]).inverse().is_none());
        assert!(Affine([[f64::NAN; 4]; 3]).inverse().is_none());
        assert!(Affine([[0.0; 4]; 3]).inverse().is_none());
    }

    #[test]
    fn volumes_are_seen_as_radiology_shows_them() {
        // Stored the way it is shown: x to the left, y to the back.
        let lps = Affine([[-1.0, 0.0, 0.0, 0.0], [0.0, -1.0, 0.0, 0.0], [0.0, 0.0, 3.0, 0.0]]);
        let view = View::axial(&lps, [10, 20, 30]);
        assert_eq!((view.size, view.voxel([1, 2, 3])), ([10, 20, 30], [1, 2, 3]));
        assert_eq!(view.spacing(&lps), [1.0, 1.0, 3.0]);
        let ras = Affine([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]);
        assert_eq!(View::axial(&ras, [10, 20, 30]).voxel([1, 2, 3]), [8, 17, 3]);
        // Sagittal: voxel axes run to the back, to the feet and to the right.
        let sagittal = Affine([[0.0, 0.0, 1.0, 0.0], [-1.0, 0.0, 0.0, 0.0], [0.0, -1.0, 0.0, 0.0]]);
        let view = View::axial(&sagittal, [10, 20, 30]);
        assert_eq!((view.size, view.voxel([1, 2, 3])), ([30, 10, 20], [2, 16, 28]));
    }
}
