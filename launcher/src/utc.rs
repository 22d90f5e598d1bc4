//! Time stamps for log lines. Pure but for [`now`].

use std::time::{SystemTime, UNIX_EPOCH};

/// The present, as [`stamp`] writes it.
pub fn now() -> String {
    stamp(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64)
}

/// Milliseconds since 1970 as `2025-11-22T09:53:07.120Z`.
pub fn stamp(millis: u64) -> String {
    let (seconds, ms) = (millis / 1000, millis % 1000);
    let (y, m, d) = civil(seconds / 86_400);
    let s = seconds % 86_400;
    format!("{y:04}-{m:02}-{d:02}T{:02}:{:02}:{:02}.{ms:03}Z", s / 3600, s / 60 % 60, s % 60)
}

/// Year, month and day of a day counted from 1970-01-01 (Howard Hinnant, `civil_from_days`).
fn civil(days: u64) -> (u64, u64, u64) {
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let mp = (5 * day_of_year + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day_of_year - (153 * mp + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    #[test]
    fn stamps_agree_with_date() {
        // date -u -d @951782400; date -u -d @1763805187
        assert_eq!(super::stamp(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(super::stamp(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(super::stamp(1_763_805_187_120), "2025-11-22T09:53:07.120Z");
    }
}
