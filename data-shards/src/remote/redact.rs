//! Texts without credentials.
//!
//! Duty: whatever another library or a server says passes through here before it reaches a log or an error. Must not: decide
//! what is worth saying.

/// What stands for something that was taken out.
const HIDDEN: &str = "***";
/// Most characters of a foreign text that are passed on.
const LONGEST: usize = 400;

/// Credentials that must not be shown. Its `Debug` shows their number only.
#[derive(Clone, Default)]
pub(super) struct Secrets(Vec<String>);

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secrets({})", self.0.len())
    }
}

impl Secrets {
    /// Adds one. Very short ones are left to [`scrub_urls`]: to replace each `a` of a text would hide the text.
    pub(super) fn add(&mut self, secret: &str) {
        if secret.len() >= 4 {
            self.0.push(secret.to_owned());
            // The longest first, so that none leaves the rest of a longer one behind.
            self.0.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        }
    }

    /// The text, on one line, shortened, without these secrets and without what URLs in it may hide.
    pub(super) fn scrub(&self, text: &str) -> String {
        let text = self.0.iter().fold(text.to_owned(), |text, secret| text.replace(secret, HIDDEN));
        let mut shown: String =
            scrub_urls(&text).chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST).collect();
        if shown.chars().count() == LONGEST {
            shown.push('…');
        }
        shown
    }
}

/// The text with every URL in it bare of `user:password@`, query and fragment.
pub(super) fn scrub_urls(text: &str) -> String {
    let (mut shown, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once("://") {
        let end = after.find(|c: char| c.is_whitespace() || "\"'<>`".contains(c)).unwrap_or(after.len());
        let (url, behind) = after.split_at(end);
        shown.push_str(before);
        shown.push_str("://");
        shown.push_str(&bare(url));
        rest = behind;
    }
    shown.push_str(rest);
    shown
}

/// What stands behind `://`, bare.
fn bare(url: &str) -> String {
    // A password written without its escapes may hold any of `/?#`: everything up to the last `@` may be one.
    let url = url.rsplit_once('@').map_or(url, |(_, host)| host);
    match url.find(['?', '#']) {
        Some(at) => format!("{}?{HIDDEN}", url.get(..at).unwrap_or_default()),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_bare() {
        let cases = [
            ("none here", "none here"),
            ("GET http://u:p@h:1/a?X-Sig=1&b=2 failed", "GET http://h:1/a?*** failed"),
            ("\"https://u:p/w?x@h/a\", s3://b/k#f", "\"https://h/a\", s3://b/k?***"),
            ("a://b://c?d", "a://b://c?***"),
            ("://", "://"),
        ];
        for (text, expected) in cases {
            assert_eq!(scrub_urls(text), expected);
        }
    }

    #[test]
    fn secrets_are_hidden_the_longest_first() {
        let mut secrets = Secrets::default();
        ["abcd", "abcdef", "xy"].iter().for_each(|secret| secrets.add(secret));
        assert_eq!(secrets.scrub("abcdef abcd\nxy"), "*** *** xy");
        assert_eq!(secrets.scrub(&"é".repeat(500)).chars().count(), LONGEST + 1);
        assert!(!format!("{secrets:?}").contains("abcd"));
    }
}
