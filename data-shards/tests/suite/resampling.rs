//! The resize against OpenCV's.

use data_shards::decode::{Mask, Rgb};
use data_shards::resize::{Rect, bilinear, nearest};

/// `a = np.array([[0, .1, .4, .9], [1, .5, .2, .3], [.6, .8, .7, 0]], np.float32)`
const SOURCE: [f32; 12] = [0.0, 0.1, 0.4, 0.9, 1.0, 0.5, 0.2, 0.3, 0.6, 0.8, 0.7, 0.0];

/// The channels hold x, 1 - x and x / 2.
fn source() -> Rgb {
    Rgb { width: 4, height: 3, data: SOURCE.iter().flat_map(|&x| [x, 1.0 - x, 0.5 * x]).collect() }
}

fn assert_resized(height: usize, width: usize, expected: &[f32]) {
    let out = bilinear(&source(), Rect::whole(4, 3), height, width);
    assert_eq!((out.height, out.width, out.data.len()), (height, width, expected.len() * 3));
    for (pixel, &x) in out.data.chunks_exact(3).zip(expected) {
        for (got, want) in pixel.iter().zip([x, 1.0 - x, 0.5 * x]) {
            assert!((got - want).abs() < 1e-6, "{got} is not {want}");
        }
    }
}

#[test]
fn bilinear_is_opencvs() {
    // cv2.resize(a, (6, 5), interpolation=cv2.INTER_LINEAR), OpenCV 4
    let larger = [
        0.0, 0.05, 0.15, 0.35, 0.65, 0.9, 0.4, 0.33, 0.27, 0.31, 0.49, 0.66, 1.0, 0.75, 0.45, 0.25, 0.25, 0.3, 0.76,
        0.72, 0.65, 0.53, 0.31, 0.12, 0.6, 0.7, 0.78333336, 0.71666664, 0.35, 0.0,
    ];
    assert_resized(5, 6, &larger);
    // cv2.resize(a, (3, 2), interpolation=cv2.INTER_LINEAR)
    assert_resized(2, 3, &[0.24166667, 0.275, 0.68333334, 0.704_166_7, 0.65, 0.15833333]);
    // cv2.resize(a, (2, 5), interpolation=cv2.INTER_LINEAR)
    assert_resized(5, 2, &[0.05, 0.65, 0.33, 0.49, 0.75, 0.25, 0.72, 0.31, 0.7, 0.35]);
}

#[test]
fn the_same_size_is_the_identity_and_a_rect_clamps_at_its_own_edge() {
    assert_eq!(bilinear(&source(), Rect::whole(4, 3), 3, 4), source());
    let rect = Rect { left: 1, top: 1, width: 2, height: 1 };
    let out = bilinear(&source(), rect, 2, 4);
    let reds: Vec<f32> = out.data.chunks_exact(3).map(|pixel| pixel[0]).collect();
    // cv2.resize(a[1:2, 1:3], (4, 2), interpolation=cv2.INTER_LINEAR)
    for (got, want) in reds.iter().zip([0.5, 0.425, 0.275, 0.2].repeat(2)) {
        assert!((got - want).abs() < 1e-6, "{reds:?}");
    }
}

#[test]
fn nearest_takes_the_floor() {
    let mask = Mask { width: 5, height: 2, data: vec![0, 1, 2, 3, 4, 5, 6, 7, 8, 9] };
    // floor(dst * 5 / 3) = 0, 1, 3
    assert_eq!(nearest(&mask, Rect::whole(5, 2), 1, 3), [0, 1, 3]);
    assert_eq!(nearest(&mask, Rect::whole(5, 2), 4, 2), [0, 2, 0, 2, 5, 7, 5, 7]);
    assert_eq!(nearest(&mask, Rect { left: 1, top: 1, width: 2, height: 1 }, 1, 4), [6, 6, 7, 7]);
}
