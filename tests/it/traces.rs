//! Traces: spans at a collector that records, W3C trace context in and out.

use bearerd::app::Stop;
use rustix::process::Signal;

use crate::support::client::get;
use crate::support::collector::{Collector, attribute, hex};
use crate::support::process::Process;
use crate::support::stage::{Stage, configuration, surroundings};
use crate::support::token_service::{Behaviour, Operation};

const ROUTES: &str =
    "  - { name: shadow, match: { path_prefix: /shadow }, enforce: false, upstream: app }\n  - { name: app, upstream: app }";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

async fn traced(sample: &str) -> (Collector, Stage) {
    let collector = Collector::start().await;
    let section = format!("tracing: {{ otlp_endpoint: \"{}\", sample: {sample} }}\nshutdown: {{ delay: 0s }}", collector.url());
    (collector, Stage::configured(&section, ROUTES).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_goes_through_with_a_span_for_each_part() {
    let (collector, stage) = traced("0").await;
    let headers = [("x-api-key", "canary-key"), ("traceparent", &format!("00-{TRACE}-{CALLER}-01")), ("tracestate", "vendor=1")];
    assert_eq!(get(stage.bearerd.address(), "/a?secret=canary", &headers).await.status, 200);
    let request = collector.wait_for(1, "GET app").await.remove(0);
    assert_eq!((hex(&request.trace_id), hex(&request.parent_span_id)), (TRACE.to_owned(), CALLER.to_owned()));
    let told = |key: &str| attribute(&request, key);
    assert_eq!(
        (told("url.path"), told("http.response.status_code"), told("bearerd.decision")),
        ("/a".into(), "200".into(), "allowed".into())
    );
    let exchange = collector.wait_for(1, "exchange").await.remove(0);
    let create = collector.wait_for(1, "token service create").await.remove(0);
    let upstream = collector.wait_for(1, "upstream").await.remove(0);
    assert_eq!((&exchange.parent_span_id, &upstream.parent_span_id), (&request.span_id, &request.span_id));
    assert_eq!(create.parent_span_id, exchange.span_id, "the mint belongs to the request that made it necessary");
    assert_eq!((attribute(&upstream, "bearerd.upstream"), attribute(&upstream, "http.response.status_code")), ("app".into(), "200".into()));
    // Both servers can go on with it.
    let sent = stage.last();
    assert_eq!(sent.head.header("traceparent"), Some(&*format!("00-{TRACE}-{}-01", hex(&upstream.span_id))));
    assert_eq!(sent.head.header("tracestate"), Some("vendor=1"));
    let call = &stage.service.recorded()[0];
    assert_eq!(call.head.header("traceparent"), Some(&*format!("00-{TRACE}-{}-01", hex(&create.span_id))));
    let all = format!("{:?}", collector.spans());
    assert!(!all.contains("canary") && !all.contains("eyJ"), "{all}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_is_marked_and_a_hit_asks_no_service() {
    let (collector, stage) = traced("1").await;
    assert_eq!(get(stage.bearerd.address(), "/", &[("x-api-key", "a")]).await.status, 200);
    assert_eq!(get(stage.bearerd.address(), "/", &[("x-api-key", "a")]).await.status, 200);
    collector.wait_for(2, "GET app").await;
    assert_eq!(collector.wait_for(1, "token service create").await.len(), 1);
    stage.service.always(Operation::Create, Behaviour::status(500));
    assert_eq!(get(stage.bearerd.address(), "/", &[("x-api-key", "b")]).await.status, 503);
    let failed = collector.wait_for(3, "GET app").await.remove(2);
    assert_eq!((attribute(&failed, "bearerd.reason"), failed.status.unwrap().code), ("token_service_unavailable".into(), 2));
    let call = collector.wait_for(2, "token service create").await.remove(1);
    assert_eq!((call.status.unwrap().message, call.trace_id), ("unavailable".into(), failed.trace_id));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_sampled_is_not_sent_and_the_last_spans_are() {
    let (collector, stage) = traced("0").await;
    let unsampled = format!("00-{TRACE}-{CALLER}-00");
    assert_eq!(get(stage.bearerd.address(), "/", &[("x-api-key", "a"), ("traceparent", &unsampled)]).await.status, 200);
    let sent = stage.last().head.header("traceparent").unwrap().to_owned();
    assert!(sent.starts_with(&format!("00-{TRACE}-")) && sent.ends_with("-00") && !sent.contains(CALLER), "{sent}");
    // In shadow mode a request goes on exactly as it came.
    assert_eq!(get(stage.bearerd.address(), "/shadow", &[("x-api-key", "a"), ("traceparent", &unsampled)]).await.status, 200);
    assert_eq!(stage.last().head.header("traceparent"), Some(&*unsampled));
    let sampled = format!("00-{TRACE}-{CALLER}-01");
    assert_eq!(get(stage.bearerd.address(), "/last", &[("x-api-key", "a"), ("traceparent", &sampled)]).await.status, 200);
    stage.bearerd.stop(Stop::Drain);
    stage.bearerd.ended().await;
    let paths: Vec<_> = collector.spans().iter().filter(|span| span.name == "GET app").map(|span| attribute(span, "url.path")).collect();
    assert_eq!(paths, ["/last"]);
}

#[tokio::test]
async fn without_a_collector_trace_headers_go_on_as_they_came() {
    let stage = Stage::with_routes(ROUTES).await;
    let parent = format!("00-{TRACE}-{CALLER}-01");
    assert_eq!(get(stage.bearerd.address(), "/", &[("x-api-key", "a"), ("traceparent", &parent)]).await.status, 200);
    assert_eq!(stage.last().head.header("traceparent"), Some(&*parent));
    assert_eq!(stage.service.recorded()[0].head.header("traceparent"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_away_costs_no_request_and_is_told_of_once() {
    let (service, upstream) = surroundings().await;
    let section = "tracing: { otlp_endpoint: \"http://127.0.0.1:1\", sample: 1.0 }\nshutdown: { delay: 0s }";
    let process = Process::run(&configuration(&service, &upstream, section, ROUTES));
    let callers = process.addresses().await.callers[0];
    let is_told = |line: &String| line.contains("the collector of traces takes no spans");
    while process.output().stderr.count(is_told) == 0 {
        assert_eq!(get(callers, "/", &[("x-api-key", "a")]).await.status, 200);
    }
    assert_eq!(get(callers, "/", &[("x-api-key", "a")]).await.status, 200);
    process.signal(Signal::TERM);
    let ended = process.ended().await;
    assert_eq!((ended.code(), ended.stderr.iter().filter(|line| is_told(line)).count()), (0, 1), "{:?}", ended.stderr);
}
