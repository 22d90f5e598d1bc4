//! The server that has the data set.
//!
//! Duty: one request at a time, answered in blocking calls, with every failure told apart by what to do about it. Must not:
//! try again, write files, or let a credential into a text.
//!
//! The crate `object_store` does the talking with its own retries off, because only the download knows what has arrived and
//! may go on from there.

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::client::{ClientConfigKey, ClientOptions};
use object_store::http::HttpBuilder;
use object_store::multipart::MultipartStore;
use object_store::path::Path as Key;
use object_store::{Extensions, GetOptions, GetRange, HeaderMap, HeaderValue, ObjectStore, RetryConfig};
use percent_encoding::percent_decode_str;
use tokio::runtime::{Builder, Runtime};
use url::Url;

use super::Error;
use super::location::{Location, Place};
use super::redact::Secrets;
use super::witness::{Saw, Watched, Witness, chain};

/// How often a wait looks whether it should end.
const TICK: Duration = Duration::from_millis(100);
/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(10);

/// Connections to the server of one data set.
pub(super) struct Server {
    /// None only while it is dropped.
    runtime: Option<Runtime>,
    pub(super) client: Box<dyn ObjectStore>,
    /// The same, for files that arrive in parts; none where nothing can be written.
    pub(super) parts: Option<Box<dyn MultipartStore>>,
    /// Where the data set lies in `client`.
    base: Key,
    /// The server, where the URL of the data set does not say it.
    endpoint: String,
    secrets: Secrets,
    /// What to do about a lack of rights.
    remedy: &'static str,
    /// That no credentials were found, or nothing.
    hint: &'static str,
    served: AtomicBool,
    /// Sees requests that bring no witness of their own; of use where there is one request at a time.
    witness: Witness,
}

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Ask {
    /// From which byte on.
    pub(super) from: u64,
    /// The file's size, if `from` is not 0.
    pub(super) size: u64,
    /// Only if the file still has this ETag.
    pub(super) same: Option<String>,
    /// Only if the file no longer has this ETag.
    pub(super) other: Option<String>,
}

/// What a request came to, other than bytes.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Worth another attempt.
    Passing(String),
    /// The file is not what it was when the first part of it was fetched, or cannot be had in parts.
    Restart(String),
    /// It still has the ETag that it must not have.
    Unchanged,
    /// It is not there; `all`: neither is anything else.
    Missing { all: bool },
    /// We may not have it.
    Refused(String),
    /// It has more bytes than such a file may have.
    TooLarge(u64),
    /// Another answer that stays what it is.
    Final(String),
    /// We were told to stop.
    Stopped,
}

/// A file on its way.
pub(super) struct Body<'a> {
    server: &'a Server,
    stream: BoxStream<'static, object_store::Result<bytes::Bytes>>,
    /// Bytes of the whole file.
    pub(super) size: u64,
    pub(super) etag: Option<String>,
}

/// When to give up waiting.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits<'a> {
    /// Nothing may take longer.
    pub(super) silence: Duration,
    /// Set when this process is about to end.
    pub(super) stop: &'a AtomicBool,
}

impl Server {
    /// Prepares connections; makes none. Reads the environment for S3.
    pub(super) fn new(location: &Location) -> Result<Server, Error> {
        // Whatever was chosen earlier in this process serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut server = match location.place() {
            Place::Local(path) => {
                return Err(Error::Url { url: path.display().to_string(), problem: "it is no URL".to_owned() });
            }
            Place::Http(url) => http(location, url),
            Place::S3 { bucket, prefix } => s3(location, bucket, prefix),
        }?;
        let mut runtime = Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).max_blocking_threads(4).thread_name("remote").enable_all().build();
        server.runtime = Some(runtime.map_err(|source| Error::Thread { source })?);
        Ok(server)
    }

    /// The server, where the URL of the data set does not say it; empty otherwise.
    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// A file of the data set, for messages.
    pub(super) fn shown(&self, file: &Location) -> String {
        if self.endpoint.is_empty() { file.to_string() } else { format!("{file} (at {})", self.endpoint) }
    }

    /// What to do where access is denied.
    pub(super) fn remedy(&self) -> String {
        format!("{}{}", self.remedy, self.hint)
    }

    /// Asks for a file.
    pub(super) fn get(&self, name: &str, ask: &Ask, limits: Limits<'_>) -> Result<Body<'_>, Trouble> {
        let range = (ask.from > 0).then_some(GetRange::Bounded(ask.from..ask.size));
        let ranged = range.is_some();
        let (witness, mut extensions) = (Witness::default(), Extensions::new());
        extensions.insert(witness.clone());
        let (if_match, if_none_match) = (ask.same.clone(), ask.other.clone());
        let options = GetOptions { range, if_match, if_none_match, extensions, ..GetOptions::default() };
        let key = self.key(name);
        let answer = self.wait(self.client.get_opts(&key, options), limits)?;
        let answer = answer.map_err(|error| self.trouble(&error, witness.saw(), ranged))?;
        self.served.store(true, Ordering::Relaxed);
        let (size, etag) = (answer.meta.size, answer.meta.e_tag.clone());
        Ok(Body { server: self, stream: answer.into_stream(), size, etag })
    }

    /// Where a file lies; `name` may have slashes.
    pub(super) fn key(&self, name: &str) -> Key {
        name.split('/').filter(|part| !part.is_empty()).fold(self.base.clone(), |key, part| key.join(part))
    }

    /// Makes a request that no other may overlap.
    pub(super) fn ask<T>(
        &self,
        request: impl Future<Output = object_store::Result<T>>,
        limits: Limits<'_>,
    ) -> Result<T, Trouble> {
        self.witness.take();
        self.wait(request, limits)?.map_err(|error| self.trouble(&error, self.witness.take(), false))
    }

    /// Waits on the calling thread.
    fn wait<T>(&self, future: impl Future<Output = T>, limits: Limits<'_>) -> Result<T, Trouble> {
        let Some(runtime) = &self.runtime else { return Err(Trouble::Stopped) };
        let begin = Instant::now();
        runtime.handle().block_on(async {
            let mut future = pin!(future);
            loop {
                if limits.stop.load(Ordering::Relaxed) {
                    return Err(Trouble::Stopped);
                }
                match tokio::time::timeout(TICK.min(limits.silence), &mut future).await {
                    Ok(done) => return Ok(done),
                    Err(_) if begin.elapsed() < limits.silence => {}
                    Err(_) => {
                        let seconds = limits.silence.as_secs_f32();
                        return Err(Trouble::Passing(format!("nothing arrived for {seconds} s")));
                    }
                }
            }
        })
    }

    /// What to make of a failure.
    fn trouble(&self, error: &object_store::Error, saw: Saw, ranged: bool) -> Trouble {
        let text = chain(error);
        let status = match saw {
            Saw::Answer(status) => status,
            Saw::Failure(text) => return Trouble::Passing(self.secrets.scrub(&text)),
            Saw::Nothing => return Trouble::Passing(format!("{}{}", self.secrets.scrub(&text), self.hint)),
        };
        // The body may quote the request with its signature: only S3's short code is passed on.
        let code = s3_code(&text).unwrap_or_default();
        let shown = if code.is_empty() { String::new() } else { format!(" ({code})") };
        let answer = self.secrets.scrub(&format!("HTTP status {status}{shown}"));
        match status {
            304 => Trouble::Unchanged,
            // Also where the bucket is in another region.
            300..=399 => Trouble::Final(format!("{answer}, a redirect that leads nowhere")),
            401 | 403 => Trouble::Refused(answer),
            404 | 410 => Trouble::Missing { all: code == "NoSuchBucket" },
            412 => Trouble::Restart("the file changed while it was fetched".to_owned()),
            416 => Trouble::Restart(answer),
            408 | 425 | 429 | 500..=599 => Trouble::Passing(answer),
            400..=499 => Trouble::Final(answer),
            // A good answer whose headers do not suit what was asked for.
            _ if ranged => Trouble::Restart(self.secrets.scrub(&text)),
            _ => Trouble::Passing(self.secrets.scrub(&text)),
        }
    }

    /// Whether it has sent something since this process began.
    pub(super) fn has_served(&self) -> bool {
        self.served.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Server {
    /// Nothing of the client, which knows the credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Nothing of it is waited for: a request in flight has nobody left who wants it.
            runtime.shutdown_background();
        }
    }
}

impl Body<'_> {
    /// The next bytes; none at the end.
    pub(super) fn next(&mut self, limits: Limits<'_>) -> Result<Option<bytes::Bytes>, Trouble> {
        let server = self.server;
        match server.wait(self.stream.next(), limits)? {
            None => Ok(None),
            Some(Ok(bytes)) => {
                crate::activity::happened();
                Ok(Some(bytes))
            }
            Some(Err(error)) => Err(Trouble::Passing(server.secrets.scrub(&chain(&error)))),
        }
    }
}

/// `NoSuchBucket` of `<Code>NoSuchBucket</Code>`.
fn s3_code(body: &str) -> Option<String> {
    let (_, rest) = body.split_once("<Code>")?;
    let (code, _) = rest.split_once("</Code>")?;
    (code.len() <= 60 && code.chars().all(|c| c.is_ascii_alphanumeric())).then(|| code.to_owned())
}

fn no_retries() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}

fn options() -> ClientOptions {
    // Without a limit on the whole request, which a large shard on a slow line needs; silence has one of its own.
    ClientOptions::new().with_timeout_disabled().with_connect_timeout(CONNECT)
}

fn http(location: &Location, url: &Url) -> Result<Server, Error> {
    let mut secrets = Secrets::default();
    let mut options = options().with_allow_http(true);
    if let Some(header) = authorization(url, &mut secrets) {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", header);
        options = options.with_default_headers(headers);
    }
    for (_, value) in url.query_pairs() {
        secrets.add(&value);
    }
    url.query().into_iter().for_each(|query| secrets.add(query));
    let mut bare = url.clone();
    // Only a URL without a host refuses, and has no credentials either.
    let _ = bare.set_username("").and_then(|()| bare.set_password(None));
    let client = HttpBuilder::new()
        .with_url(bare)
        .with_http_connector(Watched::default())
        .with_retry(no_retries())
        .with_client_options(options)
        .build();
    let client = client.map_err(|error| unusable(location, &secrets, &error))?;
    Ok(Server {
        runtime: None,
        client: Box::new(client),
        parts: None,
        base: Key::default(),
        endpoint: String::new(),
        secrets,
        remedy: "give user and password in the URL (https://USER:PASSWORD@HOST/…), or a URL that is signed anew",
        hint: "",
        served: AtomicBool::new(false),
        witness: Witness::default(),
    })
}

/// `Basic` credentials. In a header of their own they can stand in no URL that anything reports.
fn authorization(url: &Url, secrets: &mut Secrets) -> Option<HeaderValue> {
    let password = url.password().unwrap_or_default();
    if url.username().is_empty() && password.is_empty() {
        return None;
    }
    let decoded = [url.username(), password].map(|text| percent_decode_str(text).decode_utf8_lossy().into_owned());
    let encoded = BASE64_STANDARD.encode(decoded.join(":"));
    [password, &decoded[1], &encoded].into_iter().for_each(|secret| secrets.add(secret));
    let mut header = HeaderValue::from_str(&format!("Basic {encoded}")).ok()?;
    header.set_sensitive(true);
    Some(header)
}

fn s3(location: &Location, bucket: &str, prefix: &str) -> Result<Server, Error> {
    use AmazonS3ConfigKey as S3;
    let witness = Witness::default();
    let builder = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_retry(no_retries())
        .with_http_connector(Watched { otherwise: witness.clone() });
    let value = |key: S3| builder.get_config_value(&key).filter(|value| !value.is_empty());
    let base =
        Key::parse(prefix).map_err(|error| Error::Url { url: location.to_string(), problem: error.to_string() })?;
    let mut secrets = Secrets::default();
    let private = [S3::AccessKeyId, S3::SecretAccessKey, S3::Token, S3::Client(ClientConfigKey::ProxyUrl)];
    private.into_iter().filter_map(value).for_each(|secret| secrets.add(&secret));
    let endpoint = value(S3::S3Endpoint).or_else(|| value(S3::Endpoint)).unwrap_or_default();
    let sources = [
        S3::AccessKeyId,
        S3::WebIdentityTokenFile,
        S3::ContainerCredentialsRelativeUri,
        S3::ContainerCredentialsFullUri,
    ];
    let found = sources.into_iter().filter_map(value).count() > 0
        || value(S3::SkipSignature).is_some_and(|skip| skip == "true");
    let client = builder
        // As in `options`; the builder has no way to say "none".
        .with_config(S3::Client(ClientConfigKey::Timeout), "30 days")
        .with_config(S3::Client(ClientConfigKey::ConnectTimeout), format!("{} seconds", CONNECT.as_secs()));
    // Whoever names an endpoint as http:// means it, unless the variable for it says no.
    let silent = std::env::var_os("AWS_ALLOW_HTTP").is_none_or(|value| value.is_empty());
    let client = if silent { client.with_allow_http(endpoint.starts_with("http://")) } else { client };
    let client = client.build().map_err(|error| unusable(location, &secrets, &error))?;
    Ok(Server {
        runtime: None,
        client: Box::new(client.clone()),
        parts: Some(Box::new(client)),
        base,
        endpoint: secrets.scrub(&endpoint),
        secrets,
        remedy: "give credentials that have the right to it (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, and AWS_SESSION_TOKEN where \
            they are temporary), and its AWS_REGION",
        hint: if found { "" } else { NO_CREDENTIALS },
        served: AtomicBool::new(false),
        witness,
    })
}

const NO_CREDENTIALS: &str = "; there are no credentials in the environment: set AWS_ACCESS_KEY_ID and \
    AWS_SECRET_ACCESS_KEY, or AWS_SKIP_SIGNATURE=true for a public bucket";

fn unusable(location: &Location, secrets: &Secrets, error: &object_store::Error) -> Error {
    Error::Client { url: location.to_string(), problem: secrets.scrub(&chain(error)) }
}
