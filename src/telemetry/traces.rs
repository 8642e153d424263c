//! Traces of requests: W3C trace context in and out, spans to an OpenTelemetry collector (OTLP over gRPC). Off by default, and free then: no span is made, and
//! callers' trace headers go on as they came.
//!
//! What a request does on its way finds its span in [`Context::current`], whichever task does it. A span never holds a header, a query, a token or a key.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::{SpanKind, Status, TraceContextExt as _, Tracer as _, TracerProvider as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::tonic_types::transport::ClientTlsConfig;
use opentelemetry_otlp::{ExporterBuildError, WithExportConfig as _, WithTonicConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider, SpanData, SpanExporter};

pub use opentelemetry::trace::{FutureExt, SpanKind as Kind};

/// Time for a collector to take a batch, and for the last one at the end of the process.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);
const LAST_EXPORT: Duration = Duration::from_secs(2);

/// Why nothing can be traced: the endpoint cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("`tracing.otlp_endpoint`: {0}")]
pub struct Error(#[from] ExporterBuildError);

/// Makes the spans of requests, and sends them behind the requests in batches; what a collector does not take in time is dropped.
pub struct Traces {
    provider: SdkTracerProvider,
    tracer: Tracer,
    propagator: TraceContextPropagator,
}

/// Travels in the context of what is traced, so that parts of it can begin spans of their own.
#[derive(Clone)]
struct Tracer(Arc<SdkTracer>);

impl Traces {
    /// Sends to the collector at `endpoint` the share `sample` of requests, and those whose callers trace them. Connects to nothing yet; to be called within a runtime.
    ///
    /// # Errors
    /// When the endpoint cannot be used.
    pub fn to_collector(endpoint: &str, sample: f64) -> Result<Self, Error> {
        let exporter = opentelemetry_otlp::SpanExporter::builder().with_tonic().with_endpoint(endpoint).with_timeout(EXPORT_TIMEOUT);
        let is_secured = endpoint.starts_with("https:");
        let exporter =
            if is_secured { exporter.with_tls_config(ClientTlsConfig::new().with_native_roots()).build()? } else { exporter.build()? };
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(Reporting { exporter, failing: AtomicBool::new(false) })
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(sample))))
            .with_resource(Resource::builder().with_service_name("bearerd").build())
            .build();
        let tracer = Tracer(Arc::new(provider.tracer("bearerd")));
        Ok(Self { provider, tracer, propagator: TraceContextPropagator::new() })
    }

    /// A request begins, with these headers.
    pub fn begin(&self, headers: &HeaderMap) -> Trace {
        let parent = self.propagator.extract_with_context(&Context::new(), &Received(headers));
        let span = self.tracer.0.span_builder("request").with_kind(SpanKind::Server);
        let span = self.tracer.0.build_with_context(span, &parent);
        Trace { request: parent.with_value(self.tracer.clone()).with_span(span), upstream: None }
    }

    /// Sends what is left. Blocks for at most two seconds.
    pub fn end(&self) {
        // Nobody is there any more to be told of spans that are lost.
        let _ = self.provider.shutdown_with_timeout(LAST_EXPORT);
    }
}

/// Tells once when the collector takes nothing any more, and once when it does again.
#[derive(Debug)]
struct Reporting {
    exporter: opentelemetry_otlp::SpanExporter,
    failing: AtomicBool,
}

impl SpanExporter for Reporting {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let outcome = self.exporter.export(batch).await;
        let failed_before = self.failing.swap(outcome.is_err(), Ordering::Relaxed);
        match &outcome {
            Err(error) if !failed_before => {
                tracing::warn!(%error, "the collector of traces takes no spans; they are dropped until it does")
            }
            Ok(()) if failed_before => tracing::info!("the collector of traces takes spans again"),
            _ => {}
        }
        outcome
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// One request that is traced.
pub struct Trace {
    request: Context,
    /// What is asked of the upstream.
    upstream: Option<Part>,
}

impl Trace {
    /// A part of it begins.
    pub fn part(&self, name: &'static str) -> Option<Part> {
        Part::begin(&self.request, name.into(), SpanKind::Internal)
    }

    /// The upstream's server at `address` is asked; what was asked of another one before has failed.
    pub fn ask_upstream(&mut self, name: String, address: String) {
        if let Some(failed) = self.upstream.take() {
            failed.fail("another server was asked");
        }
        self.upstream = Part::begin(&self.request, "upstream".into(), SpanKind::Client);
        if let Some(upstream) = &self.upstream {
            upstream.tell("bearerd.upstream", name);
            upstream.tell("server.address", address);
        }
    }

    /// The headers by which the upstream's own spans join the trace.
    pub fn headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        headers_of(self.upstream.as_ref().map_or(&self.request, |upstream| &upstream.0))
    }

    /// The upstream began to answer.
    pub fn upstream_answered(&self, status: u16) {
        if let Some(upstream) = &self.upstream {
            upstream.tell("http.response.status_code", i64::from(status));
        }
    }

    /// It is over. `attributes` hold no secret.
    pub fn end(mut self, name: String, status: u16, attributes: impl IntoIterator<Item = (&'static str, String)>) {
        if let Some(upstream) = self.upstream.take() {
            upstream.end();
        }
        let span = self.request.span();
        span.update_name(name);
        span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status)));
        span.set_attributes(attributes.into_iter().filter(|(_, value)| !value.is_empty()).map(|(key, value)| KeyValue::new(key, value)));
        if status >= 500 {
            span.set_status(Status::error(""));
        }
        span.end();
    }
}

/// A part of a request, with a span of its own.
pub struct Part(Context);

impl Part {
    /// `None` where nothing is traced.
    fn begin(parent: &Context, name: Cow<'static, str>, kind: SpanKind) -> Option<Self> {
        let Tracer(tracer) = parent.get::<Tracer>()?;
        let span = tracer.build_with_context(tracer.span_builder(name).with_kind(kind), parent);
        Some(Self(parent.with_span(span)))
    }

    /// A part of whatever this task is doing: `None` where that is not traced.
    pub fn of_current(name: impl FnOnce() -> String, kind: SpanKind) -> Option<Self> {
        Context::map_current(|current| current.has_active_span().then(|| Self::begin(current, name().into(), kind)).flatten())
    }

    /// For what belongs to this part.
    pub fn context(&self) -> Context {
        self.0.clone()
    }

    /// Tells more of it; never a secret.
    pub fn tell(&self, key: &'static str, value: impl Into<opentelemetry::Value>) {
        self.0.span().set_attribute(KeyValue::new(key, value));
    }

    /// It failed, and is over.
    pub fn fail(self, why: &'static str) {
        self.0.span().set_status(Status::error(why));
        self.end();
    }

    /// It is over.
    pub fn end(self) {
        self.0.span().end();
    }
}

/// The headers by which a server that is called now joins the trace; none where nothing is traced.
pub fn current_headers() -> Vec<(HeaderName, HeaderValue)> {
    Context::map_current(|current| if current.has_active_span() { headers_of(current) } else { Vec::new() })
}

/// Does `future` within `part`.
pub async fn within<F: Future>(part: Option<&Part>, future: F) -> F::Output {
    match part {
        Some(part) => future.with_context(part.context()).await,
        None => future.await,
    }
}

/// Does `future` within `part`, which ends with it: what goes on behind, such as a mint that others wait for too, does not prolong it.
pub async fn during<F: Future>(part: Option<Part>, future: F) -> F::Output {
    let output = within(part.as_ref(), future).await;
    if let Some(part) = part {
        part.end();
    }
    output
}

fn headers_of(context: &Context) -> Vec<(HeaderName, HeaderValue)> {
    let mut sent = Sent(Vec::with_capacity(2));
    TraceContextPropagator::new().inject_context(context, &mut sent);
    sent.0
}

struct Received<'h>(&'h HeaderMap);

impl Extractor for Received<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

struct Sent(Vec<(HeaderName, HeaderValue)>);

impl Injector for Sent {
    fn set(&mut self, key: &str, value: String) {
        // An empty `tracestate` says nothing.
        let pair = HeaderName::try_from(key).ok().zip(HeaderValue::try_from(value).ok());
        self.0.extend(pair.filter(|(_, value)| !value.is_empty()));
    }
}
