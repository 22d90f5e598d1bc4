//! Which parameter lies in which bucket, and where. Pure.

use serde::{Deserialize, Serialize};

/// What the layout needs to know of a parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<i64>,
}

impl Parameter {
    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product::<i64>() as usize
    }
}

/// Sizes at which a bucket is closed, in bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Of the first bucket, which leaves first and is small so that communication starts early.
    pub first: usize,
    /// Of the others.
    pub rest: usize,
}

/// Buckets, each a list of parameter indices (in registration order). Bucket 0 leaves first.
///
/// It fixes the order of summation, so it is part of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// Parameter indices of each bucket.
    pub buckets: Vec<Vec<usize>>,
    /// Whether it follows an order that was seen, rather than guessed.
    pub settled: bool,
}

/// Each parameter starts at a multiple of so many elements (64 bytes), as vector units like it.
const ALIGNMENT: usize = 16;

impl Layout {
    /// The guess before the first backward pass: the reverse of registration.
    pub fn guess(parameters: &[Parameter], limits: Limits) -> Layout {
        let order: Vec<usize> = (0..parameters.len()).rev().collect();
        Layout { buckets: fill(parameters, &order, limits), settled: false }
    }

    /// Buckets along the order in which gradients were seen to become ready.
    pub fn along(parameters: &[Parameter], order: &[usize], limits: Limits) -> Layout {
        Layout { buckets: fill(parameters, order, limits), settled: true }
    }

    /// Whether each of `count` parameters is in exactly one place.
    pub fn check(&self, count: usize) -> Result<(), String> {
        let mut seen = vec![false; count];
        for &p in self.buckets.iter().flatten() {
            match seen.get_mut(p) {
                None => return Err(format!("it names parameter {p} of {count}")),
                Some(true) => return Err(format!("it names parameter {p} twice")),
                Some(place) => *place = true,
            }
        }
        match seen.iter().position(|s| !s) {
            None => Ok(()),
            Some(p) => Err(format!("it lacks parameter {p}")),
        }
    }

    /// Offset of each parameter within a bucket, in elements, and the bucket's length.
    pub fn offsets(&self, bucket: usize, parameters: &[Parameter]) -> (Vec<usize>, usize) {
        let mut end = 0;
        let offsets = self.buckets[bucket]
            .iter()
            .map(|&p| {
                let start = end;
                end += parameters[p].elements().next_multiple_of(ALIGNMENT);
                start
            })
            .collect();
        (offsets, end)
    }
}

fn fill(parameters: &[Parameter], order: &[usize], limits: Limits) -> Vec<Vec<usize>> {
    let mut buckets: Vec<Vec<usize>> = Vec::new();
    let mut open: Vec<usize> = Vec::new();
    let mut bytes = 0;
    for &p in order {
        open.push(p);
        bytes += 4 * parameters[p].elements();
        let limit = if buckets.is_empty() { limits.first } else { limits.rest };
        if bytes >= limit {
            buckets.push(std::mem::take(&mut open));
            bytes = 0;
        }
    }
    if !open.is_empty() {
        buckets.push(open);
    }
    buckets
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(sizes: &[i64]) -> Vec<Parameter> {
        sizes.iter().enumerate().map(|(i, n)| Parameter { name: format!("p{i}"), shape: vec![*n] }).collect()
    }

    #[test]
    fn the_first_bucket_is_small_and_the_order_reversed() {
        let p = parameters(&[10, 10, 10, 10, 10]);
        let layout = Layout::guess(&p, Limits { first: 40, rest: 80 });
        assert_eq!(layout.buckets, [vec![4], vec![3, 2], vec![1, 0]]);
        assert_eq!(layout.check(5), Ok(()));
    }

    #[test]
    fn a_large_parameter_closes_its_bucket() {
        let p = parameters(&[1000, 1, 1]);
        let layout = Layout::along(&p, &[1, 0, 2], Limits { first: 1, rest: 8 });
        assert_eq!(layout.buckets, [vec![1], vec![0], vec![2]]);
    }

    #[test]
    fn parameters_start_at_aligned_offsets() {
        let p = parameters(&[3, 17, 5]);
        let layout = Layout::along(&p, &[0, 1, 2], Limits { first: 1 << 20, rest: 1 << 20 });
        assert_eq!(layout.offsets(0, &p), (vec![0, 16, 48], 64));
    }

    #[test]
    fn a_layout_of_other_parameters_is_refused() {
        let layout =
            |buckets: &[&[usize]]| Layout { buckets: buckets.iter().map(|b| b.to_vec()).collect(), settled: true };
        assert_eq!(layout(&[&[0], &[2]]).check(2).unwrap_err(), "it names parameter 2 of 2");
        assert_eq!(layout(&[&[0], &[0, 1]]).check(2).unwrap_err(), "it names parameter 0 twice");
        assert_eq!(layout(&[&[1]]).check(2).unwrap_err(), "it lacks parameter 0");
    }
}
