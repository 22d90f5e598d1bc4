//! Arithmetic on square fields of numbers.
//!
//! Duty: blur, detail, contrast made even, correlation, the field of the lungs. Must not: know images, pairs or thresholds.
//! A field is a slice with `side` x `side` values, row by row.

/// Gaussian blur; beyond the edges the field goes on with its edge values.
pub(crate) fn blur(field: &[f32], side: usize, sigma: f32) -> Vec<f32> {
    let kernel = kernel(sigma);
    // Each pass blurs along the rows and swaps rows and columns.
    let once = |field: &[f32]| {
        let mut out = vec![0.0; field.len()];
        for (y, row) in field.chunks_exact(side).enumerate() {
            let padded = padded(row, kernel.len() / 2);
            for (x, window) in padded.windows(kernel.len()).enumerate() {
                if let Some(out) = out.get_mut(x * side + y) {
                    *out = window.iter().zip(&kernel).map(|(value, weight)| value * weight).sum();
                }
            }
        }
        out
    };
    once(&once(field))
}

fn kernel(sigma: f32) -> Vec<f32> {
    let radius = (3.0 * sigma).ceil() as i32;
    let weights: Vec<f32> = (-radius..=radius).map(|x| (-0.5 * (x as f32 / sigma).powi(2)).exp()).collect();
    let sum: f32 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / sum).collect()
}

fn padded(row: &[f32], radius: usize) -> Vec<f32> {
    let edge = |value: Option<&f32>| std::iter::repeat_n(value.copied().unwrap_or_default(), radius);
    edge(row.first()).chain(row.iter().copied()).chain(edge(row.last())).collect()
}

/// What is finer than `sigma`.
pub(crate) fn detail(field: &[f32], side: usize, sigma: f32) -> Vec<f32> {
    field.iter().zip(blur(field, side, sigma)).map(|(value, mean)| value - mean).collect()
}

/// [`detail`] divided by its own strength nearby, so that faint vessels weigh as much as the body's outline; `floor` is the
/// strength that counts as noise.
pub(crate) fn even_detail(field: &[f32], side: usize, sigma: f32, floor: f32) -> Vec<f32> {
    let detail = detail(field, side, sigma);
    let squares: Vec<f32> = detail.iter().map(|value| value * value).collect();
    let strength = blur(&squares, side, sigma);
    detail.iter().zip(strength).map(|(value, square)| value / (square + floor * floor).sqrt()).collect()
}

/// The average of each two by two cells.
pub(crate) fn halved(field: &[f32], side: usize) -> Vec<f32> {
    let pairs = |rows: &[f32]| {
        let (upper, lower) = rows.split_at(side);
        let sums = upper.chunks_exact(2).zip(lower.chunks_exact(2));
        sums.map(|(upper, lower)| (upper.iter().sum::<f32>() + lower.iter().sum::<f32>()) / 4.0).collect::<Vec<_>>()
    };
    field.chunks_exact(2 * side).flat_map(pairs).collect()
}

/// Sum of products over the root of the sums of squares; 0 where there is nothing.
pub(crate) fn cosine(pairs: impl Iterator<Item = (f32, f32)>) -> f32 {
    let (mut product, mut first, mut second) = (0.0, 0.0, 0.0);
    for (a, b) in pairs {
        product += a * b;
        first += a * a;
        second += b * b;
    }
    let scale = (first * second).sqrt();
    if scale > 1e-12 { product / scale } else { 0.0 }
}

/// The darkness that the body encloses, made two cells wider on each side: the lungs and their rim. `field` is 0..255.
pub(crate) fn lungs(field: &[f32], side: usize) -> Vec<bool> {
    let threshold = two_classes(field);
    let dark: Vec<bool> = field.iter().map(|value| *value <= threshold).collect();
    let outside = reached_from_border(&dark, side);
    let enclosed: Vec<bool> = dark.iter().zip(outside).map(|(dark, outside)| *dark && !outside).collect();
    widened(&enclosed, side, 2)
}

/// The threshold that divides the values above the background into two classes that differ most (Otsu).
fn two_classes(field: &[f32]) -> f32 {
    const BACKGROUND: usize = 9;
    let mut counts = [0f64; 256];
    for value in field {
        if let Some(count) = counts.get_mut(value.clamp(0.0, 255.0) as usize) {
            *count += 1.0;
        }
    }
    let levels = || counts.iter().enumerate().skip(BACKGROUND);
    let (all, sum) = levels().fold((0.0, 0.0), |(n, sum), (level, count)| (n + count, sum + level as f64 * count));
    let (mut below, mut sum_below, mut best, mut threshold) = (0.0, 0.0, -1.0, 127);
    for (level, count) in levels() {
        below += count;
        sum_below += level as f64 * count;
        let above = all - below;
        if below > 0.0 && above > 0.0 {
            let between = below * above * (sum_below / below - (sum - sum_below) / above).powi(2);
            if between > best {
                (best, threshold) = (between, level);
            }
        }
    }
    // A cell belongs to the class of the whole level that it lies in.
    threshold as f32 + 1.0
}

fn reached_from_border(open: &[bool], side: usize) -> Vec<bool> {
    let mut reached = vec![false; open.len()];
    let last = side.saturating_sub(1);
    let mut next: Vec<usize> = (0..side).flat_map(|at| [at, last * side + at, at * side, at * side + last]).collect();
    while let Some(at) = next.pop() {
        let is_open = open.get(at).copied().unwrap_or(false);
        match reached.get_mut(at) {
            Some(seen) if is_open && !*seen => *seen = true,
            _ => continue,
        }
        let x = at % side;
        next.extend((x > 0).then(|| at - 1));
        next.extend((x < last).then_some(at + 1));
        next.extend(at.checked_sub(side));
        next.push(at + side);
    }
    reached
}

fn widened(marked: &[bool], side: usize, by: usize) -> Vec<bool> {
    let mut out = vec![false; marked.len()];
    for at in (0..marked.len()).filter(|at| marked.get(*at) == Some(&true)) {
        let (x, y) = (at % side, at / side);
        for row in y.saturating_sub(by)..=(y + by).min(side - 1) {
            let columns = row * side + x.saturating_sub(by)..=row * side + (x + by).min(side - 1);
            out.get_mut(columns).unwrap_or_default().fill(true);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blur_keeps_constants_and_sums() {
        assert!(blur(&[3.0; 64], 8, 2.0).iter().all(|value| (value - 3.0).abs() < 1e-5));
        let mut point = vec![0.0; 33 * 33];
        point[16 * 33 + 16] = 1.0;
        let spread = blur(&point, 33, 2.0);
        assert!((spread.iter().sum::<f32>() - 1.0).abs() < 1e-5);
        assert_eq!(spread[16 * 33 + 14], spread[14 * 33 + 16]);
    }

    #[test]
    fn the_lungs_are_the_enclosed_darkness() {
        let side = 32;
        let cell = |at: usize| match (at % side, at / side) {
            (x, y) if (10..14).contains(&x) && (10..20).contains(&y) => 20.0,
            (x, y) if (4..28).contains(&x) && (4..28).contains(&y) => 200.0,
            _ => 0.0,
        };
        let field: Vec<f32> = (0..side * side).map(cell).collect();
        let lungs = lungs(&field, side);
        assert_eq!(lungs.iter().filter(|inside| **inside).count(), 8 * 14);
        assert!(lungs[15 * side + 8] && !lungs[15 * side + 7] && !lungs[0]);
    }

    #[test]
    fn halving_averages() {
        assert_eq!(halved(&(0..16).map(|at| at as f32).collect::<Vec<_>>(), 4), [2.5, 4.5, 10.5, 12.5]);
    }
}
