//! `bearerd inject`: Kubernetes manifests in, the same with the sidecar out.

use std::ffi::OsStr;
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;

use super::BAD_CONFIGURATION;
use crate::kubernetes::annotations::{WEB_URL, web_url};
use crate::kubernetes::{Defaults, manifest};

/// The most that is read of a file.
const MOST: u64 = 64 << 20;
/// What files with manifests end in, where a folder is read.
const ENDINGS: [&str; 3] = ["json", "yaml", "yml"];

/// Arguments of `bearerd inject`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  bearerd inject -f deployment.yaml | kubectl apply -f -\n  bearerd inject -f service.yaml -f apps/ > all.yaml\n  kubectl kustomize . | bearerd inject --image registry.example.com/bearerd:0.1.0 > all.yaml\n\nPods ask for it with annotations; everything else comes out as it went in:\n  bearerd.dev/inject: \"true\"\n  bearerd.dev/config: bearerd                 # a ConfigMap with the key bearerd.yaml\n\nExit codes: 0 done, 1 not read or written, 78 a manifest has mistakes: nothing is written then."
)]
pub struct Args {
    /// Manifests, in YAML or JSON: a file, a folder's own files (.json, .yaml, .yml), or `-` for standard input. May be given several times.
    #[arg(short, long = "file", alias = "filename", value_name = "FILE", default_value = "-")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    defaults: DefaultArgs,
}

/// What counts where a pod's annotations say nothing.
#[derive(Debug, clap::Args)]
pub(super) struct DefaultArgs {
    /// The sidecar's image, where `bearerd.dev/image` names none.
    #[arg(long, value_name = "IMAGE", default_value = concat!("bearerd:", env!("CARGO_PKG_VERSION")))]
    image: String,
    /// The token service, where `bearerd.dev/token-service` names none.
    #[arg(long, value_name = "URL")]
    token_service: Option<String>,
}

impl DefaultArgs {
    /// What they say.
    ///
    /// # Errors
    /// When the URL is none, or holds what could be secret; it is not shown.
    pub(super) fn defaults(self) -> anyhow::Result<Defaults> {
        let url = |text: String| web_url(&text).with_context(|| format!("--token-service does not fit: {WEB_URL}"));
        Ok(Defaults { image: self.image, token_service: self.token_service.map(url).transpose()? })
    }
}

impl Args {
    /// Reads, injects and prints; or ends with [`BAD_CONFIGURATION`].
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let defaults = self.defaults.defaults()?;
        let sources = sources(&self.files)?;
        let (mut texts, mut warnings, mut is_wrong) = (Vec::new(), Vec::new(), false);
        for Source { name, text } in &sources {
            match manifest::inject(text, &defaults) {
                Ok(injected) => {
                    texts.push(injected.text);
                    warnings.extend(injected.warnings.into_iter().map(|warning| format!("warning: {name}: {warning}")));
                }
                Err(errors) => {
                    errors.iter().for_each(|error| eprintln!("{name}:{error}"));
                    is_wrong = true;
                }
            }
        }
        if is_wrong {
            return Ok(ExitCode::from(BAD_CONFIGURATION));
        }
        let text = manifest::joined(&texts).map_err(|place| {
            let name = sources.get(place).map_or("a file", |source| &source.name);
            anyhow::anyhow!("{name} does not stay what it is with another file behind it: inject it alone")
        })?;
        warnings.iter().for_each(|warning| eprintln!("{warning}"));
        io::stdout().write_all(text.as_bytes()).context("cannot write the manifests")?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Manifests, and where they are from.
struct Source {
    name: String,
    text: String,
}

/// What is named, in this order; the files of a folder by name.
fn sources(files: &[PathBuf]) -> anyhow::Result<Vec<Source>> {
    let mut sources = Vec::new();
    for file in files {
        if file.as_os_str() == "-" {
            anyhow::ensure!(
                files.iter().filter(|other| *other == file).count() == 1,
                "standard input can be read once only: give `-f -` once"
            );
            if io::stdin().is_terminal() {
                eprintln!("reading manifests from standard input; -f names a file");
            }
            sources.push(Source { name: "standard input".to_owned(), text: read("standard input", io::stdin().lock())? });
            continue;
        }
        for file in if file.is_dir() { manifests(file)? } else { vec![file.clone()] } {
            let name = file.display().to_string();
            let opened = std::fs::File::open(&file).with_context(|| format!("cannot read {name}"))?;
            sources.push(Source { text: read(&name, opened)?, name });
        }
    }
    Ok(sources)
}

/// The manifests of a folder, without those of folders in it.
fn manifests(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let name = folder.display();
    let entries: io::Result<Vec<_>> = std::fs::read_dir(folder).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    let is_manifest =
        |path: &PathBuf| path.extension().and_then(OsStr::to_str).is_some_and(|ending| ENDINGS.contains(&ending)) && !path.is_dir();
    let mut found: Vec<PathBuf> = entries.with_context(|| format!("cannot read {name}"))?.into_iter().filter(is_manifest).collect();
    found.sort();
    anyhow::ensure!(!found.is_empty(), "{name} has no file that ends in .json, .yaml or .yml");
    Ok(found)
}

fn read(name: &str, source: impl io::Read) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    source.take(MOST + 1).read_to_end(&mut bytes).with_context(|| format!("cannot read {name}"))?;
    anyhow::ensure!(bytes.len() as u64 <= MOST, "{name} has more than {} MiB: inject its parts", MOST >> 20);
    String::from_utf8(bytes).map_err(|_| anyhow::anyhow!("{name} is not UTF-8"))
}
