//! Where a data set is: a directory of this machine, or a URL.
//!
//! Duty: to understand what a user wrote, and to show it without credentials. Must not: do I/O.

use std::fmt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use url::Url;

use super::Error;
use super::redact::scrub_urls;
use crate::hex;

/// A directory or file, or the URL of a directory. `Display` and `Debug` show no password, query or fragment.
#[derive(Clone, PartialEq, Eq)]
pub struct Location(Place);

#[derive(Clone, PartialEq, Eq)]
pub(super) enum Place {
    Local(PathBuf),
    /// Without a slash at the end of its path.
    Http(Url),
    /// `prefix` has no slash at either end, and may be empty.
    S3 {
        bucket: String,
        prefix: String,
    },
}

impl Location {
    /// Understands a path, or a `file://`, `http://`, `https://` or `s3://` URL. Whatever has no `://` is a path.
    ///
    /// # Errors
    /// [`Error::Url`] for another scheme, and for a URL that is none.
    pub fn parse(text: &str) -> Result<Location, Error> {
        if !text.contains("://") {
            return Ok(Location(Place::Local(PathBuf::from(text))));
        }
        let failed = |problem: String| Error::Url { url: scrub_urls(text), problem };
        let mut url = Url::parse(text).map_err(|error| failed(format!("no URL that can be understood: {error}")))?;
        url.set_fragment(None);
        let place = match url.scheme() {
            "file" => local(&url).ok_or_else(|| failed("expected file:///PATH".to_owned())),
            "http" | "https" => {
                let path = url.path().trim_end_matches('/').to_owned();
                url.set_path(&path);
                Ok(Place::Http(url))
            }
            "s3" => s3(&url).map_err(failed),
            other => Err(failed(format!("`{other}://` is not supported: use file://, http://, https:// or s3://"))),
        };
        place.map(Location)
    }

    /// Whether it has to be fetched.
    pub fn is_remote(&self) -> bool {
        self.local().is_none()
    }

    /// The directory, where it is on this machine.
    pub fn local(&self) -> Option<&Path> {
        match &self.0 {
            Place::Local(path) => Some(path),
            Place::Http(_) | Place::S3 { .. } => None,
        }
    }

    /// A file or directory in it.
    ///
    /// # Errors
    /// [`Error::Name`] where `name` is not one plain name.
    pub fn join(&self, name: &str) -> Result<Location, Error> {
        check_name(name)?;
        Ok(Location(match &self.0 {
            Place::Local(path) => Place::Local(path.join(name)),
            Place::Http(url) => {
                let mut url = url.clone();
                let path = format!("{}/{name}", url.path().trim_end_matches('/'));
                url.set_path(&path);
                Place::Http(url)
            }
            Place::S3 { bucket, prefix } => {
                let prefix = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") };
                Place::S3 { bucket: bucket.clone(), prefix }
            }
        }))
    }

    pub(super) fn place(&self) -> &Place {
        &self.0
    }

    /// What stands behind the `?`. May hold credentials.
    pub(super) fn query(&self) -> &str {
        match &self.0 {
            Place::Http(url) => url.query().unwrap_or_default(),
            Place::Local(_) | Place::S3 { .. } => "",
        }
    }

    /// Name of its directory in a cache: readable, and another one for each other location. Credentials and queries do not
    /// count, because signatures change from day to day. `endpoint`: the server where the URL does not say it.
    pub(super) fn cache_name(&self, endpoint: &str) -> String {
        let identity = match &self.0 {
            Place::Local(path) => path.display().to_string(),
            Place::Http(url) => {
                let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
                format!("{}://{}{port}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
            }
            Place::S3 { bucket, prefix } => format!("s3 {endpoint} {bucket} {prefix}"),
        };
        let digest: String = hex(&Sha256::digest(identity.as_bytes())).chars().take(24).collect();
        let last = identity.rsplit(['/', ' ']).find(|part| !part.is_empty()).unwrap_or_default();
        let shown: String =
            last.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-' || *c == '_').take(40).collect();
        format!("{shown}.{digest}")
    }
}

impl Default for Location {
    /// The working directory.
    fn default() -> Location {
        Location::from(PathBuf::new())
    }
}

impl From<PathBuf> for Location {
    /// A directory or file of this machine, whatever its name looks like.
    fn from(path: PathBuf) -> Location {
        Location(Place::Local(path))
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::Local(path) => write!(f, "{}", path.display()),
            Place::Http(url) => f.write_str(&scrub_urls(url.as_str())),
            Place::S3 { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            Place::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Location({self})")
    }
}

fn local(url: &Url) -> Option<Place> {
    url.to_file_path().ok().map(Place::Local)
}

fn s3(url: &Url) -> Result<Place, String> {
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
        return Err(
            "an s3:// URL has no user, password or query: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY".to_owned()
        );
    }
    let bucket = url.host_str().filter(|bucket| !bucket.is_empty()).ok_or("expected s3://BUCKET/PREFIX")?.to_owned();
    let path = object_store::path::Path::from_url_path(url.path()).map_err(|error| error.to_string())?;
    Ok(Place::S3 { bucket, prefix: path.as_ref().to_owned() })
}

/// Names that may stand in an index, in a URL and in a file system alike.
pub(super) fn check_name(name: &str) -> Result<(), Error> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if !name.is_empty() && name.len() <= 128 && !name.starts_with('.') && name.chars().all(plain) {
        return Ok(());
    }
    Err(Error::Name { name: name.chars().take(80).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        Location::parse(text).map_or_else(|error| format!("! {error}"), |location| location.to_string())
    }

    #[test]
    fn what_users_write() {
        for (text, expected) in [
            ("runs/data", "runs/data"),
            ("a:b", "a:b"),
            ("file:///x/a%20b/", "/x/a b/"),
            ("file://localhost/x", "/x"),
            ("HTTPS://Host:443/a//", "https://host/a"),
            ("http://me:pass@h:81/a/?sig=1#x", "http://h:81/a?***"),
            ("s3://bucket", "s3://bucket"),
            ("s3://bucket/a/b%20c/", "s3://bucket/a/b c"),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
        for (text, problem) in [
            ("gs://b/k", "`gs://` is not supported"),
            ("file://host/x", "file:///PATH"),
            ("http://u:secret@:x/", "no URL"),
            ("s3://key:secret@b/k", "AWS_SECRET_ACCESS_KEY"),
            ("s3:///k", "s3://BUCKET/PREFIX"),
        ] {
            let shown = shown(text);
            assert!(shown.starts_with('!') && shown.contains(problem) && !shown.contains("secret@"), "{shown}");
        }
    }

    #[test]
    fn places_in_it() {
        let join = |text: &str, name: &str| Location::parse(text).unwrap().join(name);
        assert_eq!(join("s3://b", "x.tar").unwrap().to_string(), "s3://b/x.tar");
        assert_eq!(join("http://h", "x.tar").unwrap().to_string(), "http://h/x.tar");
        assert_eq!(join("http://h/a?sig=1", "x.tar").unwrap().to_string(), "http://h/a/x.tar?***");
        for name in ["", "..", ".a", "a/b", "a b", "ä", "a\n", &"x".repeat(129)] {
            assert!(matches!(join("d", name), Err(Error::Name { .. })), "{name}");
        }
    }

    #[test]
    fn each_location_has_a_cache_of_its_own() {
        let name = |text: &str, endpoint: &str| Location::parse(text).unwrap().cache_name(endpoint);
        assert_eq!(name("http://u:p@h/a?x", ""), name("http://h/a", ""));
        assert!(name("http://h/data", "").starts_with("data."));
        let names = [
            name("http://h/a", ""),
            name("http://h:81/a", ""),
            name("https://h/a", ""),
            name("http://h/a/a", ""),
            name("s3://h/a", ""),
            name("s3://h/a", "http://x"),
        ];
        let different: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(different.len(), names.len());
    }
}
