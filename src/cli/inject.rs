//! `bearerd inject`: Kubernetes manifests in, the same with the sidecar out.

use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;

use super::BAD_CONFIGURATION;
use crate::kubernetes::annotations::{WEB_URL, web_url};
use crate::kubernetes::{Defaults, manifest};

/// The most that is read.
const MOST: u64 = 64 << 20;

/// Arguments of `bearerd inject`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  bearerd inject -f deployment.yaml | kubectl apply -f -\n  kubectl kustomize . | bearerd inject --image registry.example.com/bearerd:0.1.0 > all.yaml\n\nPods ask for it with annotations; everything else comes out as it went in:\n  bearerd.dev/inject: \"true\"\n  bearerd.dev/config: bearerd                 # a ConfigMap with the key bearerd.yaml\n\nExit codes: 0 done, 1 not read or written, 78 a manifest has mistakes: nothing is written then."
)]
pub struct Args {
    /// The manifests, in YAML or JSON; `-` is standard input.
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    file: PathBuf,
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
        let is_stdin = self.file.as_os_str() == "-";
        let name = if is_stdin { "standard input".to_owned() } else { self.file.display().to_string() };
        if is_stdin && io::stdin().is_terminal() {
            eprintln!("reading manifests from standard input; -f names a file");
        }
        let mut bytes = Vec::new();
        let source: Box<dyn io::Read> = if is_stdin {
            Box::new(io::stdin().lock())
        } else {
            Box::new(std::fs::File::open(&self.file).with_context(|| format!("cannot read {name}"))?)
        };
        source.take(MOST + 1).read_to_end(&mut bytes).with_context(|| format!("cannot read {name}"))?;
        anyhow::ensure!(bytes.len() as u64 <= MOST, "{name} has more than {} MiB: inject its parts", MOST >> 20);
        let text = String::from_utf8(bytes).map_err(|_| anyhow::anyhow!("{name} is not UTF-8"))?;
        match manifest::inject(&text, &defaults) {
            Ok(injected) => {
                injected.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
                io::stdout().write_all(injected.text.as_bytes()).context("cannot write the manifests")?;
                Ok(ExitCode::SUCCESS)
            }
            Err(errors) => {
                errors.iter().for_each(|error| eprintln!("{name}:{error}"));
                Ok(ExitCode::from(BAD_CONFIGURATION))
            }
        }
    }
}
