//! Sinks: the current token in a file, for applications that read theirs there.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time;

use super::own_key::OwnKey;
use super::{Exchange, Granted};
use crate::secret::Secret;

/// The wait before a file that could not be written is tried again, or a token that is not there is asked for.
const RETRY: Duration = Duration::from_secs(1);
/// How a file is called until it takes the place of the one before: this, the name that it will have, a dot and random letters.
const UNFINISHED: &str = ".bearerd-sink.";

/// Random letters in such a name.
const RANDOM: usize = 8;

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
    has_token: AtomicBool,
    /// Held while the file is written.
    written: Mutex<Written>,
}

#[derive(Default)]
struct Written {
    /// What was written last.
    token: Option<Secret>,
    /// Nothing is written any more.
    is_closed: bool,
    /// The last attempt failed, and that was told.
    is_failing: bool,
}

impl Written {
    /// Whether the file should have this token, and has not.
    fn lacks(&self, token: &Secret) -> bool {
        !self.is_closed && self.token.as_ref() != Some(token)
    }
}

impl Sink {
    /// Keeps the token of `key` in the file at `path`, with these permission bits.
    pub fn new(path: PathBuf, mode: u32, key: Arc<OwnKey>) -> Self {
        Self { path, mode, key, has_token: AtomicBool::new(false), written: Mutex::default() }
    }

    /// The key whose token it is.
    pub const fn key(&self) -> &Arc<OwnKey> {
        &self.key
    }

    /// Whether the file has had a token.
    pub fn has_token(&self) -> bool {
        self.has_token.load(Ordering::Acquire)
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
        let this = Arc::clone(self);
        tokio::task::spawn_blocking(move || this.put_now(token)).await.unwrap_or(false)
    }

    fn put_now(&self, token: Secret) -> bool {
        let mut written = self.lock();
        if !written.lacks(&token) {
            return true;
        }
        match self.write(&token) {
            Ok(()) => {
                *written = Written { token: Some(token), ..Written::default() };
                self.has_token.store(true, Ordering::Release);
                true
            }
            Err(error) => {
                if !written.is_failing {
                    tracing::error!(%error, "a sink has an old token or none; it is tried again");
                }
                written.is_failing = true;
                false
            }
        }
    }

    /// Whoever reads the file meanwhile gets the whole old token or the whole new one.
    fn write(&self, token: &Secret) -> Result<(), Error> {
        let unwritable = |cause| Error::Unwritable { path: self.path.clone(), cause };
        if self.path.symlink_metadata().is_ok_and(|found| !found.is_file()) {
            return Err(Error::NotAFile { path: self.path.clone() });
        }
        let mut file = tempfile::Builder::new()
            .prefix(&self.unfinished())
            .rand_bytes(RANDOM)
            .permissions(std::fs::Permissions::from_mode(self.mode))
            .tempfile_in(self.folder())
            .map_err(unwritable)?;
        // The umask may have taken bits away.
        file.as_file().set_permissions(std::fs::Permissions::from_mode(self.mode)).map_err(unwritable)?;
        file.write_all(token.expose().as_bytes()).map_err(unwritable)?;
        file.persist(&self.path).map_err(|error| unwritable(error.error))?;
        Ok(())
    }

    /// Takes the token away at the end, unless somebody else has written the file since.
    pub fn remove(&self) {
        let mut written = self.lock();
        written.is_closed = true;
        let Some(token) = written.token.take() else { return };
        if std::fs::read(&self.path).is_ok_and(|found| found == token.expose().as_bytes())
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "the token of a sink could not be removed");
        }
    }

    /// What a process that was killed in the middle of a write left behind. The name says whose it was: ours alone.
    fn clear_unfinished(&self) {
        let Ok(entries) = std::fs::read_dir(self.folder()) else { return };
        let unfinished = self.unfinished();
        let is_ours = |name: &OsStr| {
            let random = name.to_str().and_then(|name| name.strip_prefix(&unfinished));
            random.is_some_and(|random| random.len() == RANDOM && random.bytes().all(|byte| byte.is_ascii_alphanumeric()))
        };
        for entry in entries.flatten().filter(|entry| is_ours(&entry.file_name())) {
            let _ = std::fs::remove_file(entry.path());
        }
    }

    fn unfinished(&self) -> String {
        format!("{UNFINISHED}{}.", self.path.file_name().unwrap_or_default().to_string_lossy())
    }

    fn folder(&self) -> &Path {
        self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_written_once_and_none_after_the_end() {
        let (old, new) = (Secret::from("old"), Secret::from("new"));
        let holding = |is_closed| Written { token: Some(Secret::from("old")), is_closed, is_failing: false };
        assert!(Written::default().lacks(&old));
        assert!(holding(false).lacks(&new) && !holding(false).lacks(&old));
        assert!(!holding(true).lacks(&new) && !Written { is_closed: true, ..Written::default() }.lacks(&new));
    }
}
