//! The tables of attacks and of faults in docs/security.md and the tests agree.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn attacks() -> String {
    table("Attacks that others fell to")
}

fn table(title: &str) -> String {
    let text = std::fs::read_to_string(root().join("docs/security.md")).unwrap();
    let section = text.split("\n## ").find(|section| section.starts_with(title)).unwrap();
    section.lines().filter(|line| line.starts_with("| ")).collect::<Vec<_>>().join("\n")
}

/// All Rust files of a folder.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|end| end == "rs"))
        .collect()
}

#[test]
fn every_test_that_the_documentation_names_is_there() {
    let (mut source, mut file, mut named) = (String::new(), String::new(), 0);
    let faults = table("Faults");
    // Of a fault the last column alone: in the others too there are words between backticks.
    let tests = faults.lines().skip(1).filter_map(|row| row.trim_end_matches(" |").rsplit(" | ").next());
    for row in attacks().lines().skip(1).chain(tests) {
        // Every other piece stands between backticks: a file, then names in it.
        for piece in row.split('`').skip(1).step_by(2) {
            if piece.ends_with(".rs") {
                file = piece.to_owned();
                source = std::fs::read_to_string(root().join(piece)).unwrap_or_else(|error| panic!("{piece}: {error}"));
            } else {
                assert!(source.contains(&format!("fn {piece}(")), "{file} has no test `{piece}`");
                let before = source.split(&format!("fn {piece}(")).next().unwrap().lines().rev().take(3).collect::<Vec<_>>().join("\n");
                assert!(before.contains("test]") || before.contains("test("), "`{piece}` in {file} is no test");
                named += 1;
            }
        }
    }
    assert!(named > 60, "{named}");
}

#[test]
fn every_attack_that_a_test_is_named_after_is_in_the_documentation() {
    let table = attacks().to_lowercase().replace('-', "_");
    let mut ids = BTreeSet::new();
    for path in ["src", "tests"].into_iter().flat_map(|folder| sources(&root().join(folder))) {
        let text = std::fs::read_to_string(&path).unwrap();
        for name in text
            .split("fn ")
            .skip(1)
            .filter_map(|rest| rest.split('(').next())
            .filter(|name| name.starts_with("cve_") || name.starts_with("rustsec_"))
        {
            // `cve_2026_33433_and_so_on`, and perhaps several of them.
            let words: Vec<&str> = name.split('_').collect();
            let id = |at: &[&str]| matches!(at[0], "cve" | "rustsec").then(|| at.join("_"));
            ids.extend(words.windows(3).filter_map(id));
        }
    }
    assert!(ids.len() > 25, "{ids:?}");
    for id in ids {
        assert!(table.contains(&id), "{id} has a test and no line in docs/security.md");
    }
}
