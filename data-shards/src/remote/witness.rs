//! What really came back from a request.
//!
//! Duty: the status of an answer, or why there was none, for the request that asks to know. Must not: change either.
//!
//! `object_store` sorts failures for its own retries and keeps the status to itself. But it lets its user supply the client,
//! and hands to it what was attached to a request.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
};

/// Attached to a request, it tells what came of it. Copies share what they know.
#[derive(Clone, Debug, Default)]
pub(super) struct Witness(Arc<Mutex<Saw>>);

/// What came of a request to the server of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Saw {
    /// It was not made: the failure lies before it.
    #[default]
    Nothing,
    /// An answer of this status.
    Answer(u16),
    /// No answer, for this reason.
    Failure(String),
}

impl Witness {
    pub(super) fn saw(&self) -> Saw {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What it saw, which it then forgets.
    pub(super) fn take(&self) -> Saw {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn see(&self, answer: &Result<HttpResponse, HttpError>) {
        let saw = match answer {
            Ok(answer) => Saw::Answer(answer.status().as_u16()),
            Err(error) => Saw::Failure(chain(error)),
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = saw;
    }
}

/// An error and its causes, each said once.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// Header of every signed request to S3; requests for the credentials themselves have none.
const SIGNED: &str = "x-amz-content-sha256";

/// Makes the usual clients, with their answers looked at.
#[derive(Debug, Default)]
pub(super) struct Watched {
    /// Sees what came of signed requests that brought no witness, which not all kinds of requests can.
    pub(super) otherwise: Witness,
}

impl HttpConnector for Watched {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Service {
            client: ReqwestConnector::default().connect(options)?,
            otherwise: self.otherwise.clone(),
        }))
    }
}

#[derive(Debug)]
struct Service {
    client: HttpClient,
    otherwise: Witness,
}

type Answer<'a> = Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'a>>;

impl HttpService for Service {
    fn call<'this, 'future>(&'this self, request: HttpRequest) -> Answer<'future>
    where
        'this: 'future,
        Self: 'future,
    {
        Box::pin(async move {
            let witness = request.extensions().get::<Witness>().cloned();
            let witness = witness.or_else(|| request.headers().contains_key(SIGNED).then(|| self.otherwise.clone()));
            let answer = self.client.execute(request).await;
            if let Some(witness) = witness {
                witness.see(&answer);
            }
            answer
        })
    }
}
