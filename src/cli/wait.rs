//! `bearerd wait`: until a bearerd is ready.

use std::process::ExitCode;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::time::{Instant, sleep};

use super::UNAVAILABLE;
use super::probe::{DEFAULT_ADDRESS, Probe, ask};

/// The time between two questions.
const PAUSE: Duration = Duration::from_millis(100);
/// How long one question may take: a listener that takes connections and says nothing does not use up all of the time.
const QUESTION: Duration = Duration::from_secs(2);

/// Arguments of `bearerd wait`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  bearerd wait && exec ./app\n  bearerd wait --address 127.0.0.1:9902 --timeout 2m\n\nExit codes: 0 it is ready, 69 it was not in time; standard error has what it said last."
)]
pub struct Args {
    /// `host:port` of bearerd's metrics or admin listener.
    #[arg(long, value_name = "ADDRESS", default_value = DEFAULT_ADDRESS)]
    address: String,
    /// How long to wait at most.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

impl Args {
    /// Waits, and ends with 0 or [`UNAVAILABLE`].
    ///
    /// # Errors
    /// When the system gives no runtime.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        Ok(match runtime.block_on(ready(&self.address, self.timeout)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(last) => {
                let waited = humantime::format_duration(self.timeout);
                eprintln!("bearerd: {} is not ready after {waited}: {last:#}", self.address);
                ExitCode::from(UNAVAILABLE)
            }
        })
    }
}

/// The error is why it was not ready when it was last asked.
async fn ready(address: &str, timeout: Duration) -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        let left = timeout.saturating_sub(start.elapsed());
        let asked = ask(address, Probe::Ready, left.clamp(PAUSE, QUESTION)).await;
        if asked.is_ok() || start.elapsed() + PAUSE >= timeout {
            return asked;
        }
        sleep(PAUSE).await;
    }
}
