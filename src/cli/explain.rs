//! `bearerd explain`: what would become of a request, and why. Offline: nothing is called, nothing is sent.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

use super::configured::loaded;
use crate::app::explain::{Asked, explain};
use crate::claims::Claims;

/// Arguments of `bearerd explain`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  bearerd explain -c bearerd.yaml GET https://app.example.com/api/x -H 'X-API-Key: my-key'")]
pub struct Args {
    /// The configuration file.
    #[arg(short, long, value_name = "FILE", default_value = "bearerd.yaml")]
    config: PathBuf,
    /// The request's method.
    method: Method,
    /// The request's URL, or its path alone.
    url: String,
    /// A header of the request, as `Name: value`; as often as needed. Values that are credentials are masked in what is printed.
    #[arg(short = 'H', long = "header", value_name = "HEADER")]
    headers: Vec<String>,
    /// The claims of the token that would be minted, as JSON: what the route requires is judged by them.
    #[arg(long, value_name = "JSON")]
    claims: Option<String>,
    /// Where the request comes from.
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    peer: IpAddr,
}

impl Args {
    /// Prints the explanation, and ends with 0 whatever it is. A mistake in the configuration is exit code 78.
    ///
    /// # Errors
    /// When the request cannot be one.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let loaded = match loaded(&self.config) {
            Ok(loaded) => loaded,
            Err(code) => return Ok(code),
        };
        let uri: Uri = self.url.parse().with_context(|| "the URL is none: write a path, as `/api`, or `http://host/api`")?;
        let mut headers = HeaderMap::new();
        for line in &self.headers {
            // The line may hold a key: it is not shown again.
            let (name, value) = line.split_once(':').context("a header is written `Name: value`")?;
            let name: HeaderName = name.trim().parse().context("a header's name has letters, digits and `-`")?;
            headers.append(name, HeaderValue::from_bytes(value.trim().as_bytes()).context("a header's value is one line")?);
        }
        let claims = match &self.claims {
            Some(text) => Some(Claims::parse(text.as_bytes()).context("the claims are a JSON object, as `{\"sub\":\"alice\"}`")?),
            None => None,
        };
        let asked = Asked { method: self.method, uri, headers, claims, peer: self.peer };
        for line in explain(&loaded.config, &asked)? {
            println!("{line}");
        }
        Ok(ExitCode::SUCCESS)
    }
}
