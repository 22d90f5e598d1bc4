//! CT values to 8-bit grey. Pure.
//!
//! Duty: the window. Must not: know where values come from.

use std::str::FromStr;

/// A window of CT values: what lies below it is black, above it white, and linear in between.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    /// Its middle, in Hounsfield units.
    pub level: f64,
    /// Its width, in Hounsfield units; above 0.
    pub width: f64,
}

impl Window {
    /// The lung window: -1350 to 150 HU.
    pub const LUNG: Window = Window { level: -600.0, width: 1500.0 };

    /// The grey of a value: 0 at and below `level - width / 2`, 255 at and above `level + width / 2`, rounded in between;
    /// 0 for what is no number.
    pub fn grey(&self, value: f64) -> u8 {
        let share = (value - (self.level - self.width / 2.0)) / self.width;
        // Within 0..=255 by the clamp, and a cast of NaN is 0.
        (share * 255.0).round().clamp(0.0, 255.0) as u8
    }
}

impl FromStr for Window {
    type Err = String;

    fn from_str(text: &str) -> Result<Window, String> {
        let wrong =
            || format!("`{text}` is no window: expected LEVEL,WIDTH in HU with a width above 0, as in -600,1500");
        let (level, width) = text.split_once(',').ok_or_else(wrong)?;
        let number = |text: &str| text.trim().parse::<f64>().ok().filter(|n| n.abs() <= 1e6).ok_or_else(wrong);
        let window = Window { level: number(level)?, width: number(width)? };
        if window.width > 0.0 { Ok(window) } else { Err(wrong()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lung_window() {
        let window: Window = "-600,1500".parse().unwrap();
        assert_eq!(window, Window::LUNG);
        let greys = [-3000.0, -1350.0, -600.0, 149.9, 150.0, 9e9, f64::NAN, f64::NEG_INFINITY].map(|v| window.grey(v));
        assert_eq!(greys, [0, 0, 128, 255, 255, 255, 0, 0]);
    }

    #[test]
    fn only_windows_are_read() {
        for bad in ["", "1", "1,0", "1,-5", "a,b", "1,2,3", "nan,1", "0,inf"] {
            assert!(bad.parse::<Window>().is_err(), "{bad}");
        }
    }
}
