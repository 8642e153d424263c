//! Changes to a ledger's file, four bytes each: a place and what to do there. It is opened or set aside, and gives no token that was not in it.

use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bearerd::exchange::ledger::{Contents, Keys, Ledger, OpenError, SavedToken};
use bearerd::secret::Secret;
use bearerd::telemetry::metrics::Metrics;
use tempfile::TempDir;

use super::{NOW, Target};

pub const TARGET: Target = Target { name: "ledger", words: &[b"\0\0\0", b"\0\x10", b"\0\x20", b"\xff\xff", b"\x01", b"\x80"], read };

fn read(input: &[u8]) {
    static WHOLE: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let folder = folder();
        let path = folder.path().join("ledger");
        let (ledger, _) = open(&path).unwrap_or_else(|error| panic!("{error}"));
        for number in 1..20 {
            let text = Secret::from(format!("token-{number}").as_str());
            let (minted, expires) = (NOW.wall, NOW.wall.plus(Duration::from_secs(3600)));
            ledger.keep(SavedToken { name: [number; 32], service: "default".into(), text, minted, expires });
        }
        drop(ledger);
        std::fs::read(path).unwrap_or_else(|error| panic!("{error}"))
    });
    let mut bytes = WHOLE.clone();
    for change in input.chunks_exact(4) {
        let place = (usize::from(change[0]) << 16 | usize::from(change[1]) << 8 | usize::from(change[2])) % bytes.len().max(1);
        match change[3] {
            0 => bytes.truncate(place.max(1)),
            bits => bytes[place] ^= bits,
        }
    }
    let folder = folder();
    let path = folder.path().join("ledger");
    std::fs::write(&path, bytes).unwrap_or_else(|error| panic!("{error}"));
    let Ok((_, contents)) = open(&path) else { return };
    for token in contents.tokens {
        assert_eq!(token.text.expose(), format!("token-{}", token.name[0]));
        assert!(token.name.iter().all(|byte| *byte == token.name[0]) && (1..20).contains(&token.name[0]));
    }
    assert!(contents.revocations.is_empty());
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"))
}

/// The operator's key.
pub fn keys() -> &'static Keys {
    static KEYS: LazyLock<Keys> = LazyLock::new(read_keys);
    &KEYS
}

fn read_keys() -> Keys {
    let folder = folder();
    let file = folder.path().join("key");
    std::fs::write(&file, [7; 32]).unwrap_or_else(|error| panic!("{error}"));
    Keys::read(&[file]).unwrap_or_else(|error| panic!("{error}"))
}

fn open(path: &Path) -> Result<(Ledger, Contents), OpenError> {
    static METRICS: LazyLock<Arc<Metrics>> = LazyLock::new(|| Arc::new(Metrics::new().unwrap_or_else(|error| panic!("{error}"))));
    Ledger::open(path, read_keys(), NOW.wall, Arc::clone(&METRICS))
}
