//! When bearerd's own certificates end, as their files say: `certificate_expiry_timestamp_seconds`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntGaugeVec, Opts, Registry};
use tokio::{task, time};

use super::files;

/// How often the files are read for it.
const READ: Duration = Duration::from_secs(10);

/// The files of the configuration that serves, and when the certificate in each ends, in seconds since 1970.
pub struct Certificates {
    ends: ArcSwap<BTreeMap<PathBuf, Option<i64>>>,
}

struct Ends {
    certificates: Arc<Certificates>,
    gauge: IntGaugeVec,
}

impl Certificates {
    /// None yet, shown in a registry.
    ///
    /// # Errors
    /// Never in practice: the name is fixed.
    pub fn register(registry: &Registry) -> Result<Arc<Self>, prometheus::Error> {
        let certificates = Arc::new(Self { ends: ArcSwap::default() });
        let options = Opts::new(
            "certificate_expiry_timestamp_seconds",
            "When a certificate of bearerd's own ends, in seconds since 1970, by its file.",
        );
        let gauge = IntGaugeVec::new(options.namespace("bearerd"), &["file"])?;
        registry.register(Box::new(Ends { certificates: Arc::clone(&certificates), gauge }))?;
        Ok(certificates)
    }

    /// These files from now on. Reads them.
    pub fn watch(&self, files: Vec<PathBuf>) {
        self.ends.store(Arc::new(files.into_iter().map(|file| (file, None)).collect()));
        self.read();
    }

    /// What cannot be read keeps what it said last.
    fn read(&self) {
        let read = |(file, known): (&PathBuf, &Option<i64>)| (file.clone(), files::not_after(file).ok().or(*known));
        let before = self.ends.load_full();
        let now = Arc::new(before.iter().map(read).collect());
        // A reload in between has other files, which were read just now.
        self.ends.compare_and_swap(&before, now);
    }

    /// Reads them again, for as long as the process lives.
    pub async fn keep(self: Arc<Self>) {
        loop {
            time::sleep(READ).await;
            let this = Arc::clone(&self);
            // A panic in there would be one of the system's; they are read again.
            let _ = task::spawn_blocking(move || this.read()).await;
        }
    }
}

impl Collector for Ends {
    fn desc(&self) -> Vec<&Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.gauge.reset();
        for (file, end) in self.certificates.ends.load().iter() {
            if let Some(end) = end {
                self.gauge.with_label_values(&[&*file.to_string_lossy()]).set(*end);
            }
        }
        self.gauge.collect()
    }
}
