#!/usr/bin/env python3
"""What bearerd costs beside what a user would pick instead: nginx, HAProxy and Envoy on the same job, in interleaved rounds.

    make bench-peers            # about six minutes
    make bench-peers QUICK=1    # under two

1,000 API keys in turn, tokens of the embedded service. Load and upstream on processor 0, each proxy, with one worker, on processor 1. The maps of nginx and
HAProxy only look a word up in a file; of all rows bearerd alone mints, renews and revokes. Of `Envoy ext_authz` the service that it asks is not counted (nginx,
answering from memory); of `bearerd behind nginx` both are. CPU time is that of the proxy's processes over the requests that they answered. Quote ratios of one
run. BEARERD names another build, such as target/dist/bearerd.
"""
import argparse, json, os, pathlib, platform, re, statistics, subprocess, tempfile, time

import protocols
import scale
from cpu_per_request import (BEARERD, KEYS, RELEASE, ROOT, ROUTE, TEMPORARY, TICKS, configuration, free_port, keys_file, mint_over_http, start, starts, tokens,
                             wait_for)

CONNECTIONS = 64
RATE = 1000
ENVOY = ROOT / "target" / "peers" / "envoy-venv" / "bin" / "envoy"
MANAGER = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"


def tree(pid):
    found = [pid]
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += tree(int(child))
    return found


def cpu(pids):
    user = system = 0
    for pid in (each for root in pids for each in tree(root)):
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        user, system = user + int(fields[11]), system + int(fields[12])
    return user / TICKS, system / TICKS


def rss_mib(pids):
    status = lambda pid: pathlib.Path(f"/proc/{pid}/status").read_text()
    return sum(int(re.search(r"VmRSS:\s+(\d+)", status(pid)).group(1)) for root in pids for pid in tree(root)) / 1024


def nginx(folder, name, http):
    (folder / f"{name}.conf").write_text(f"""
worker_processes 1; daemon off; pid {folder}/{name}.pid; error_log {folder}/{name}.err crit; user root;
events {{ worker_connections 8192; }}
http {{ {TEMPORARY} access_log off; keepalive_requests 100000000; keepalive_timeout 3600s; map_hash_max_size 65536; map_hash_bucket_size 4096;
{http} }}
""")
    return ["nginx", "-c", folder / f"{name}.conf", "-p", folder]


PASS = 'proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header X-Api-Key "";'


def nginx_map(folder, port, upstream, found):
    lines = "".join(f' "{key}" "Bearer {token}";' for key, token in found.items())
    return nginx(folder, "nginx-map", f"""
 map $http_x_api_key $bearer {{ default "";{lines} }}
 upstream app {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 100000000; }}
 server {{ listen 127.0.0.1:{port} backlog=8192;
  location / {{ if ($bearer = "") {{ return 401; }} {PASS} proxy_set_header Authorization $bearer; proxy_pass http://app; }} }}""")


def service(folder, port):
    """Answers as a service that has the token in memory."""
    token = "x" * 700
    return nginx(folder, "service", f"""
 server {{ listen 127.0.0.1:{port} backlog=8192; add_header X-Token "Bearer {token}"; add_header Authorization "Bearer {token}"; add_header Cache-Control "max-age=300";
  location / {{ return 200 ""; }} }}""")


def nginx_auth_request(folder, port, upstream, asked):
    return nginx(folder, "nginx-auth", f"""
 proxy_cache_path {folder}/cache levels=1:2 keys_zone=auth:10m max_size=100m;
 upstream app {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 100000000; }}
 upstream asked {{ server 127.0.0.1:{asked}; keepalive 256; keepalive_requests 100000000; }}
 server {{ listen 127.0.0.1:{port} backlog=8192;
  location / {{ auth_request /_ask; auth_request_set $bearer $upstream_http_x_token; {PASS} proxy_set_header Authorization $bearer; proxy_pass http://app; }}
  location = /_ask {{ internal; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_pass_request_body off; proxy_set_header Content-Length "";
   proxy_cache auth; proxy_cache_key $http_x_api_key; proxy_cache_valid 200 5m; proxy_pass http://asked; }} }}""")


def nginx_asks_bearerd(folder, port, upstream, asked):
    return nginx(folder, "nginx-decision", f"""
 upstream app {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 100000000; }}
 upstream asked {{ server 127.0.0.1:{asked}; keepalive 256; keepalive_requests 100000000; }}
 server {{ listen 127.0.0.1:{port} backlog=8192;
  location / {{ auth_request /_ask; auth_request_set $bearer $upstream_http_authorization; {PASS} proxy_set_header Authorization $bearer; proxy_pass http://app; }}
  location = /_ask {{ internal; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_pass_request_body off; proxy_set_header Content-Length "";
   proxy_set_header X-Original-URI $request_uri; proxy_set_header X-Original-Method $request_method; proxy_pass http://asked; }} }}""")


def haproxy_map(folder, port, upstream, found):
    (folder / "keys.map").write_text("".join(f"{key} Bearer {token}\n" for key, token in found.items()))
    (folder / "haproxy.cfg").write_text(f"""
global
  nbthread 1
  maxconn 8192
defaults
  mode http
  timeout connect 5s
  timeout client 3600s
  timeout server 3600s
  http-reuse always
frontend callers
  bind 127.0.0.1:{port}
  http-request set-var(txn.bearer) req.hdr(x-api-key),map_str({folder}/keys.map)
  http-request deny deny_status 401 unless {{ var(txn.bearer) -m found }}
  http-request set-header authorization %[var(txn.bearer)]
  http-request del-header x-api-key
  default_backend app
backend app
  server one 127.0.0.1:{upstream} pool-max-conn 256
""")
    return ["haproxy", "-db", "-f", folder / "haproxy.cfg"]


def cluster(name, port):
    return {"name": name, "type": "STATIC", "connect_timeout": "1s", "load_assignment": {"cluster_name": name, "endpoints": [
        {"lb_endpoints": [{"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}]}]}}


def envoy(folder, name, port, filters, clusters, secrets=()):
    kind = lambda filter, **more: {"@type": f"type.googleapis.com/envoy.extensions.filters.http.{filter}", **more}
    chain = [{"name": place, "typed_config": kind(*config[:1], **config[1])} for place, config in filters]
    chain.append({"name": "envoy.filters.http.router", "typed_config": kind("router.v3.Router")})
    manager = {"@type": MANAGER, "stat_prefix": name, "generate_request_id": False, "http_filters": chain,
               "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "request_headers_to_remove": ["x-api-key"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "app"}}]}]}}
    listener = {"name": "callers", "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
                "filter_chains": [{"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}]}
    # JSON is YAML too.
    (folder / f"{name}.yaml").write_text(json.dumps({"static_resources": {"listeners": [listener], "clusters": clusters, "secrets": list(secrets)}}))
    return [ENVOY, "-c", folder / f"{name}.yaml", "--concurrency", "1", "--use-dynamic-base-id", "--log-level", "off"]


def envoy_static(folder, port, upstream, found):
    credentials = [{"key": key, "client": key} for key in found]
    injected = {"name": "envoy.http.injected_credentials.generic", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.http.injected_credentials.generic.v3.Generic", "credential": {"name": "token"}, "header": "Authorization"}}
    secret = {"name": "token", "generic_secret": {"secret": {"inline_string": f"Bearer {next(iter(found.values()))}"}}}
    return envoy(folder, "envoy-static", port, [
        ("envoy.filters.http.api_key_auth", ("api_key_auth.v3.ApiKeyAuth", {"key_sources": [{"header": "X-Api-Key"}], "credentials": credentials})),
        ("envoy.filters.http.credential_injector", ("credential_injector.v3.CredentialInjector", {"overwrite": True, "credential": injected})),
    ], [cluster("app", upstream)], [secret])


def envoy_ext_authz(folder, port, upstream, asked):
    told = {"server_uri": {"uri": f"http://127.0.0.1:{asked}", "cluster": "asked", "timeout": "1s"},
            "authorization_response": {"allowed_upstream_headers": {"patterns": [{"exact": "authorization"}]}}}
    return envoy(folder, "envoy-ext-authz", port, [
        ("envoy.filters.http.ext_authz", ("ext_authz.v3.ExtAuthz", {"allowed_headers": {"patterns": [{"exact": "x-api-key"}]}, "http_service": told})),
    ], [cluster("app", upstream), cluster("asked", asked)])


def script(folder):
    file = folder / "requests.lua"
    texts = ",".join(f"'GET /api/v1/items HTTP/1.1\\r\\nHost: svc.local\\r\\nUser-Agent: bench\\r\\nAccept: */*\\r\\nX-API-Key: {key}\\r\\n\\r\\n'" for key in KEYS)
    file.write_text(f"local n, r = 0, {{{texts}}}\nrequest = function() n = n % #r + 1; return r[n] end\n")
    return file


def milliseconds(text):
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", text).groups()
    return float(number) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[unit]


def saturate(target, folder, seconds):
    """Requests answered, how many a second, and p50 and p99 in milliseconds."""
    if target["protocol"] == "h2":
        log = folder / "h2load.log"
        log.unlink(missing_ok=True)
        began = time.monotonic()
        count = protocols.by_h2load(f"http://127.0.0.1:{target['port']}/api/v1/items", 25000 * seconds, ["--log-file", str(log)], KEYS[0])
        rate = count / (time.monotonic() - began)
        return count, rate, *percentiles(log)
    scheme = "https" if target["protocol"] == "tls" else "http"
    host = "localhost" if target["protocol"] == "tls" else "127.0.0.1"
    out = protocols.run(["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency", "-s", folder / "requests.lua", f"{scheme}://{host}:{target['port']}/"])
    bad = re.search(r"Non-2xx.*|Socket errors.*", out)
    if bad:
        raise SystemExit(f"{target['name']}: {bad.group(0)}")
    latency = [milliseconds(re.search(rf"^\s+{share}%\s+(\S+)", out, re.MULTILINE).group(1)) for share in (50, 99)]
    return int(re.search(r"(\d+) requests in", out).group(1)), float(re.search(r"Requests/sec:\s+([\d.]+)", out).group(1)), *latency


def percentiles(log):
    took = sorted(int(line.split("\t")[2]) / 1000 for line in log.read_text().splitlines())
    return took[len(took) // 2], took[len(took) * 99 // 100]


def modest(target, folder, seconds):
    """p50 and p99 in milliseconds at a fixed rate, and the share of a core that it takes."""
    log = folder / "h2load.log"
    log.unlink(missing_ok=True)
    scheme = "https" if target["protocol"] == "tls" else "http"
    host = "localhost" if target["protocol"] == "tls" else "127.0.0.1"
    version = [] if target["protocol"] == "h2" else ["--h1"]
    before = sum(cpu(target["pids"]))
    protocols.run(["h2load", *version, "-t1", "-c10", f"--rps={RATE // 10}", f"-D{seconds}", "--log-file", log, "-H", f"x-api-key: {KEYS[0]}", f"{scheme}://{host}:{target['port']}/api/v1/items"])
    return *percentiles(log), (sum(cpu(target["pids"])) - before) / seconds


def proxies(folder, upstream, running):
    """Every proxy, started and warm."""
    def run(name, *commands, port, protocol="http1"):
        processes = [start(folder, name, command) for command in commands]
        running.extend(processes)
        wait_for(port)
        return {"name": name, "port": port, "protocol": protocol, "pids": [process.pid for process in processes]}

    # The tokens are those of an embedded service, which bearerd's own row goes on to use.
    ports, command = configuration(folder, "bearerd", upstream["plain"], False, ROUTE)
    plain = run("bearerd", command, port=ports["proxy"])
    wait_for(ports["service"])
    found = dict(zip(KEYS, tokens(ports["service"])))
    asked = free_port()
    running.append(start(folder, "service", service(folder, asked)))
    wait_for(asked)
    targets, port = [], free_port
    add = lambda name, make, *more: (lambda at: targets.append(run(name, make(folder, at, upstream["plain"], *more), port=at)))(port())
    targets.append({"name": "direct to the upstream", "port": upstream["plain"], "protocol": "http1", "pids": [running[0].pid]})
    add("nginx, static map", nginx_map, found)
    add("HAProxy, static map", haproxy_map, found)
    at = port()
    targets.append(run("bare pingora", [RELEASE / "examples" / "bare_pingora", at, upstream["plain"]], port=at))
    targets.append(plain)
    add("nginx, auth_request + cache", nginx_auth_request, asked)
    add("Envoy, static injector", envoy_static, found)
    add("Envoy, ext_authz", envoy_ext_authz, asked)
    for name, listener, server, protocol in (("bearerd, TLS", protocols.TLS, upstream["plain"], "tls"), ("bearerd, HTTP/2", "h2c: true", upstream["http2"], "h2")):
        at = port()
        targets.append(run(name, protocols.bearerd(folder, protocol, listener, server, at, "h2c" if protocol == "h2" else "http1"), port=at, protocol=protocol))
    deciding, at = port(), port()
    decision = protocols.bearerd(folder, "decision", "mode: decision", upstream["plain"], deciding)
    targets.append(run("bearerd behind nginx", decision, nginx_asks_bearerd(folder, at, upstream["plain"], deciding), port=at))
    return targets


def measure(options, folder, running):
    upstream = {"plain": free_port(), "http2": free_port()}
    keys_file(folder)
    protocols.certificate_files(folder)
    running.append(protocols.upstream(folder, upstream["plain"], upstream["http2"]))
    wait_for(upstream["plain"])
    script(folder)
    targets = proxies(folder, upstream, running)
    for target in targets:
        target["idle"] = rss_mib(target["pids"])
        saturate(target, folder, 1)
    rows = {target["name"]: [] for target in targets}
    for _ in range(options.rounds):
        for target in targets:
            before = cpu(target["pids"])
            count, rate, p50, p99 = saturate(target, folder, options.seconds)
            user, system = ((after - earlier) / count * 1e6 for after, earlier in zip(cpu(target["pids"]), before))
            rows[target["name"]].append((user + system, user, system, rate, p50, p99, *modest(target, folder, options.seconds)))
    columns = ("cpu_us", "user_us", "system_us", "requests_per_second", "p50_ms", "p99_ms", "p50_ms_at_rate", "p99_ms_at_rate", "cores_at_rate")
    results = []
    for target in targets:
        row = dict(zip(columns, (statistics.median(values) for values in zip(*rows[target["name"]]))))
        results.append({"proxy": target["name"], **row, "rss_idle_mib": target["idle"], "rss_load_mib": rss_mib(target["pids"])})
    return results


def table(results):
    ours = next(row for row in results if row["proxy"] == "bearerd")["cpu_us"]
    lines = ["| proxy | CPU us/request | user | system | bearerd / it | requests/s | p50, p99 ms | p50, p99 ms at 1,000/s | cores at 1,000/s | RSS MiB idle, loaded |",
             "|---|---|---|---|---|---|---|---|---|---|"]
    for row in results:
        direct = row["proxy"].startswith("direct")
        share = "" if direct else f"{ours / row['cpu_us']:.2f}"
        lines.append(f"| {row['proxy']} | {row['cpu_us']:.1f} | {row['user_us']:.1f} | {row['system_us']:.1f} | {share} | {row['requests_per_second']:,.0f} "
                     f"| {row['p50_ms']:.2f}, {row['p99_ms']:.2f} | {row['p50_ms_at_rate']:.2f}, {row['p99_ms_at_rate']:.2f} | {row['cores_at_rate']:.3f} "
                     f"| {row['rss_idle_mib']:.0f}, {row['rss_load_mib']:.0f} |")
    return "\n".join(lines)


def alone(folder, many, running):
    """What none of the others does, or has: start, a cold key, many tokens."""
    upstream = free_port()
    running.append(start(folder, "upstream", nginx(folder, "behind", f"server {{ listen 127.0.0.1:{upstream}; location / {{ return 200 'hello'; }} }}")))
    wait_for(upstream)
    ready, _ = starts(folder, upstream)
    mint = mint_over_http(folder, upstream, running)
    with scale.Stand(tokens=2 * many) as stand:
        empty = rss_mib([stand.bearerd.pid])
        stand.warm(many)
        held = rss_mib([stand.bearerd.pid]) - empty
    return {"ready_ms": statistics.median(ready) * 1e3, "cold_mint_added_ms": mint["median_added"] * 1e3, "token_service_alone_ms": mint["direct"] * 1e3,
            "tokens": many, "token_bytes": len(scale.jwt(700)), "rss_of_tokens_mib": held}


def told(figures):
    beyond = figures["rss_of_tokens_mib"] * 2**20 / figures["tokens"] - figures["token_bytes"]
    return (f"bearerd alone: start to ready {figures['ready_ms']:.1f} ms. A cold key adds {figures['cold_mint_added_ms']:.2f} ms to the token service's own answer "
            f"({figures['token_service_alone_ms']:.2f} ms), `details: off`. {figures['tokens']:,} tokens of {figures['token_bytes']} bytes: "
            f"{figures['rss_of_tokens_mib']:,.0f} MiB more, {beyond:.0f} bytes each beyond the token's own.")


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--quick", action="store_true", help="one round of a second each, and nothing is written")
    options = arguments.parse_args()
    options.rounds, options.seconds = (1, 1) if options.quick else (4, 3)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="bearerd-bench-"))
    folder.chmod(0o755)
    running = []
    began = time.monotonic()
    try:
        results = measure(options, folder, running)
        figures = alone(folder, 100_000 if options.quick else 1_000_000, running)
    finally:
        for process in running:
            # A master whose end is ordered ends its workers; killed, it would leave them.
            process.terminate()
        for process in running:
            process.wait(timeout=30)
    print(table(results))
    print("\n" + told(figures))
    print(f"{time.monotonic() - began:.0f} s")
    if not options.quick:
        written = ROOT / "benches" / "results"
        written.mkdir(exist_ok=True)
        build = "profile-guided" if "dist" in BEARERD.parts else "release"
        head = f"`make bench-peers`, {build} build, {time.strftime('%Y-%m-%d')}, {os.cpu_count()} processors, {platform.machine()}; medians of {options.rounds} interleaved rounds of {options.seconds} s.\n\n"
        (written / f"peers-{build}.md").write_text(head + table(results) + "\n\n" + told(figures) + "\n")
        (written / f"peers-{build}.json").write_text(json.dumps({"proxies": results, "bearerd": figures}, indent=1) + "\n")


main()
