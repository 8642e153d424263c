//! Signals: the first one that ends drains, a second one ends at once; SIGHUP loads the configuration again.

use std::{io, thread};

use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::app::Stop;

/// What signals say.
pub(super) struct Signals {
    /// SIGTERM and SIGINT.
    pub(super) stop: watch::Receiver<Stop>,
    /// Counts SIGHUP.
    pub(super) hangups: watch::Receiver<u64>,
}

/// Watches signals on a thread of its own. The first SIGTERM or SIGINT sets `first`, the next [`Stop::Now`].
///
/// # Errors
/// When the system gives no thread or no signal handler.
pub(super) fn signals(first: Stop) -> io::Result<Signals> {
    let (hung_up, hangups) = watch::channel(0);
    let (sender, stop) = watch::channel(Stop::No);
    let runtime = Builder::new_current_thread().enable_io().build()?;
    let (mut terminate, mut interrupt, mut hangup) = {
        let _entered = runtime.enter();
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?, signal(SignalKind::hangup())?)
    };
    thread::Builder::new().name("bearerd-signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            tokio::spawn(async move {
                while hangup.recv().await.is_some() {
                    hung_up.send_modify(|count: &mut u64| *count += 1);
                }
            });
            for level in [first, Stop::Now] {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                sender.send_replace(level);
            }
        });
    })?;
    Ok(Signals { stop, hangups })
}
