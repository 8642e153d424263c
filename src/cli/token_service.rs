//! `bearerd token-service`: the embedded token service on its own, over HTTP.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use prometheus::Registry;
use tokio::sync::watch;

use super::BAD_CONFIGURATION;
use super::configured::{Configured, configured};
use super::signals::signals;
use crate::app::{self, Stop};
use crate::clock::Clock;
use crate::config::token_service::Embedded;
use crate::config::{Config, Loaded};
use crate::issuer::metrics::Families;
use crate::issuer::{Issuer, server};

/// Where it listens unless the configuration says otherwise.
const DEFAULT_ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8090);

/// Arguments of `bearerd token-service`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  bearerd token-service -c bearerd.yaml")]
pub struct Args {
    /// The configuration file.
    #[arg(short, long, value_name = "FILE", default_value = "bearerd.yaml")]
    config: PathBuf,
    /// Which of its token services to run; needed where several are embedded.
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
}

impl Args {
    /// Carries out the command: serves until SIGINT or SIGTERM.
    ///
    /// # Errors
    /// When the address cannot be listened on. A mistake in the configuration or a file that it names is printed, and is exit code
    /// [`BAD_CONFIGURATION`].
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let Configured { loaded: Loaded { config, .. }, logs: _logs, .. } = match configured(&self.config)? {
            Ok(configured) => configured,
            Err(code) => return Ok(code),
        };
        let clock = Clock::system();
        let Opened { address, issuer, embedded, registry } = match self.open(&config, &clock) {
            Ok(opened) => opened,
            Err(message) => {
                eprintln!("bearerd: {message}");
                return Ok(ExitCode::from(BAD_CONFIGURATION));
            }
        };
        let listener = app::bind(address, || "the token service".to_owned())?;
        let stop = signals(Stop::Drain)?.stop;
        let runtime = app::runtime("bearerd-tokens", thread::available_parallelism()?.get())?;
        runtime.spawn(clock.keep_in_step());
        let followed = Arc::clone(&issuer);
        runtime.spawn(async move { followed.follow(&embedded).await });
        runtime.block_on(serve(listener, issuer, registry, stop))?;
        Ok(ExitCode::SUCCESS)
    }

    fn open(&self, config: &Config, clock: &Clock) -> Result<Opened, String> {
        let (name, embedded) = choose(config, self.service.as_deref())?;
        let issuer = Issuer::open(embedded, clock.clone()).map_err(|error| format!("token service `{name}`: {error}"))?;
        let registry = Registry::new();
        let families = Families::new(&registry).map_err(|error| error.to_string())?;
        issuer.count_in(families.of(name));
        Ok(Opened { address: embedded.address.unwrap_or(DEFAULT_ADDRESS), issuer, embedded: embedded.clone(), registry })
    }
}

/// The service that was chosen.
struct Opened {
    address: SocketAddr,
    issuer: Arc<Issuer>,
    embedded: Embedded,
    registry: Registry,
}

fn choose<'c>(config: &'c Config, wanted: Option<&str>) -> Result<(&'c str, &'c Embedded), String> {
    let embedded: Vec<(&str, &Embedded)> = config.embedded().collect();
    let names = || embedded.iter().map(|(name, _)| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    match (wanted, embedded.as_slice()) {
        (_, []) => Err("the configuration has no token service with `kind: embedded`".to_owned()),
        (None, [only]) => Ok(*only),
        (None, _) => Err(format!("several token services are embedded: choose one of {} with --service", names())),
        (Some(wanted), all) => {
            let found = all.iter().find(|(name, _)| *name == wanted).copied();
            found.ok_or_else(|| format!("no embedded token service is named `{wanted}`: there is {}", names()))
        }
    }
}

async fn serve(listener: TcpListener, issuer: Arc<Issuer>, registry: Registry, mut stop: watch::Receiver<Stop>) -> anyhow::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let keys = issuer.key_count();
    eprintln!("token service on http://{}, {keys} {}", listener.local_addr()?, if keys == 1 { "key" } else { "keys" });
    let stopped = async move {
        let _ = stop.wait_for(|stop| *stop != Stop::No).await;
    };
    server::serve(server::router_with_metrics(issuer, registry), listener, stopped).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "token_services:
  iap: { kind: iap, url: 'http://localhost' }
  a: { kind: embedded, keys_file: a, signing_key_file: a }
  b: { kind: embedded, keys_file: b, signing_key_file: b }
";

    #[test]
    fn the_service_must_be_plain() {
        let two: Config = serde_saphyr::from_str(TWO).unwrap();
        assert_eq!(choose(&two, None).unwrap_err(), "several token services are embedded: choose one of `a`, `b` with --service");
        assert_eq!(choose(&two, Some("b")).unwrap().0, "b");
        assert_eq!(choose(&two, Some("iap")).unwrap_err(), "no embedded token service is named `iap`: there is `a`, `b`");
        let one: Config = serde_saphyr::from_str(TWO.rsplit_once("  b:").unwrap().0).unwrap();
        assert_eq!(choose(&one, None).unwrap().0, "a");
        assert!(choose(&Config::default(), None).is_err());
    }
}
