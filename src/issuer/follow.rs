//! The files of an embedded token service are followed: other API keys and another signing key take over when they change. A bad file changes nothing.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use tokio::time;
use zeroize::Zeroizing;

use super::signing_key::SigningKey;
use super::{Error, Issuer, keys_file};
use crate::config::token_service::{Embedded, SigningAlgorithm};

/// The time between two looks, as for other mounted files.
const INTERVAL: Duration = Duration::from_secs(1);
/// Looks between two clearings of the state file.
const CLEARING: u32 = 3600;

/// The files of one service.
#[derive(Clone)]
struct Files {
    keys: PathBuf,
    signing_key: PathBuf,
    algorithm: SigningAlgorithm,
}

/// The hash of what was in a file at the last look: nothing is done about what was seen before.
#[derive(Default, PartialEq, Eq)]
struct Seen(Option<[u8; 32]>);

impl Seen {
    /// Whether there is something new.
    fn changes(&mut self, file: &PathBuf) -> bool {
        // A signing key may be in it.
        let content = std::fs::read(file).ok().map(Zeroizing::new);
        let now = Self(content.and_then(|content| digest(&SHA256, &content).as_ref().try_into().ok()));
        let is_new = now != *self;
        *self = now;
        is_new
    }
}

impl Issuer {
    /// Follows the files of `config`, for as long as the process lives.
    pub async fn follow(self: Arc<Self>, config: &Embedded) {
        let files = Files { keys: config.keys_file.clone(), signing_key: config.signing_key_file.clone(), algorithm: config.algorithm };
        let mut seen = (Seen::default(), Seen::default());
        for look in 0_u32.. {
            let (this, files) = (Arc::clone(&self), files.clone());
            let looked = tokio::task::spawn_blocking(move || {
                this.look(&files, &mut seen, look == 0);
                if look % CLEARING == 0 {
                    this.clear();
                }
                seen
            });
            let Ok(left) = looked.await else { return };
            seen = left;
            time::sleep(INTERVAL).await;
        }
    }

    fn look(&self, files: &Files, seen: &mut (Seen, Seen), is_first: bool) {
        if seen.0.changes(&files.keys) {
            let taken = keys_file::read(&files.keys).map_err(Error::from).and_then(|keys| self.replace_keys(keys));
            self.told("keys_file", taken, is_first);
        }
        if seen.1.changes(&files.signing_key) {
            let taken = SigningKey::read(&files.signing_key, files.algorithm).map(|key| self.rotate(key));
            self.told("signing_key_file", taken.map_err(Error::from), is_first);
        }
        self.tell_what_is_held();
    }

    /// The first look comes a moment after the files were read at the start: what has changed meanwhile is taken in, and else there is nothing to tell.
    fn told(&self, file: &str, taken: Result<(), Error>, is_first: bool) {
        if is_first && taken.is_ok() {
            return;
        }
        let outcome = if taken.is_ok() { "ok" } else { "failed" };
        match taken {
            Ok(()) => tracing::info!(file, "a file of the token service was read again"),
            Err(error) => tracing::error!(file, %error, "a file of the token service is no good; what it said before stays"),
        }
        self.tell(|metrics| metrics.reload(file, outcome));
    }

    fn clear(&self) {
        if let Some(state) = &self.state
            && let Err(error) = state.drop_ended(self.clock.now())
        {
            tracing::warn!(%error, "the state file could not be cleared of what has ended");
        }
    }
}
