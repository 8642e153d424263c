#!/usr/bin/env python3
"""What bearerd costs beside a bare pingora built the same way: CPU per warm request, memory, start, cold mint.

    cargo build --release --bin bearerd --example bare_pingora
    benches/cpu_per_request.py [--rounds 5] [--seconds 4] [--connections 64]

Needs wrk and nginx (Debian packages of these names). Load and upstream are pinned to processor 0, each proxy, with one worker, to processor 1;
1,000 API keys (or JWTs) in turn, tokens of the embedded service. The row `policy` has 200 routes of which the last one serves, five checks of claims
and five headers from claims; `jwt` takes the service's own tokens by their signature. CPU time is that of the proxy's process over the requests that it answered: it holds still
on a shared machine where a throughput does not. Quote ratios of one run.
"""
import argparse, contextlib, hashlib, http.client, os, pathlib, re, socket, statistics, subprocess, tempfile, time

ROOT = pathlib.Path(__file__).resolve().parent.parent
RELEASE = ROOT / "target" / "release"
# Another build may be measured: BEARERD=target/dist/bearerd
BEARERD = pathlib.Path(os.environ.get("BEARERD", RELEASE / "bearerd")).resolve()
TICKS = os.sysconf("SC_CLK_TCK")
# nginx without the folders that its package makes.
TEMPORARY = "client_body_temp_path body; proxy_temp_path proxied; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;"
KEYS = [f"bench-key-{i:04d}" for i in range(1000)]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(port):
    deadline = time.monotonic() + 10
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        if time.monotonic() > deadline:
            raise SystemExit(f"nothing listens on {port}")
        time.sleep(0.002)


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) / TICKS, int(fields[12]) / TICKS


def run_seconds(pid):
    """Time on a processor, to the nanosecond, where `cpu_seconds` counts ticks."""
    return sum(int(task.read_text().split()[0]) for task in pathlib.Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def stop(running):
    for process in running:
        # The workers of nginx end with its master only where that is asked to end.
        process.terminate() if "nginx" in map(str, process.args) else process.kill()


def rss_mib(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text()).group(1)) / 1024


def start(folder, name, command, log="/dev/null"):
    with open(folder / log if log != "/dev/null" else log, "w") as out:
        return subprocess.Popen(["taskset", "-c", "0" if name in ("upstream", "service") else "1", *map(str, command)], stdout=out, stderr=out, cwd=folder)


def upstream(folder, port):
    body = "hello from upstream " * 5
    (folder / "nginx.conf").write_text(f"""
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.err crit;
events {{ worker_connections 8192; }}
http {{ {TEMPORARY} access_log off; keepalive_requests 100000000; keepalive_timeout 3600s;
 server {{ listen 127.0.0.1:{port} backlog=8192; location / {{ default_type text/plain; return 200 "{body}"; }} }} }}
""")
    return start(folder, "upstream", ["nginx", "-c", folder / "nginx.conf", "-p", folder])


def keys_file(folder):
    keys = "".join(f"  - {{ name: k{i}, hash: \"sha256:{hashlib.sha256(k.encode()).hexdigest()}\", scopes: [{', '.join(f'SCOPE.{n}.READ' for n in range(16))}] }}\n"
                   for i, k in enumerate(KEYS))
    (folder / "keys.yaml").write_text("keys:\n" + keys)


ROUTE = "routes: [{ upstream: app, validate: { details: off } }]"
POLICY = "routes:\n" + "".join(f"  - {{ name: other-{n}, match: {{ path_prefix: /other/{n} }}, upstream: app, auth: none }}\n" for n in range(199)) + """
  - upstream: app
    validate: { details: off }
    require: { scopes: [SCOPE.1.READ, SCOPE.15.READ], claims: { tid: default, iss: bearerd, aud: [bearerd, other], sub: "k*", jti: { present: true } } }
    headers: { set: { X-User: "{claims.sub}", X-Name: "{claims.name}", X-Tenant: "{claims.tid}", X-Scopes: "{claims.scope}", X-Token-Id: "{claims.jti}" } }
"""
JWT = """routes:
  - upstream: app
    credentials: [jwt]
    validate: { jwt: { jwks_url: "http://127.0.0.1:%d/.well-known/jwks.json", algorithms: [ES256], issuers: [bearerd], audiences: [bearerd] } }
"""


def configuration(folder, name, upstream_port, access, routes=ROUTE):
    ports = {"proxy": free_port(), "admin": free_port(), "metrics": free_port(), "service": free_port()}
    (folder / f"{name}.yaml").write_text(f"""
listeners: [{{ address: "127.0.0.1:{ports['proxy']}" }}]
admin: {{ address: "127.0.0.1:{ports['admin']}" }}
metrics: {{ address: "127.0.0.1:{ports['metrics']}" }}
token_services:
  default: {{ kind: embedded, address: "127.0.0.1:{ports['service']}", keys_file: keys.yaml, signing_key_file: signing.pem, rate_per_key: 1000000 }}
upstreams: {{ app: {{ servers: ["127.0.0.1:{upstream_port}"], pool: {{ idle: 256 }} }} }}
{routes}
logging: {{ access: {str(access).lower()}, format: json }}
workers: 1
""")
    return ports, [BEARERD, "run", "-c", folder / f"{name}.yaml"]


def over_http(folder, name, service_port):
    """Lets a configuration ask a token service over HTTP, as a real one is asked."""
    file = folder / f"{name}.yaml"
    file.write_text(re.sub(r"default: \{.*\}", f'default: {{ kind: iap, url: "http://127.0.0.1:{service_port}" }}', file.read_text()))


def load(folder, port, seconds, connections, lines=None, target="GET /api/v1/items"):
    """Sends requests, each with one of `lines` (API keys by default) as its credential."""
    lines = lines or [f"X-API-Key: {key}" for key in KEYS]
    script = folder / "requests.lua"
    head = f"{target} HTTP/1.1\\r\\nHost: svc.local\\r\\nUser-Agent: bench\\r\\nAccept: */*\\r\\n"
    texts = ",".join(f"'{head}{line}\\r\\n\\r\\n'" for line in lines)
    script.write_text(f"local n, r = 0, {{{texts}}}\nrequest = function() n = n % #r + 1; return r[n] end\n")
    out = subprocess.run(["taskset", "-c", "0", "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", script, f"http://127.0.0.1:{port}/"],
                         capture_output=True, text=True, check=True).stdout
    bad = re.search(r"Non-2xx.*|Socket errors.*", out)
    if bad:
        raise SystemExit(f"port {port}: {bad.group(0)}")
    return int(re.search(r"(\d+) requests in", out).group(1)), float(re.search(r"Requests/sec:\s+([\d.]+)", out).group(1))


def time_to_ready(folder, command, port):
    began = time.monotonic()
    process = start(folder, "ready", command)
    wait_for(port)
    connection = http.client.HTTPConnection("127.0.0.1", port)
    while True:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        response.read()
        if response.status == 200:
            break
    return process, time.monotonic() - began


def request(connection, method, path, headers):
    began = time.perf_counter()
    connection.request(method, path, headers=headers)
    response = connection.getresponse()
    response.read()
    if response.status >= 300:
        raise SystemExit(f"{method} {path}: {response.status}")
    return time.perf_counter() - began


def cold_mint(proxy_port, service_port):
    """What a cold key adds to the token service's own answer: a cold request, less a warm one, less the same call sent straight to the service."""
    proxy, service = (http.client.HTTPConnection("127.0.0.1", port) for port in (proxy_port, service_port))
    cold, warm, direct = [], [], []
    for key in KEYS[:300]:
        direct.append(request(service, "POST", "/v1/tokens", {"X-API-Key": key, "Content-Length": "0"}))
        cold.append(request(proxy, "GET", "/", {"X-API-Key": key}))
        warm.append(request(proxy, "GET", "/", {"X-API-Key": key}))
    return {name: min(values) for name, values in (("cold", cold), ("warm", warm), ("direct", direct))} | {
        "median_added": statistics.median(c - w - d for c, w, d in zip(cold, warm, direct))}


def starts(folder, upstream_port):
    """Seconds to ready and MiB resident then, of five starts."""
    ready, rss = [], []
    for _ in range(5):
        ports, command = configuration(folder, "start", upstream_port, False)
        over_http(folder, "start", 1)
        process, took = time_to_ready(folder, command, ports["metrics"])
        ready.append(took)
        rss.append(rss_mib(process.pid))
        process.kill()
        process.wait()
    return ready, rss


def mint_over_http(folder, upstream_port, running):
    """What `cold_mint` says, with a token service that is a process of its own."""
    service_ports, service = configuration(folder, "service", upstream_port, False)
    running.append(start(folder, "service", service))
    wait_for(service_ports["service"])
    ports, command = configuration(folder, "cold", upstream_port, False)
    over_http(folder, "cold", service_ports["service"])
    running.append(start(folder, "cold", command))
    wait_for(ports["proxy"])
    return cold_mint(ports["proxy"], service_ports["service"])


def tokens(port):
    """A JWT of each key."""
    service, found = http.client.HTTPConnection("127.0.0.1", port), []
    for key in KEYS:
        service.request("POST", "/v1/tokens", headers={"X-API-Key": key, "Content-Length": "0"})
        found.append(re.search(r'"access_token":"([^"]+)', service.getresponse().read().decode()).group(1))
    return found


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--seconds", type=int, default=4)
    arguments.add_argument("--connections", type=int, default=64)
    options = arguments.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="bearerd-bench-"))
    keys_file(folder)
    up = free_port()
    running = [upstream(folder, up)]
    try:
        wait_for(up)
        ready, rss = starts(folder, up)
        mint = mint_over_http(folder, up, running)
        for process in running[1:]:
            process.kill()
        targets = []
        floor = free_port()
        running.append(start(folder, "floor", [RELEASE / "examples" / "bare_pingora", floor, up]))
        targets.append(("bare pingora", floor, running[-1].pid))
        presented = {}
        for name, access, routes in (("bearerd", False, ROUTE), ("bearerd, policy", False, POLICY), ("bearerd, jwt", False, JWT), ("bearerd, access log", True, ROUTE)):
            ports, command = configuration(folder, re.sub("[ ,]+", "-", name), up, access, routes)
            if routes == JWT:
                file = folder / "bearerd-jwt.yaml"
                file.write_text(file.read_text().replace("%d", str(ports["service"])))
            running.append(start(folder, name, command))
            targets.append((name, ports["proxy"], running[-1].pid))
            if routes == JWT:
                wait_for(ports["service"])
                presented[name] = [f"Authorization: Bearer {token}" for token in tokens(ports["service"])]
        for name, port, _ in targets:
            wait_for(port)
            load(folder, port, 1, options.connections, presented.get(name))
        rows = {name: [] for name, _, _ in targets}
        for _ in range(options.rounds):
            for name, port, pid in targets:
                before, ran = cpu_seconds(pid), run_seconds(pid)
                count, rate = load(folder, port, options.seconds, options.connections, presented.get(name))
                us = (run_seconds(pid) - ran) / count * 1e6
                user, system = (after - earlier for after, earlier in zip(cpu_seconds(pid), before))
                rows[name].append((us, us * user / (user + system), us * system / (user + system), rate))
        # Within a round, since the machine is not the same in the next.
        beside = lambda name, base: statistics.median(row[0] / floor[0] for row, floor in zip(rows[name], rows[base]))
        print(f"{'proxy':26s} {'CPU us/request':>15s} {'/ bare':>7s} {'/ plain':>8s} {'user':>7s} {'system':>7s} {'requests/s':>11s} {'RSS MiB':>8s}")
        for name, port, pid in targets:
            us, user, system, rate = (statistics.median(column) for column in zip(*rows[name]))
            print(f"{name:26s} {us:15.2f} {beside(name, 'bare pingora'):7.3f} {beside(name, 'bearerd'):8.3f} {user:7.2f} {system:7.2f} {rate:11.0f} {rss_mib(pid):8.1f}")
        ports, command = configuration(folder, "mints", up, False)
        running.append(start(folder, "mints", [BEARERD, "token-service", "-c", folder / "mints.yaml"]))
        wait_for(ports["service"])
        before = run_seconds(running[-1].pid)
        count, rate = load(folder, ports["service"], options.seconds, options.connections, [f"X-API-Key: {key}\\r\\nContent-Length: 0" for key in KEYS], "POST /v1/tokens")
        mint_us = (run_seconds(running[-1].pid) - before) / count * 1e6
        print(f"embedded token service: {rate:.0f} ES256 tokens/s over HTTP on one core, {mint_us:.1f} us of it each")
        print(f"start to ready: {statistics.median(ready) * 1e3:.1f} ms; idle RSS: {statistics.median(rss):.1f} MiB")
        print(f"cold key: {mint['cold'] * 1e3:.2f} ms at least, a warm request {mint['warm'] * 1e3:.2f}, the token service alone {mint['direct'] * 1e3:.2f}; "
              f"added {(mint['cold'] - mint['warm'] - mint['direct']) * 1e3:.2f} ms at least, {mint['median_added'] * 1e3:.2f} ms in the median")
    finally:
        stop(running)


if __name__ == "__main__":
    main()
