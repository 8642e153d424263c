//! `bearerd webhook`: what `bearerd inject` does, for pods as they are admitted.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use prometheus::Registry;
use tracing::Level;

use super::BAD_CONFIGURATION;
use super::inject::DefaultArgs;
use super::signals::signals;
use crate::app::{self, Stop};
use crate::config::listener::{CertificatePair, ClientCertificates, Tls};
use crate::kubernetes::webhook::metrics::Metrics;
use crate::kubernetes::webhook::server;
use crate::telemetry::logs::{self, Form};
use crate::tls::expiry::Certificates;
use crate::tls::server::Listening;

/// Arguments of `bearerd webhook`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  bearerd webhook --certificate /tls/tls.crt --private-key /tls/tls.key --image registry.example.com/bearerd:0.1.0\n\nReviews come in at /inject, probes at /healthz, both over HTTPS; metrics are at /metrics of the other address, over HTTP.\n\nExit codes: 0 ended by a signal, 1 an address cannot be listened on, 78 the certificate files cannot be used."
)]
pub struct Args {
    /// Where it listens.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:8443")]
    address: SocketAddr,
    /// Where it shows its metrics to Prometheus.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:9902")]
    metrics_address: SocketAddr,
    /// PEM file of the certificate, with its chain; read again when it changes.
    #[arg(long, value_name = "FILE")]
    certificate: PathBuf,
    /// PEM file of its key; read again when it changes.
    #[arg(long, value_name = "FILE")]
    private_key: PathBuf,
    /// PEM file of the authorities one of which the caller's certificate must be from; without it anybody may ask what would become of an object.
    #[arg(long, value_name = "FILE")]
    client_ca: Option<PathBuf>,
    #[command(flatten)]
    defaults: DefaultArgs,
}

impl Args {
    /// Serves until SIGINT or SIGTERM.
    ///
    /// # Errors
    /// When an address cannot be listened on. Certificate files that cannot be used are told, and are exit code [`BAD_CONFIGURATION`].
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let defaults = self.defaults.defaults()?;
        let _guard = logs::set_up(Level::INFO, Form::fitting())?;
        let files = vec![self.certificate.clone()];
        let section = Tls {
            certificates: vec![CertificatePair { certificate: self.certificate, private_key: self.private_key }],
            client_ca: self.client_ca,
            client_certificates: ClientCertificates::Required,
        };
        let tls = match Listening::http1(&section) {
            Ok(tls) => Arc::new(tls),
            Err(error) => {
                tracing::error!("{error}");
                return Ok(ExitCode::from(BAD_CONFIGURATION));
            }
        };
        let listener = app::bind(self.address, || "--address".to_owned())?;
        let metrics_listener = app::bind(self.metrics_address, || "--metrics-address".to_owned())?;
        let registry = Registry::new();
        let metrics = Metrics::register(&registry)?;
        let certificates = Certificates::register(&registry)?;
        certificates.watch(files);
        let mut stop = signals(Stop::Drain)?.stop;
        let runtime = app::runtime("bearerd-webhook", 2)?;
        let router = server::router(defaults, metrics);
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let metrics_listener = tokio::net::TcpListener::from_std(metrics_listener)?;
            let (address, metrics) = (listener.local_addr()?, metrics_listener.local_addr()?);
            tracing::info!(version = env!("CARGO_PKG_VERSION"), %address, %metrics, "listening");
            tokio::spawn(Arc::clone(&tls).keep());
            tokio::spawn(certificates.keep());
            tokio::spawn(server::serve_metrics(server::metrics_router(registry), metrics_listener));
            let stopped = async move {
                let _ = stop.wait_for(|stop| *stop != Stop::No).await;
            };
            server::serve(router, listener, tls, stopped).await;
            anyhow::Ok(())
        })?;
        Ok(ExitCode::SUCCESS)
    }
}
