//! Signals: the first one drains, a second one ends at once.

use std::{io, thread};

use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::app::Stop;

/// Watches SIGTERM and SIGINT on a thread of its own. The first sets `first`, the next [`Stop::Now`].
///
/// # Errors
/// When the system gives no thread or no signal handler.
pub(super) fn stop_on_signals(first: Stop) -> io::Result<watch::Receiver<Stop>> {
    let (sender, stop) = watch::channel(Stop::No);
    let runtime = Builder::new_current_thread().enable_io().build()?;
    let (mut terminate, mut interrupt) = {
        let _entered = runtime.enter();
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
    };
    thread::Builder::new().name("bearerd-signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            for level in [first, Stop::Now] {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                sender.send_replace(level);
            }
        });
    })?;
    Ok(stop)
}
