#!/usr/bin/env python3
"""What a warm request costs as things grow: keys, connections, token bytes, workers; memory with a million tokens; ten thousand connections.

    cargo build --release --bin bearerd
    benches/scale.py            # about eight minutes; QUICK=1 for a first look

The token service is nginx, which has one token for everybody, so that only bearerd's side grows. Load and upstream on processor 0, bearerd with one worker on
processor 1, unless a row says otherwise. BEARERD names another build. Quote ratios of one run.
"""
import base64, json, os, pathlib, re, resource, subprocess, tempfile, time

from cpu_per_request import BEARERD, TEMPORARY, cpu_seconds, free_port, rss_mib, start, wait_for

QUICK = bool(os.environ.get("QUICK"))
SECONDS = 2 if QUICK else 6


def jwt(size):
    """A token of about `size` bytes; bearerd does not look at the signature of what it minted."""
    text = lambda value: base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()
    claims = {"sub": "somebody", "iat": int(time.time()), "exp": int(time.time()) + 24 * 3600, "pad": ""}
    bare = len(text({"alg": "ES256"})) + len(text(claims)) + 88
    claims["pad"] = "x" * max(0, (size - bare) * 3 // 4)
    return ".".join((text({"alg": "ES256"}), text(claims), "s" * 86))


def nginx(folder, name, server):
    (folder / f"{name}.conf").write_text(f"""
worker_processes 1; daemon off; pid {folder}/{name}.pid; error_log {folder}/{name}.err crit; worker_rlimit_nofile 65536;
events {{ worker_connections 32768; }}
http {{ {TEMPORARY} access_log off; keepalive_requests 100000000; keepalive_timeout 3600s; large_client_header_buffers 8 32k; {server} }}
""")
    return start(folder, "upstream", ["nginx", "-c", folder / f"{name}.conf", "-p", folder])


class Stand:
    """One bearerd with its surroundings, until its end."""

    def __init__(self, size=700, workers=1, tokens=100_000, processors="1"):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="bearerd-scale-"))
        upstream, service = free_port(), free_port()
        minted = json.dumps({"access_token": jwt(size)})
        # A word of its configuration has at most 4 KiB.
        parts = [minted[at:at + 3000] for at in range(0, len(minted), 3000)]
        held = "".join(f" set $part{place} '{part}';" for place, part in enumerate(parts))
        told = "".join(f"${{part{place}}}" for place in range(len(parts)))
        self.running = [
            nginx(self.folder, "upstream", f"server {{ listen 127.0.0.1:{upstream} backlog=16384; location / {{ return 200 'hello'; }} }}"),
            nginx(self.folder, "service", f"server {{ listen 127.0.0.1:{service} backlog=16384; location / {{ default_type application/json;{held} return 200 '{told}'; }} }}"),
        ]
        self.port, metrics, admin = free_port(), free_port(), free_port()
        (self.folder / "bearerd.yaml").write_text(f"""
listeners: [{{ address: "127.0.0.1:{self.port}", limits: {{ connections: 20000, idle_timeout: 10m }} }}]
admin: {{ address: "127.0.0.1:{admin}" }}
metrics: {{ address: "127.0.0.1:{metrics}" }}
token_services:
  default: {{ kind: iap, url: "http://127.0.0.1:{service}", mint: {{ concurrency: 128, rate: 1000000, queue: 1000000 }} }}
upstreams: {{ app: {{ servers: ["127.0.0.1:{upstream}"], pool: {{ idle: 1024 }} }} }}
routes: [{{ upstream: app, validate: {{ details: off }} }}]
cache: {{ max_tokens: {tokens} }}
logging: {{ access: false, format: json }}
workers: {workers}
""")
        wait_for(upstream), wait_for(service)
        command = ["taskset", "-c", processors, BEARERD, "run", "-c", self.folder / "bearerd.yaml"]
        self.bearerd = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.running.append(self.bearerd)
        wait_for(self.port)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.running:
            process.terminate()
        for process in self.running:
            process.wait(timeout=60)

    def load(self, keys, connections, seconds, first=0):
        """wrk's report after `seconds` with `keys` keys in turn."""
        script = self.folder / "requests.lua"
        script.write_text(f"""local n = {first}
local head = "GET /api/v1/items HTTP/1.1\\r\\nHost: svc.local\\r\\nUser-Agent: bench\\r\\nAccept: */*\\r\\nX-API-Key: key-"
request = function() n = n + 1; if n > {first + keys} then n = {first} + 1 end; return head .. n .. "\\r\\n\\r\\n" end
""")
        command = ["taskset", "-c", "0", "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s", script, f"http://127.0.0.1:{self.port}/"]
        return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True).stdout

    def cost(self, keys=1000, connections=64):
        """CPU microseconds of a warm request."""
        before = sum(cpu_seconds(self.bearerd.pid))
        out = self.load(keys, connections, SECONDS)
        clean(out)
        return (sum(cpu_seconds(self.bearerd.pid)) - before) / served(out) * 1e6

    def warm(self, keys):
        """Until each key has its token."""
        done = 0
        while done < keys:
            out = self.load(keys - done, 64, 5, done)
            clean(out)
            done += served(out)


def served(out):
    return int(re.search(r"(\d+) requests in", out).group(1))


def clean(out):
    bad = re.search(r"Non-2xx.*|Socket errors.*", out)
    if bad:
        raise SystemExit(bad.group(0))


def table(title, rows):
    floor = rows[0][1]
    print(f"\n| {title} | CPU us/request | over the first |\n|---|---|---|")
    for name, value in rows:
        print(f"| {name} | {value:.1f} | {value / floor:.2f} |", flush=True)


def main():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536), hard))
    counts = [1000, 10_000] if QUICK else [1000, 10_000, 100_000, 1_000_000]
    rows = []
    for keys in counts:
        with Stand(tokens=2 * max(keys, 1000)) as stand:
            stand.warm(keys)
            rows.append((f"{keys:,} keys", stand.cost(keys)))
            memory = rss_mib(stand.bearerd.pid)
    table("keys in turn", rows)
    print(f"\nRSS with {counts[-1]:,} tokens of 700 bytes: {memory:.0f} MiB")
    rows = []
    for size in (512, 1024, 2048, 4096, 8192):
        with Stand(size=size) as stand:
            stand.warm(1000)
            rows.append((f"{size} bytes", stand.cost()))
    table("bytes of the token", rows)
    rows = []
    for workers, processors in ((1, "1"), (2, "0,1")):
        with Stand(workers=workers, processors=processors) as stand:
            stand.warm(1000)
            rows.append((f"{workers} workers", stand.cost()))
    table("workers (two of them share processor 0 with the load)", rows)
    # Last: what is left of so many connections takes ports for a minute.
    rows = []
    with Stand() as stand:
        stand.warm(1000)
        for connections in (1, 16, 64, 256, 1024, 10_000):
            rows.append((f"{connections:,} connections", stand.cost(connections=connections)))
    table("connections", rows)
    with Stand() as stand:
        stand.warm(1000)
        out = stand.load(1000, 10_000, 5 if QUICK else 30)
        print(f"\n10,000 connections, 1,000 keys: {served(out):,} requests, {rss_mib(stand.bearerd.pid):.0f} MiB;", re.search(r"Non-2xx.*|Socket errors.*", out) or "no error")


if __name__ == "__main__":
    main()
