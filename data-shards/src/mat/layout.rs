//! From column-major to row-major.
//!
//! Duty: turn the order of the axes round, tile by tile, so that neither side strides through memory alone. Must not:
//! know where the values came from.

use std::collections::TryReserveError;

/// Values a side of a tile.
const TILE: usize = 32;

/// The same array with its last dimension running fastest, where `source` has the first one so. `source` has as many
/// values as `shape` says.
pub(super) fn row_major<T: Copy + Default>(source: Vec<T>, shape: &[usize]) -> Result<Vec<T>, TryReserveError> {
    // Dimensions of 1 move nothing.
    let shape: Vec<usize> = shape.iter().copied().filter(|&size| size != 1).collect();
    let [rows, middle @ .., columns] = &shape[..] else { return Ok(source) };
    if source.is_empty() {
        return Ok(source);
    }
    let mut target = Vec::new();
    target.try_reserve_exact(source.len())?;
    target.resize(source.len(), T::default());
    let plane =
        Plane { rows: *rows, columns: *columns, apart: source.len() / rows, from_apart: source.len() / columns };
    for at in 0..middle.iter().product() {
        plane.transpose(&source, at * rows, &mut target, turned(at, middle) * columns);
    }
    Ok(target)
}

/// Where the index `at`, counted with the first dimension fastest, stands with the last one fastest.
fn turned(mut at: usize, shape: &[usize]) -> usize {
    shape.iter().fold(0, |turned, &size| {
        let index = at % size;
        at /= size;
        turned * size + index
    })
}

/// The first and the last dimension of an array, at one index of those between.
struct Plane {
    rows: usize,
    columns: usize,
    /// Between two rows in the target; its columns are neighbours.
    apart: usize,
    /// Between two columns in the source; its rows are neighbours.
    from_apart: usize,
}

impl Plane {
    fn transpose<T: Copy>(&self, source: &[T], from: usize, target: &mut [T], to: usize) {
        for top in (0..self.rows).step_by(TILE) {
            for left in (0..self.columns).step_by(TILE) {
                let width = TILE.min(self.columns - left);
                for row in top..self.rows.min(top + TILE) {
                    let read = source[from + left * self.from_apart + row..].iter().step_by(self.from_apart);
                    let written = &mut target[to + row * self.apart + left..][..width];
                    written.iter_mut().zip(read).for_each(|(written, read)| *written = *read);
                }
            }
        }
    }
}
