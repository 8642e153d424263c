//! Another configuration without another process: on a signal, when the file changes, when an operator asks. A file with mistakes changes nothing.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time;

use super::generation::{Current, Former, Foundation, Generation, needs_restart};
use crate::admin::control::{Control, Outcome, RouteShown, Served};
use crate::admin::guard::Guard;
use crate::config::route::Auth;
use crate::config::{self, Config, Resolved};
use crate::exchange::Sink;
use crate::telemetry::logs::Levels;

/// How often the file is looked at. Read rather than watched: that works on every file system and for every way to change a file, the swap of a link among them.
const POLL: Duration = Duration::from_secs(1);
/// How long the names of a new upstream are waited for before it serves.
const LOOK_UP: Duration = Duration::from_secs(2);

/// Where a configuration came from, and who says that there is another.
pub struct Source {
    /// The file.
    pub file: PathBuf,
    /// What the file was when it was read ([`config::fingerprint`]).
    pub fingerprint: Option<u64>,
    /// Changes with each SIGHUP.
    pub hangups: watch::Receiver<u64>,
    /// The level of the log, where there is one to be set.
    pub levels: Option<Levels>,
}

/// Takes over each new configuration, for as long as the process lives.
pub(super) struct Reloader {
    pub(super) source: Source,
    pub(super) foundation: Foundation,
    pub(super) current: Current,
    /// What was there at the start: what cannot change is compared with it.
    pub(super) running: Config,
    pub(super) generation: Generation,
    pub(super) latest: Arc<ArcSwap<Latest>>,
    pub(super) control: Arc<Control>,
    pub(super) guard: Arc<Guard>,
}

/// What the end of the process needs of the configuration of the moment.
pub(super) struct Latest {
    pub(super) shutdown: config::Shutdown,
    pub(super) sinks: Vec<Arc<Sink>>,
}

impl Reloader {
    /// `asked` is what operators ask for; each is told what became of it.
    pub(super) async fn run(mut self, mut asked: mpsc::Receiver<oneshot::Sender<Outcome>>) {
        let mut known = self.source.fingerprint;
        let mut hangups = self.source.hangups.clone();
        loop {
            let asker = tokio::select! {
                // Where nobody can send it any more, this waits no longer for it.
                Ok(()) = hangups.changed() => None,
                Some(asker) = asked.recv() => Some(asker),
                () = time::sleep(POLL) => {
                    let found = self.fingerprint().await;
                    // A file that is away for a moment is being replaced.
                    if found.is_none() || found == known { continue }
                    None
                }
            };
            known = self.fingerprint().await;
            let outcome = self.reload().await;
            self.control.note(&outcome);
            if let Some(asker) = asker {
                // Whoever asked may have hung up.
                let _ = asker.send(outcome);
            }
        }
    }

    async fn fingerprint(&self) -> Option<u64> {
        let file = self.source.file.clone();
        tokio::task::spawn_blocking(move || config::fingerprint(&file)).await.ok().flatten()
    }

    async fn reload(&mut self) -> Outcome {
        let file = self.source.file.clone();
        let loaded = match tokio::task::spawn_blocking(move || config::load(&file)).await {
            Ok(Ok(loaded)) => loaded,
            Ok(Err(mistakes)) => return refused(mistakes.to_string(), mistakes.diagnostics()),
            Err(_) => return refused("reading it failed".to_owned(), Vec::new()),
        };
        for warning in loaded.lapsed.iter().chain(&loaded.warnings) {
            tracing::warn!("{warning}");
        }
        let mut next = match Generation::build(&self.foundation, loaded.config, Former::Generation(&self.generation)) {
            Ok(next) => next,
            Err(error) => return refused(error.to_string(), Vec::new()),
        };
        let admin_token = match super::admin_token(&next.config) {
            Ok(token) => token,
            Err(error) => return refused(error.to_string(), Vec::new()),
        };
        next.look_up(&self.generation, LOOK_UP).await;
        next.take_over(&self.current, &self.generation, &self.foundation.exchange);
        if let Some(levels) = &self.source.levels {
            levels.set(next.config.logging.level.of_log());
        }
        // What is bound beyond loopback stays guarded, even where the file wants it on loopback and without a token, which only a new start can do.
        if admin_token.is_some() || self.running.admin.address.ip().is_loopback() {
            self.guard.change_token(admin_token);
        }
        self.control.show(next.served(loaded.resolved));
        self.latest.store(Arc::new(next.latest()));
        let certificates = (Arc::clone(&self.foundation.certificates), next.config.certificates());
        // A panic in there would be one of the system's: then the files are read with the next ones.
        let _ = tokio::task::spawn_blocking(move || certificates.0.watch(certificates.1)).await;
        let needs_restart = needs_restart(&self.running, &next.config);
        tracing::info!(routes = next.config.routes.len(), "the configuration was reloaded");
        if !needs_restart.is_empty() {
            tracing::warn!(keys = needs_restart.join(", "), "these keys take effect only when bearerd starts again");
        }
        self.generation = next;
        Outcome::Reloaded { needs_restart }
    }
}

impl Generation {
    pub(super) fn latest(&self) -> Latest {
        Latest { shutdown: self.config.shutdown, sinks: self.sinks.iter().map(|(sink, _)| Arc::clone(&sink.part)).collect() }
    }

    /// What operators see of it.
    pub(super) fn served(&self, configuration: Resolved) -> Served {
        let shown = |(place, section): (usize, &config::Route)| {
            let matches = &section.matches;
            let prefix = || matches.path_prefix.as_ref().map(|prefix| format!("{prefix}/**"));
            let regex = || matches.path_regex.as_ref().map(|regex| format!("~ {regex}"));
            RouteShown {
                name: section.name_at(place),
                hosts: matches.hosts.clone(),
                path: matches.path.clone().or_else(prefix).or_else(regex).unwrap_or_else(|| "**".to_owned()),
                methods: matches.methods.clone(),
                served_by: match (&section.upstream, &section.token_api, section.respond) {
                    (Some(upstream), ..) => format!("upstream {upstream}"),
                    (_, Some(_), _) => "token API".to_owned(),
                    (_, _, Some(respond)) => format!("status {}", respond.status),
                    (None, None, None) => "the proxy that asks".to_owned(),
                },
                protected: section.auth == Auth::Required,
                enforced: section.enforce,
            }
        };
        Served { routes: self.config.routes.iter().enumerate().map(shown).collect(), configuration }
    }
}

fn refused(error: String, diagnostics: Vec<config::Diagnostic>) -> Outcome {
    tracing::error!("the configuration was not reloaded, the one before goes on:\n{error}");
    Outcome::Refused { error, diagnostics }
}
