//! Sinks: the current token in a file, for applications that read theirs there.

use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time;

use super::own_key::OwnKey;
use super::{Exchange, Granted};
use crate::secret::Secret;

/// The wait before a file that could not be written is tried again, or a token that is not there is asked for.
const RETRY: Duration = Duration::from_secs(1);
/// How a file is called until it takes the place of the one before.
const UNFINISHED: &str = ".bearerd-sink-";

/// Why a token cannot be written to its file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The place is taken by what is no file: name another path.
    #[error("{} is not a regular file: a token would not be written where it points", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// The system says no: see to the folder, its permissions and its space.
    #[error("cannot write the token to {}: {cause}", path.display())]
    Unwritable {
        /// The path.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
}

/// A file that holds a token.
pub struct Sink {
    path: PathBuf,
    mode: u32,
    key: Arc<OwnKey>,
    /// What was written last.
    written: Mutex<Option<Secret>>,
}

impl Sink {
    /// Keeps the token of `key` in the file at `path`, with these permission bits.
    pub fn new(path: PathBuf, mode: u32, key: Arc<OwnKey>) -> Self {
        Self { path, mode, key, written: Mutex::default() }
    }

    /// Whether the file has had a token.
    pub fn has_token(&self) -> bool {
        self.lock().is_some()
    }

    /// Keeps the file up to date for as long as the process lives.
    pub async fn keep(self: Arc<Self>, exchange: Arc<Exchange>) {
        self.clear_unfinished();
        let mut publications = self.key.grant.publications();
        loop {
            publications.borrow_and_update();
            let is_written = match exchange.token_for(&self.key.grant, &self.key.current()).await {
                Ok(granted) => self.put(&granted).await,
                // The key's keeper says why, and tries again.
                Err(_) => false,
            };
            if is_written {
                // Now and then without a publication too: the key may have changed to one whose token was there already.
                let _ = time::timeout(5 * RETRY, publications.changed()).await;
            } else {
                time::sleep(RETRY).await;
            }
        }
    }

    async fn put(self: &Arc<Self>, granted: &Granted) -> bool {
        let token = granted.token().value();
        if self.lock().as_ref() == Some(&token) {
            return true;
        }
        let this = Arc::clone(self);
        match tokio::task::spawn_blocking(move || this.write(token)).await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::error!(%error, "a sink has an old token or none");
                false
            }
            Err(_) => false,
        }
    }

    /// Whoever reads the file meanwhile gets the whole old token or the whole new one.
    fn write(&self, token: Secret) -> Result<(), Error> {
        let unwritable = |cause| Error::Unwritable { path: self.path.clone(), cause };
        if self.path.symlink_metadata().is_ok_and(|found| !found.is_file()) {
            return Err(Error::NotAFile { path: self.path.clone() });
        }
        let mut written = self.lock();
        let mut file = tempfile::Builder::new()
            .prefix(UNFINISHED)
            .permissions(std::fs::Permissions::from_mode(self.mode))
            .tempfile_in(self.folder())
            .map_err(unwritable)?;
        // The umask may have taken bits away.
        file.as_file().set_permissions(std::fs::Permissions::from_mode(self.mode)).map_err(unwritable)?;
        file.write_all(token.expose().as_bytes()).map_err(unwritable)?;
        file.persist(&self.path).map_err(|error| unwritable(error.error))?;
        *written = Some(token);
        Ok(())
    }

    /// Takes the token away at the end, unless somebody else has written the file since.
    pub fn remove(&self) {
        let Some(token) = self.lock().take() else { return };
        if std::fs::read(&self.path).is_ok_and(|found| found == token.expose().as_bytes())
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "the token of a sink could not be removed");
        }
    }

    /// What a process that was killed in the middle of a write left behind.
    fn clear_unfinished(&self) {
        let Ok(entries) = std::fs::read_dir(self.folder()) else { return };
        for entry in entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(UNFINISHED)) {
            // Another sink of ours may just be writing it; then that one writes again.
            let is_old = entry.metadata().and_then(|found| found.modified()).is_ok_and(|at| at.elapsed().is_ok_and(|age| age > 60 * RETRY));
            if is_old {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    fn folder(&self) -> &Path {
        self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Secret>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
