//! Requests that change what a server has, or ask what it has.
//!
//! Duty: one request at a time, as in `server`. Must not: try again, or read files.

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use object_store::multipart::{MultipartStore, PartId};
use object_store::{ObjectStoreExt as _, PutPayload};

use super::server::{Limits, Server, Trouble};

impl Server {
    /// Puts a whole file.
    pub(super) fn put(&self, name: &str, bytes: Bytes, limits: Limits<'_>) -> Result<(), Trouble> {
        self.ask(self.client.put(&self.key(name), PutPayload::from_bytes(bytes)), limits).map(drop)
    }

    /// Announces a file that will come in parts; its number.
    pub(super) fn begin(&self, name: &str, limits: Limits<'_>) -> Result<String, Trouble> {
        self.ask(self.in_parts()?.create_multipart(&self.key(name)), limits)
    }

    /// Puts a part. Each but the last has at least 5 MiB.
    pub(super) fn put_part(
        &self,
        name: &str,
        id: &String,
        index: usize,
        bytes: Bytes,
        limits: Limits<'_>,
    ) -> Result<PartId, Trouble> {
        self.ask(self.in_parts()?.put_part(&self.key(name), id, index, PutPayload::from_bytes(bytes)), limits)
    }

    /// Makes a file of its parts.
    pub(super) fn complete(
        &self,
        name: &str,
        id: &String,
        parts: Vec<PartId>,
        limits: Limits<'_>,
    ) -> Result<(), Trouble> {
        self.ask(self.in_parts()?.complete_multipart(&self.key(name), id, parts), limits).map(drop)
    }

    /// Gives parts up.
    pub(super) fn abort(&self, name: &str, id: &String, limits: Limits<'_>) -> Result<(), Trouble> {
        self.ask(self.in_parts()?.abort_multipart(&self.key(name), id), limits)
    }

    /// Names of the folders in `folder`, and of its files; both without what is in the folders.
    pub(super) fn list(&self, folder: &str, limits: Limits<'_>) -> Result<(Vec<String>, Vec<String>), Trouble> {
        let key = self.key(folder);
        let found = self.ask(self.client.list_with_delimiter(Some(&key)), limits)?;
        let name = |key: &object_store::path::Path| key.filename().map(str::to_owned);
        let folders = found.common_prefixes.iter().filter_map(name).collect();
        Ok((folders, found.objects.iter().filter_map(|object| name(&object.location)).collect()))
    }

    /// Removes a file; one that is not there is no trouble.
    pub(super) fn remove(&self, name: &str, limits: Limits<'_>) -> Result<(), Trouble> {
        let keys = futures_util::stream::iter([Ok(self.key(name))]);
        let gone = self.client.delete_stream(Box::pin(keys)).try_collect::<Vec<_>>();
        match self.ask(gone, limits) {
            Err(Trouble::Missing { all: false }) => Ok(()),
            done => done.map(drop),
        }
    }

    fn in_parts(&self) -> Result<&dyn MultipartStore, Trouble> {
        self.parts.as_deref().ok_or_else(|| Trouble::Final("it takes no files".to_owned()))
    }
}
