//! `bearerd probe`: whether a bearerd is alive, started or ready, for images that have no other program to ask with.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::runtime::Builder;

use super::FAILURE;

/// Where bearerd shows its probes unless its configuration says otherwise.
pub(super) const DEFAULT_ADDRESS: &str = "127.0.0.1:9902";
/// The most of an answer that is read: those of bearerd are one line.
const BODY_BYTES: usize = 4096;

/// Arguments of `bearerd probe`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  bearerd probe\n  bearerd probe live --address 127.0.0.1:9902 --timeout 2s\n\nExit codes: 0 it is so, 1 it is not; standard error says why."
)]
pub struct Args {
    /// What is asked.
    #[arg(value_enum, default_value_t = Probe::Ready)]
    probe: Probe,
    /// `host:port` of bearerd's metrics or admin listener.
    #[arg(long, value_name = "ADDRESS", default_value = DEFAULT_ADDRESS)]
    address: String,
    /// How long all of it may take.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

/// What can be asked.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(super) enum Probe {
    /// The process answers.
    Live,
    /// It takes requests, and has the tokens that it must have first.
    Ready,
    /// The configuration is loaded and every listener bound.
    Startup,
}

impl Probe {
    const fn path(self) -> &'static str {
        match self {
            Self::Live => "/livez",
            Self::Ready => "/readyz",
            Self::Startup => "/startupz",
        }
    }
}

impl Args {
    /// Asks once, and ends with 0 or [`FAILURE`].
    ///
    /// # Errors
    /// When the system gives no runtime.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let asked = runtime.block_on(ask(&self.address, self.probe, self.timeout));
        Ok(match asked {
            Ok(()) => ExitCode::SUCCESS,
            Err(reason) => {
                eprintln!("bearerd: {}{}: {reason:#}", self.address, self.probe.path());
                ExitCode::from(FAILURE)
            }
        })
    }
}

/// Asks a listener. The error is what it said instead of yes, or why it said nothing within `timeout`.
pub(super) async fn ask(address: &str, probe: Probe, timeout: Duration) -> anyhow::Result<()> {
    let answered = tokio::time::timeout(timeout, exchange(address, probe.path())).await;
    let (status, body) = answered.with_context(|| format!("no answer within {}", humantime::format_duration(timeout)))??;
    if status == StatusCode::OK { Ok(()) } else { anyhow::bail!("{status}: {body}") }
}

/// One request on a connection of its own.
async fn exchange(address: &str, path: &str) -> anyhow::Result<(StatusCode, String)> {
    let stream = TcpStream::connect(address).await.context("cannot connect")?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(path).header(header::HOST, address).body(Empty::<Bytes>::new())?;
    let answer = async {
        let response = sender.send_request(request).await.context("no HTTP comes back")?;
        let status = response.status();
        let body = Limited::new(response.into_body(), BODY_BYTES).collect().await;
        // The status is what counts; a body that is too long or broken off has nothing to add.
        let body = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).trim().escape_debug().to_string()).unwrap_or_default();
        anyhow::Ok((status, body))
    };
    tokio::pin!(answer);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        // It ends before the answer is read where the other side closes; what has come by then is still there.
        _ = connection => answer.await,
    }
}
