//! Inputs to begin with: a folder a target, a file an input.

use std::path::Path;

/// The inputs of the target of this name, in the order of their files' names.
pub fn of(folder: &Path, target: &str) -> Vec<Vec<u8>> {
    let folder = folder.join(target);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    let inputs: Vec<_> =
        files.iter().map(|file| std::fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))).collect();
    assert!(!inputs.is_empty(), "{} is empty", folder.display());
    inputs
}
