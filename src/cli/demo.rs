//! `bearerd demo`: everything at once on loopback, nothing to configure.

mod echo;

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::sync::watch;
use tracing::Level;

use super::signals::signals;
use crate::app::{self, Sockets, Stop};
use crate::clock::Clock;
use crate::config::{self, Environment};
use crate::issuer::api_key::ApiKey;
use crate::issuer::grants::Grants;
use crate::issuer::signing_key::SigningKey;
use crate::issuer::{self, Issuer, Settings};
use crate::secret::Secret;
use crate::telemetry::logs::{self, Form};

const APP: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 3000);
const TOKEN_SERVICE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8090);

/// The configuration that the demo runs with.
const CONFIGURATION: &str = r#"token_services:
  default: { kind: iap, url: "http://127.0.0.1:8090" }
upstreams:
  app: { servers: ["127.0.0.1:3000"] }
routes:
  - { name: public, match: { path_prefix: /public }, auth: none, upstream: app }
  - { name: app, upstream: app }
shutdown: { delay: 0s, drain_timeout: 1s }
"#;

const GUIDE: &str = "
In front of an app on 127.0.0.1:3000, which answers with the request that it received. Try, in another terminal:

  The app gets a Bearer token for alice; her key stays here.
    curl -s http://127.0.0.1:8080/hello -H 'X-API-Key: demo-key-alice'

  A key that nobody knows: 401, and the answer says why.
    curl -si http://127.0.0.1:8080/hello -H 'X-API-Key: mistyped'

  A route that needs no key: the app is asked without a token.
    curl -s http://127.0.0.1:8080/public/hello

  How often a token was asked for, and how often one was at hand: repeat the first command, and only the hits grow.
    curl -s http://127.0.0.1:9902/metrics | grep -E '^bearerd_(mints_total|cache_requests_total)'

  What happens, live: the admin page.
    http://127.0.0.1:9901/

Ctrl-C ends it.
";

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  bearerd demo")]
pub struct Args {}

impl Args {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let _guard = logs::set_up(Level::INFO, Form::fitting())?;
        let loaded = config::from_text(CONFIGURATION, "demo", &Environment::default(), Path::new("."))?;
        let clock = Clock::system();
        let app = app::bind(APP, || "the demo's app".to_owned())?;
        let token_service = app::bind(TOKEN_SERVICE, || "the demo's token service".to_owned())?;
        let sockets = Sockets::bind(&loaded.config)?;
        // There is nothing to drain for: nobody but the person who ends it is calling.
        let stop = signals(Stop::Now)?.stop;
        surroundings(app, token_service, clock.clone(), stop.clone())?;

        println!("bearerd {} demo. Its configuration:\n\n{}{GUIDE}", env!("CARGO_PKG_VERSION"), indented(CONFIGURATION));
        app::run(&loaded, sockets, &clock, stop, None)?;
        Ok(ExitCode::SUCCESS)
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

/// Starts what bearerd stands between: the token service and the app, on a thread of their own.
fn surroundings(app: TcpListener, token_service: TcpListener, clock: Clock, mut stop: watch::Receiver<Stop>) -> anyhow::Result<()> {
    let issuer = issuer(clock)?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let (app, token_service) = {
        let _entered = runtime.enter();
        (tokio::net::TcpListener::from_std(app)?, tokio::net::TcpListener::from_std(token_service)?)
    };
    thread::Builder::new().name("bearerd-demo".to_owned()).spawn(move || {
        runtime.block_on(async move {
            let ended = async move {
                let _ = stop.wait_for(|stop| *stop != Stop::No).await;
            };
            tokio::join!(echo::serve(app), issuer::server::serve(issuer::server::router(issuer), token_service, ended))
        })
    })?;
    Ok(())
}

fn issuer(clock: Clock) -> Result<Arc<Issuer>, issuer::Error> {
    let key = |name: &str, scopes: &[&str]| {
        let grants = Grants { scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(), ..Grants::default() };
        ApiKey::new(name, &Secret::from(format!("demo-key-{name}")), grants)
    };
    let keys = vec![key("alice", &["DEMO.READ", "DEMO.WRITE"]), key("bob", &["DEMO.READ"])];
    let hour = Duration::from_secs(3600);
    let settings = Settings {
        issuer: "bearerd demo".to_owned(),
        audience: "demo".to_owned(),
        lifetime: hour,
        session_lifetime: 12 * hour,
        ..Settings::default()
    };
    Issuer::new(settings, keys, SigningKey::generate()?, clock)
}
