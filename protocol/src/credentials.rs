//! Texts for people that may hold a URL.
//!
//! Duty: to take out of URLs what may be a secret. Must not: change what programs read.

/// The text with `***` in place of `user:password@` and of the query of every URL in it.
pub fn without_credentials(text: &str) -> String {
    let mut parts = text.split("://");
    let mut shown = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| c.is_whitespace() || "\"'<>`".contains(c)).unwrap_or(part.len());
        let (url, behind) = part.split_at(end);
        // A password may hold any of `/?#`: up to the last `@` everything may be one.
        let (user, place) = url.rsplit_once('@').map_or(("", url), |(_, place)| ("***@", place));
        let (path, query) = place.split_once('?').map_or((place, ""), |(path, _)| (path, "?***"));
        shown.extend(["://", user, path, query, behind]);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_have_no_secrets() {
        for (text, expected) in [
            ("none, a@b?c", "none, a@b?c"),
            ("data.train=https://me:pa/s?s@h:81/x data.size=3", "data.train=https://***@h:81/x data.size=3"),
            ("'http://h/x?X-Signature=1&b', s3://b/k", "'http://h/x?***', s3://b/k"),
        ] {
            assert_eq!(without_credentials(text), expected);
        }
    }
}
