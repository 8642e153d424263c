#!/usr/bin/env python3
"""What bearerd costs beside a bare pingora over HTTP/2 and TLS, what a decision costs beside a proxied request, and how fast a large body goes through.

    cargo build --release --bin bearerd --example bare_pingora
    benches/protocols.py [--rounds 5] [--requests 60000]

Needs nginx, wrk, h2load, curl and openssl. Load and upstream on processor 0, each proxy on processor 1, as in cpu_per_request.py; quote ratios of one run.
"""
import argparse, base64, hashlib, pathlib, random, re, statistics, subprocess, tempfile, time

from cpu_per_request import BEARERD, RELEASE, TEMPORARY, free_port, run_seconds, start, stop, wait_for

KEY = "bench-key"
TLS = "tls: { certificates: [{ certificate: cert.pem, private_key: key.pem }] }"
# As long as the token that bearerd injects: HPACK writes it anew for each request, whoever sends it.
BEARER = "authorization: Bearer " + base64.urlsafe_b64encode(random.Random(7).randbytes(520)).decode().rstrip("=")
GIB = 1 << 30


def upstream(folder, plain, http2):
    with open(folder / "large", "wb") as file:
        file.truncate(GIB)
    body = "hello from upstream " * 5
    (folder / "nginx.conf").write_text(f"""
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.err crit;
events {{ worker_connections 8192; }}
http {{ {TEMPORARY} access_log off; sendfile on; keepalive_requests 100000000; keepalive_timeout 3600s;
 server {{ listen 127.0.0.1:{plain}; root {folder}; location / {{ default_type text/plain; return 200 "{body}"; }} location = /large {{ }} }}
 server {{ listen 127.0.0.1:{http2} http2; http2_max_concurrent_streams 1000; location / {{ default_type text/plain; return 200 "{body}"; }} }} }}
""")
    return start(folder, "upstream", ["nginx", "-c", folder / "nginx.conf", "-p", folder])


def bearerd(folder, name, listener, server, port, protocol="http1"):
    (folder / f"{name}.yaml").write_text(f"""
listeners: [{{ address: "127.0.0.1:{port}", {listener} }}]
admin: {{ address: "127.0.0.1:{free_port()}" }}
metrics: {{ address: "127.0.0.1:{free_port()}" }}
token_services: {{ default: {{ kind: embedded, keys_file: keys.yaml, signing_key_file: signing.pem }} }}
upstreams: {{ app: {{ servers: ["127.0.0.1:{server}"], protocol: {protocol}, pool: {{ idle: 256 }} }} }}
routes: [{{ upstream: app, validate: {{ details: off }} }}]
logging: {{ access: false, format: json }}
workers: 1
""")
    return [BEARERD, "run", "-c", folder / f"{name}.yaml"]


def keys_file(folder):
    (folder / "keys.yaml").write_text(f"keys: [{{ name: k, hash: \"sha256:{hashlib.sha256(KEY.encode()).hexdigest()}\" }}]\n")


def certificate_files(folder):
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
                    "-keyout", folder / "key.pem", "-out", folder / "cert.pem"], check=True, capture_output=True)


def run(command):
    return subprocess.run(["taskset", "-c", "0", *map(str, command)], capture_output=True, text=True, check=True).stdout


def by_h2load(url, requests, more=(), key=KEY, header=None):
    out = run(["h2load", "-t1", "-c8", "-m16", f"-n{requests}", *more, "-H", header or f"x-api-key: {key}", url])
    if f"{requests} succeeded" not in out or "0 5xx" not in out or "0 4xx" not in out:
        raise SystemExit(f"{url}: {out}")
    return requests


def by_wrk(url, seconds, folder, more=""):
    script = folder / "wrk.lua"
    script.write_text(f'wrk.headers["X-API-Key"] = "{KEY}"\n{more}')
    out = run(["wrk", "-t1", "-c32", f"-d{seconds}s", "-s", script, url])
    bad = re.search(r"Non-2xx.*|Socket errors.*", out)
    if bad:
        raise SystemExit(f"{url}: {bad.group(0)}")
    return int(re.search(r"(\d+) requests in", out).group(1))


def by_curl(url):
    began = time.perf_counter()
    out = run(["curl", "--silent", "--fail", "--output", "/dev/null", "--header", f"X-API-Key: {KEY}", "--write-out", "%{size_download}", url])
    if int(out) != GIB:
        raise SystemExit(f"{url}: {out} bytes")
    return GIB / (time.perf_counter() - began)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--requests", type=int, default=60000)
    options = arguments.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="bearerd-bench-"))
    # nginx's worker is another user.
    folder.chmod(0o755)
    keys_file(folder)
    certificate_files(folder)
    plain, http2 = free_port(), free_port()
    running = [upstream(folder, plain, http2)]
    try:
        wait_for(plain)
        bare = RELEASE / "examples" / "bare_pingora"
        ports = {name: free_port() for name in ("bare", "bare h2", "bare tls", "bearerd", "bearerd h2", "bearerd tls", "decision")}
        commands = {
            "bare": [bare, ports["bare"], plain],
            "bare h2": [bare, ports["bare h2"], http2, "h2c"],
            "bare tls": [bare, ports["bare tls"], plain, "tls", folder / "cert.pem", folder / "key.pem"],
            "bearerd": bearerd(folder, "plain", "mode: proxy", plain, ports["bearerd"]),
            "bearerd h2": bearerd(folder, "h2", "h2c: true", http2, ports["bearerd h2"], "h2c"),
            "bearerd tls": bearerd(folder, "tls", TLS, plain, ports["bearerd tls"]),
            "decision": bearerd(folder, "decision", "mode: decision", plain, ports["decision"]),
        }
        processes = {name: start(folder, name, command) for name, command in commands.items()}
        running += processes.values()
        for port in ports.values():
            wait_for(port)
        asked = 'wrk.headers["X-Original-URI"] = "/api/v1/items"\nwrk.headers["X-Original-Method"] = "GET"\n'
        loads = {
            "bare": lambda: by_wrk(f"http://127.0.0.1:{ports['bare']}/api/v1/items", 2, folder),
            "bearerd": lambda: by_wrk(f"http://127.0.0.1:{ports['bearerd']}/api/v1/items", 2, folder),
            "decision": lambda: by_wrk(f"http://127.0.0.1:{ports['decision']}/", 2, folder, asked),
            "bare h2": lambda: by_h2load(f"http://127.0.0.1:{ports['bare h2']}/api/v1/items", options.requests),
            "bare h2, Bearer": lambda: by_h2load(f"http://127.0.0.1:{ports['bare h2']}/api/v1/items", options.requests, header=BEARER),
            "bearerd h2": lambda: by_h2load(f"http://127.0.0.1:{ports['bearerd h2']}/api/v1/items", options.requests),
            "bare tls": lambda: by_wrk(f"https://localhost:{ports['bare tls']}/api/v1/items", 2, folder),
            "bearerd tls": lambda: by_wrk(f"https://localhost:{ports['bearerd tls']}/api/v1/items", 2, folder),
        }
        rows = {name: [] for name in loads}
        bodies = {"bare": [], "bearerd": []}
        for round in range(options.rounds + 1):
            for name, load in loads.items():
                process = processes[name.partition(",")[0]].pid
                before = run_seconds(process)
                count = load()
                if round:
                    rows[name].append((run_seconds(process) - before) / count * 1e6)
            for name in bodies:
                rate = by_curl(f"http://127.0.0.1:{ports[name]}/large")
                if round:
                    bodies[name].append(rate)
        us = {name: statistics.median(row) for name, row in rows.items()}
        print(f"{'':16s} {'CPU us/request':>15s}")
        for name, value in us.items():
            print(f"{name:16s} {value:15.2f}")
        print(f"HTTP/2 both sides, bearerd / bare pingora: {us['bearerd h2'] / us['bare h2']:.3f}")
        print(f"the same, over a bare pingora that passes a Bearer on: {us['bearerd h2'] / us['bare h2, Bearer']:.3f}")
        print(f"TLS 1.3 kept alive, bearerd / bare pingora: {us['bearerd tls'] / us['bare tls']:.3f}")
        print(f"a decision / a proxied request: {us['decision'] / us['bearerd']:.3f}")
        rates = {name: statistics.median(rate) for name, rate in bodies.items()}
        print(f"1 GiB: bare {rates['bare'] / GIB:.2f} GiB/s, bearerd {rates['bearerd'] / GIB:.2f} GiB/s, ratio {rates['bearerd'] / rates['bare']:.3f}")
    finally:
        stop(running)


if __name__ == "__main__":
    main()
