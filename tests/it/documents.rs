//! What the documents show is what the program takes: each piece of YAML, and each link.

use std::path::{Path, PathBuf};

use bearerd::config::{Diagnostic, Environment, from_text};

/// README and everything under `docs/`.
fn documents() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let files = folder.filter(|path| path.extension().is_some_and(|kind| kind == "md")).chain([root.join("README.md")]);
    files.map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect()
}

/// Without the indentation of the list that it stands in.
fn flush_left(piece: &str) -> String {
    let indentation =
        piece.lines().filter(|line| !line.trim().is_empty()).map(|line| line.len() - line.trim_start().len()).min().unwrap_or(0);
    piece.lines().map(|line| format!("{}\n", line.get(indentation..).unwrap_or_default())).collect()
}

/// The pieces of YAML in a document that are of a configuration: they begin with one of its sections.
fn pieces(text: &str) -> Vec<String> {
    let sections = [
        "listeners:",
        "admin:",
        "metrics:",
        "token_services:",
        "upstreams:",
        "routes:",
        "sinks:",
        "cache:",
        "shutdown:",
        "logging:",
        "tracing:",
        "workers:",
    ];
    let fenced = text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).map(flush_left);
    fenced.filter(|piece| sections.iter().any(|section| piece.trim_start_matches(['#', ' ']).starts_with(section))).collect()
}

/// With the sections that a piece leaves to the reader. What any of its routes may name is there.
fn completed(piece: &str) -> String {
    let mut whole = piece.to_owned();
    let mut add = |section: &str, text: &str| {
        if !piece.lines().any(|line| line.starts_with(section)) {
            whole.push_str(text);
        }
    };
    add("token_services:", "\ntoken_services: { default: { kind: iap, url: 'https://tokens.example.com' } }\n");
    add("upstreams:", "\nupstreams: { app: { servers: ['127.0.0.1:3000'] }, platform: { servers: ['platform.internal:80'] } }\n");
    add("routes:", "\nroutes: [{ upstream: app }]\n");
    whole
}

#[test]
fn every_piece_of_configuration_is_one() {
    let is_about_files = |mistake: &Diagnostic| {
        let text = mistake.to_string();
        text.contains("cannot read") || text.contains("does not exist: make it first")
    };
    let mut checked = 0;
    for (path, text) in documents() {
        for piece in pieces(&text) {
            let outcome = from_text(&completed(&piece), "piece", &Environment::default(), Path::new("/nowhere"));
            let mistakes = outcome.map_or_else(|error| error.diagnostics(), |_| Vec::new());
            let mistakes: Vec<_> = mistakes.iter().filter(|mistake| !is_about_files(mistake)).map(ToString::to_string).collect();
            assert!(mistakes.is_empty(), "{}:\n{piece}\n{}", path.display(), mistakes.join("\n"));
            checked += 1;
        }
    }
    assert!(checked >= 20, "{checked}");
}

/// The anchors that a document's headings have.
fn anchors(text: &str) -> Vec<String> {
    let titles = text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let slug = |title: &str| {
        let kept = title.to_lowercase().chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter)).collect::<String>();
        kept.replace(' ', "-")
    };
    titles.map(slug).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut followed = 0;
    for (path, text) in documents() {
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()).filter(|link| !link.contains("://")) {
            let (file, anchor) = link.split_once('#').map_or((link, None), |(file, anchor)| (file, Some(anchor)));
            let target = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            assert!(target.exists(), "{}: {link} leads nowhere", path.display());
            if let Some(anchor) = anchor {
                let there = std::fs::read_to_string(&target).unwrap();
                assert!(anchors(&there).contains(&anchor.to_owned()), "{}: {link} has no such heading", path.display());
            }
            followed += 1;
        }
    }
    assert!(followed >= 30, "{followed}");
}

/// The first words of the lines of a section of `Cargo.toml`.
fn named_in(manifest: &str, section: &str) -> Vec<String> {
    let section = manifest.split(section).nth(1).unwrap().split("\n[").next().unwrap();
    section.lines().filter_map(|line| line.split_once(" = ")).map(|(name, _)| name.to_owned()).collect()
}

#[test]
fn every_crate_has_its_reason_and_no_reason_is_left_over() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let used = named_in(&std::fs::read_to_string(root.join("Cargo.toml")).unwrap(), "\n[dependencies]\n");
    let told = std::fs::read_to_string(root.join("docs/dependencies.md")).unwrap();
    let rows = told.lines().filter_map(|line| line.strip_prefix("| `")).map(|row| row.split_once('`').unwrap());
    let reasons: Vec<_> = rows.map(|(name, rest)| (name, rest.rsplit('|').nth(1).unwrap().trim())).collect();
    assert_eq!(reasons.iter().map(|(name, _)| *name).collect::<Vec<_>>(), used);
    for (name, reason) in reasons {
        assert!(reason.len() > 3, "why {name}?");
    }
}
