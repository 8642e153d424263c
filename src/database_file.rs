//! Database files, opened with distrust: what a file says of itself is checked before it is followed.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use redb::{Database, DatabaseError, StorageError};

const OWNER_ONLY: u32 = 0o600;

/// Why a file is of no use as it is.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not a database, or no longer one.
    #[error("it cannot be read: {0}")]
    Corrupt(String),
    /// Another process uses it.
    #[error("another process uses it")]
    Busy,
    /// The system does not give it.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<redb::Error> for Error {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::Io(cause) if cause.kind() != io::ErrorKind::InvalidData && cause.kind() != io::ErrorKind::UnexpectedEof => {
                Self::Io(cause)
            }
            redb::Error::DatabaseAlreadyOpen => Self::Busy,
            error => Self::Corrupt(error.to_string()),
        }
    }
}

/// Opens a database, or begins one: for its owner alone, and for this process alone. Keeps at most `cache` bytes of it in memory.
///
/// # Errors
/// Why it cannot be used. redb panics on some files that are broken: callers catch that.
pub fn open(path: &Path, cache: usize) -> Result<Database, Error> {
    let failed = Error::Io;
    let file =
        std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(OWNER_ONLY).open(path).map_err(failed)?;
    file.set_permissions(std::fs::Permissions::from_mode(OWNER_ONLY)).map_err(failed)?;
    let was_whole = match file.try_lock() {
        Ok(()) => distrust(&file)?,
        Err(std::fs::TryLockError::WouldBlock) => return Err(Error::Busy),
        Err(std::fs::TryLockError::Error(cause)) => return Err(failed(cause)),
    };
    // Its second step comes only where checksums are wrong: redb would go back to the commit before, and a revocation that was accepted with it.
    let no_older = move |repair: &mut redb::RepairSession| {
        if was_whole && repair.progress() > 0.0 && repair.progress() < 0.5 {
            repair.abort();
        }
    };
    Database::builder().set_cache_size(cache).set_repair_callback(no_older).create_file(file).map_err(|error| match error {
        DatabaseError::Storage(StorageError::Io(cause)) if cause.kind() == io::ErrorKind::InvalidData => Error::Corrupt(cause.to_string()),
        error => Error::from(redb::Error::from(error)),
    })
}

/// The start of a file of redb's format 3: magic, a byte of flags, two of padding, then five numbers of four bytes, little-endian.
const START: usize = 32;
const MAGIC: &[u8] = b"redb\x1a\x0a\xa9\x0d\x0a";
const FLAGS: usize = 9;
const NUMBERS: usize = 12;
/// In the byte of flags: every page is to be checked against its checksum.
const RECOVERY_REQUIRED: u8 = 2;
/// In the byte of flags: the last commit is whole, and pages need no check. Taken out, or redb checks the start of the file alone.
const TWO_PHASE: u8 = 4;
const PAGE: u64 = 4096;

/// redb believes a file that was closed in order: it follows what a flipped bit makes of a page's number, and asks for memory without end. So every file
/// is opened as one that was not, which has its checksums verified, and what no checksum covers is checked here. Tells whether the last commit claims
/// to be whole.
fn distrust(file: &File) -> Result<bool, Error> {
    let failed = Error::Io;
    let corrupt = |why: &str| Error::Corrupt(why.to_owned());
    let length = file.metadata().map_err(failed)?.len();
    if length == 0 {
        return Ok(false);
    }
    let mut start = [0; START];
    file.read_exact_at(&mut start, 0).map_err(|_| corrupt("it is too short"))?;
    if !start.starts_with(MAGIC) {
        return Err(corrupt("it is no database"));
    }
    let number = |place: usize| {
        let bytes = &start[NUMBERS + 4 * place..][..4];
        u64::from(bytes.iter().rev().fold(0_u32, |number, byte| number << 8 | u32::from(*byte)))
    };
    let [page, header_pages, pages, full_regions, trailing_pages] = std::array::from_fn(number);
    let trailing = if trailing_pages > 0 { header_pages + trailing_pages } else { 0 };
    let needed = (header_pages + pages).checked_mul(full_regions).and_then(|all| all.checked_add(trailing + 1)?.checked_mul(PAGE));
    if page != PAGE || pages == 0 || !pages.is_power_of_two() || header_pages > pages || needed.is_none_or(|needed| needed > length) {
        return Err(corrupt("its first page is damaged"));
    }
    file.write_all_at(&[(start[FLAGS] | RECOVERY_REQUIRED) & !TWO_PHASE], FLAGS as u64).map_err(failed)?;
    Ok(start[FLAGS] & TWO_PHASE != 0)
}
