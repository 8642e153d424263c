//! bearerd's own API key, mounted as a file and read again when the file changes.
//!
//! The file is read once a second rather than watched: that sees a rewrite, a rename and the swap of Kubernetes' `..data` link alike, on every file
//! system, for the price of one small read.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustix::fs::OFlags;
use tokio::sync::watch;
use tokio::time;
use zeroize::Zeroizing;

use crate::secret::Secret;

/// The time between two looks at the file.
const INTERVAL: Duration = Duration::from_secs(1);
/// No key is longer.
const MAX_BYTES: u64 = 64 * 1024;

/// Why a file cannot be used as a key. Says nothing of its content.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system does not give it: see to the mount and its permissions.
    #[error("cannot read the key file {}: {cause}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// What is in it is no key: write the key alone into it.
    #[error("the key file {} {what}", file.display())]
    Unusable {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// Reads a key: one line of visible ASCII.
///
/// # Errors
/// When the file cannot be read or holds anything else.
pub fn read(file: &Path) -> Result<Secret, Error> {
    let unreadable = |cause| Error::Unreadable { file: file.to_owned(), cause };
    let unusable = |what| Error::Unusable { file: file.to_owned(), what };
    // Without this, a pipe would be waited for.
    let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
    let opened = OpenOptions::new().read(true).custom_flags(nonblocking).open(file).map_err(unreadable)?;
    let found = opened.metadata().map_err(unreadable)?;
    if !found.is_file() {
        return Err(unusable("is not a regular file: it must hold an API key"));
    }
    // Room for all of it: a copy that is left behind by a growing one would not be wiped.
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(found.len().min(MAX_BYTES)).unwrap_or_default() + 64));
    opened.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(unusable("is longer than 64 KiB: it must hold an API key alone"));
    }
    let text = bytes.trim_ascii();
    if text.is_empty() {
        return Err(unusable("is empty: it must hold an API key"));
    }
    match std::str::from_utf8(text) {
        Ok(text) if text.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(Secret::from(text)),
        _ => Err(unusable("holds more than an API key: one line of visible ASCII is expected")),
    }
}

/// A key file that is followed.
pub struct MountedKey {
    file: PathBuf,
    current: ArcSwap<Secret>,
    changes: watch::Sender<u64>,
}

impl MountedKey {
    /// Reads it for the first time.
    ///
    /// # Errors
    /// As [`read`].
    pub fn open(file: &Path) -> Result<Self, Error> {
        let current = ArcSwap::from_pointee(read(file)?);
        Ok(Self { file: file.to_owned(), current, changes: watch::Sender::new(0) })
    }

    /// The last good key.
    pub fn current(&self) -> Arc<Secret> {
        self.current.load_full()
    }

    /// Changes with the key.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Follows the file for as long as the process lives. While it is gone or no good, the last good key stays.
    pub async fn keep_reading(self: Arc<Self>) {
        let mut is_good = true;
        loop {
            time::sleep(INTERVAL).await;
            let this = Arc::clone(&self);
            let Ok(found) = tokio::task::spawn_blocking(move || read(&this.file)).await else { continue };
            match found {
                Ok(key) => {
                    if key != **self.current.load() {
                        tracing::info!(file = %self.file.display(), "the mounted key has changed");
                        self.current.store(Arc::new(key));
                        self.changes.send_modify(|count| *count += 1);
                    }
                    is_good = true;
                }
                Err(error) => {
                    if is_good {
                        tracing::warn!(%error, "the mounted key cannot be read again; the last one stays in use");
                    }
                    is_good = false;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_key_is_one_line_and_nothing_of_another_file_is_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        for (text, expected) in [
            ("k\n", Some("k")),
            (" k-1\r\n", Some("k-1")),
            ("", None),
            ("\n", None),
            ("ca nary", None),
            ("ca\nnary", None),
            ("canary\u{e9}", None),
        ] {
            fs::write(&file, text).unwrap();
            match (read(&file), expected) {
                (Ok(key), Some(expected)) => assert_eq!(key.expose(), expected),
                (Err(error), None) => assert!(!error.to_string().contains("nary") && error.to_string().contains("key file"), "{error}"),
                (found, _) => panic!("{text:?}: {found:?}"),
            }
        }
        fs::write(&file, "x".repeat(70_000)).unwrap();
        assert!(matches!(read(&file), Err(Error::Unusable { .. })));
        assert!(matches!(read(&folder.path().join("none")), Err(Error::Unreadable { .. })));
        assert!(matches!(read(folder.path()), Err(Error::Unusable { .. })));
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert!(matches!(read(&pipe), Err(Error::Unusable { .. })), "and it is not waited for");
    }

    #[tokio::test(start_paused = true)]
    async fn every_way_to_change_a_file_is_seen_and_a_bad_one_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for version in ["..1", "..2"] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("key"), format!("key-in{version}\n")).unwrap();
        }
        symlink("..1", at("..data")).unwrap();
        symlink("..data/key", at("key")).unwrap();
        let key = Arc::new(MountedKey::open(&at("key")).unwrap());
        let mut changes = key.changes();
        tokio::spawn(Arc::clone(&key).keep_reading());
        // As the kubelet does it.
        symlink("..2", at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
        changes.changed().await.unwrap();
        assert_eq!(key.current().expose(), "key-in..2");
        fs::write(at("..2").join("key"), "").unwrap();
        time::sleep(5 * INTERVAL).await;
        fs::remove_file(at("key")).unwrap();
        time::sleep(5 * INTERVAL).await;
        assert!(!changes.has_changed().unwrap());
        assert_eq!(key.current().expose(), "key-in..2");
        fs::write(at("new"), "third").unwrap();
        fs::rename(at("new"), at("key")).unwrap();
        changes.changed().await.unwrap();
        assert_eq!(key.current().expose(), "third");
    }
}
