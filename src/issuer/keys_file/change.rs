//! Changes to a keys file: whole or not at all, and one at a time.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};

use super::{append, parse};
use crate::config::closest;
use crate::issuer::api_key::ApiKey;

/// Why nothing was changed; the file is as it was.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Mend the file first.
    #[error(transparent)]
    Unreadable(#[from] super::Error),
    /// Choose another name, or take the old entry out.
    #[error("{} has a key named `{name}` already: choose another name, or take that entry out first", path.display())]
    Duplicate {
        /// The file.
        path: PathBuf,
        /// The name.
        name: String,
    },
    /// Name one that is there.
    #[error("{} has no key named `{name}`{}", path.display(), meant.as_ref().map(|meant| format!(": did you mean `{meant}`?")).unwrap_or_default())]
    Unknown {
        /// The file.
        path: PathBuf,
        /// The name.
        name: String,
        /// One that is alike.
        meant: Option<String>,
    },
    /// Lay out the file otherwise.
    #[error(
        "the layout of {} leaves no place for {what}: write its keys as a block list (`keys:`, then lines that start with `  - name: `), \
         or put it in by hand",
        path.display()
    )]
    NoPlace {
        /// The file.
        path: PathBuf,
        /// What was to be put in.
        what: &'static str,
    },
    /// See to the file's and its directory's permissions.
    #[error("cannot write the keys file {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// Adds the entry of `key` to the file, which is made (mode 0600) where it does not exist. An existing one keeps its comments, owner
/// and mode. Runs of this at one time wait for each other.
///
/// # Errors
/// When the name is taken, or the file cannot be read, understood or written.
pub fn add(path: &Path, key: &ApiKey) -> Result<(), Error> {
    change(path, |text, keys| {
        if keys.iter().any(|other| other.name == key.name) {
            return Err(Error::Duplicate { path: path.to_owned(), name: key.name.clone() });
        }
        append(text, key).ok_or_else(|| Error::NoPlace { path: path.to_owned(), what: "an entry" })
    })
}

/// Marks the key of this name as revoked, as [`add`] adds. Says `false` where it was already.
///
/// # Errors
/// When there is no such key, or the file cannot be read, understood or written.
pub fn revoke(path: &Path, name: &str) -> Result<bool, Error> {
    let mut is_news = true;
    change(path, |text, keys| {
        let Some(key) = keys.iter().find(|key| key.name == name) else {
            let names: Vec<&str> = keys.iter().map(|key| key.name.as_str()).collect();
            let meant = closest(name, &names).map(str::to_owned);
            return Err(Error::Unknown { path: path.to_owned(), name: name.to_owned(), meant });
        };
        if key.revoked {
            is_news = false;
            return Ok(text.to_owned());
        }
        super::revoke(text, name).ok_or_else(|| Error::NoPlace { path: path.to_owned(), what: "`revoked: true`" })
    })?;
    Ok(is_news)
}

fn change(path: &Path, edit: impl FnOnce(&str, &[ApiKey]) -> Result<String, Error>) -> Result<(), Error> {
    let failed = |source| Error::Write { path: path.to_owned(), source };
    // Behind a symbolic link the file itself is replaced, not the link.
    let target = match path.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
        target => target.map_err(failed)?,
    };
    let directory = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let lock = File::open(directory).map_err(failed)?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).map_err(|error| failed(error.into()))?;
    let text = match std::fs::read_to_string(&target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        read => read.map_err(failed)?,
    };
    let keys = parse(&text).map_err(|mistake| super::Error::Bad { path: path.to_owned(), mistake })?;
    let edited = edit(&text, &keys)?;
    if edited == text { Ok(()) } else { replace(&target, directory, &edited).map_err(failed) }
}

fn replace(target: &Path, directory: &Path, text: &str) -> io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(text.as_bytes())?;
    if let Ok(old) = std::fs::metadata(target) {
        let new = file.as_file().metadata()?;
        if (new.uid(), new.gid()) != (old.uid(), old.gid()) {
            chown(file.path(), Some(old.uid()), Some(old.gid()))?;
        }
        file.as_file().set_permissions(old.permissions())?;
    }
    file.as_file().sync_all()?;
    file.persist(target)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::issuer::grants::Grants;
    use crate::issuer::keys_file::read;
    use crate::secret::Secret;

    fn key(name: &str) -> ApiKey {
        ApiKey::new(name, &Secret::from(name), Grants::default())
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_file_is_made_for_its_owner_alone_and_an_old_one_keeps_its_mode() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.yaml");
        add(&path, &key("a")).unwrap();
        assert_eq!(mode(&path), 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        add(&path, &key("b")).unwrap();
        assert_eq!(mode(&path), 0o640);
        assert_eq!(read(&path).unwrap(), [key("a"), key("b")]);
        assert!(matches!(add(&path, &key("a")), Err(Error::Duplicate { .. })));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_stays_a_link() {
        let directory = tempfile::tempdir().unwrap();
        let (path, link) = (directory.path().join("keys.yaml"), directory.path().join("link.yaml"));
        std::fs::write(&path, "# mine\n").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        add(&link, &key("a")).unwrap();
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        assert!(std::fs::read_to_string(&path).unwrap().starts_with("# mine\nkeys:\n  - name: \"a\"\n"));
    }

    #[test]
    fn a_file_with_a_mistake_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.yaml");
        std::fs::write(&path, "keys:\n  - nmae: a\n").unwrap();
        let error = add(&path, &key("a")).unwrap_err().to_string();
        assert!(error.contains("keys.yaml:2:5: unknown field `nmae`"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "keys:\n  - nmae: a\n");
    }

    #[test]
    fn a_key_is_revoked_and_all_else_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.yaml");
        for name in ["a", "b"] {
            add(&path, &key(name)).unwrap();
        }
        let before = format!("# mine\n{}", std::fs::read_to_string(&path).unwrap());
        std::fs::write(&path, &before).unwrap();
        assert!(revoke(&path, "a").unwrap());
        let after = std::fs::read_to_string(&path).unwrap();
        assert_eq!(after.replace("    revoked: true\n", ""), before);
        let states: Vec<bool> = read(&path).unwrap().iter().map(|key| key.revoked).collect();
        assert_eq!(states, [true, false]);
        assert!(!revoke(&path, "a").unwrap(), "it was already");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), after);
        let error = revoke(&path, "c").unwrap_err().to_string();
        assert!(error.ends_with("has no key named `c`"), "{error}");
    }

    #[test]
    fn a_name_that_is_nearly_right_is_asked_about_and_no_layout_is_broken() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.yaml");
        add(&path, &key("alice")).unwrap();
        assert!(revoke(&path, "alcie").unwrap_err().to_string().ends_with("did you mean `alice`?"));
        let flow = format!("keys: [{{ name: alice, hash: \"{}\" }}]\n", key("alice").hash);
        std::fs::write(&path, &flow).unwrap();
        assert!(matches!(revoke(&path, "alice"), Err(Error::NoPlace { .. })));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), flow);
        let other = format!("keys:\n  - hash: \"{}\"\n    name: alice", key("alice").hash);
        std::fs::write(&path, &other).unwrap();
        assert!(revoke(&path, "alice").unwrap() && read(&path).unwrap()[0].revoked);
    }

    #[test]
    fn runs_at_one_time_lose_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.yaml");
        std::thread::scope(|scope| {
            for n in 0..8 {
                let path = &path;
                scope.spawn(move || add(path, &key(&format!("k{n}"))).unwrap());
            }
        });
        assert_eq!(read(&path).unwrap().len(), 8);
    }
}
