#!/usr/bin/env python3
"""What the time of an answer tells of a key: Welch's t between answers to keys of five kinds, in random order on one connection.

    cargo build --release --bin bearerd
    benches/timing.py [--requests 200000] [--seed 1]

`near` keys differ from a good one in their last characters alone, `far` ones from the first on. A key that is refused, for the first time (a miss, which the
token service is asked about) or again (a no that is remembered), must not tell by its time how much of it is right: |t| below 4.5 between near and far, the
bound of tests for leakage by time. That a hit, a remembered no and a miss take different times is no secret: their answers differ anyway. BEARERD names
another build.
"""
import argparse, hashlib, math, pathlib, random, socket, statistics, string, tempfile, time

from cpu_per_request import BEARERD, free_port, start, upstream, wait_for

# The slowest of all are left out, of both sides alike: what else the machine did.
KEPT = 0.95
BOUND = 4.5
LETTERS = string.ascii_letters + string.digits


def letters(rng, count):
    return "".join(rng.choices(LETTERS, k=count))


def configuration(folder, key, upstream_port, port):
    (folder / "keys.yaml").write_text(f'keys: [{{ name: k, hash: "sha256:{hashlib.sha256(key.encode()).hexdigest()}" }}]\n')
    (folder / "bearerd.yaml").write_text(f"""
listeners: [{{ address: "127.0.0.1:{port}" }}]
admin: {{ address: "127.0.0.1:{free_port()}" }}
metrics: {{ address: "127.0.0.1:{free_port()}" }}
token_services:
  default: {{ kind: embedded, keys_file: keys.yaml, signing_key_file: signing.pem, mint: {{ rate: 1000000, queue: 100000 }} }}
upstreams: {{ app: {{ servers: ["127.0.0.1:{upstream_port}"] }} }}
routes: [{{ upstream: app, validate: {{ details: off }} }}]
cache: {{ negative: {{ ttl: 1h, max_entries: 1000000 }} }}
logging: {{ access: false }}
workers: 1
""")


def welch(one, other):
    """t of the difference of two means whose variances may differ."""
    spread = math.sqrt(statistics.variance(one) / len(one) + statistics.variance(other) / len(other))
    return (statistics.fmean(one) - statistics.fmean(other)) / spread


def ask(connection, key):
    """Nanoseconds to the answer, and its status."""
    request = b"GET / HTTP/1.1\r\nHost: h\r\nX-API-Key: %s\r\n\r\n" % key.encode()
    begun = time.perf_counter_ns()
    connection.sendall(request)
    answer = connection.recv(65536)
    took = time.perf_counter_ns() - begun
    head, _, body = answer.partition(b"\r\n\r\n")
    length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
    while len(body) < length:
        body += connection.recv(65536)
    return took, int(head[9:12])


def measure(connection, good, requests, rng):
    near = lambda: good[:-6] + letters(rng, 6)
    far = lambda: letters(rng, len(good))
    refused_near, refused_far = near(), far()
    kinds = {"hit": (200, lambda: good), "no again, near": (401, lambda: refused_near), "no again, far": (401, lambda: refused_far), "miss, near": (401, near), "miss, far": (401, far)}
    for _, key in kinds.values():
        ask(connection, key())
    times = {kind: [] for kind in kinds}
    order = [kind for kind in kinds for _ in range(requests // len(kinds))]
    rng.shuffle(order)
    # Made beforehand: what making one takes would be the server's pause before it.
    for kind, key in [(kind, kinds[kind][1]()) for kind in order]:
        status, _ = kinds[kind]
        took, got = ask(connection, key)
        if got != status:
            raise SystemExit(f"{kind}: {got}")
        times[kind].append(took / 1000)
    return {kind: sorted(each)[: int(len(each) * KEPT)] for kind, each in times.items()}


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--requests", type=int, default=200_000)
    arguments.add_argument("--seed", type=int, default=1)
    options = arguments.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="bearerd-timing-") as name:
        folder = pathlib.Path(name)
        good, upstream_port, port = letters(rng, 43), free_port(), free_port()
        configuration(folder, good, upstream_port, port)
        running = [upstream(folder, upstream_port), start(folder, "bearerd", [BEARERD, "run", "-c", folder / "bearerd.yaml"])]
        try:
            wait_for(upstream_port), wait_for(port)
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                times = measure(connection, good, options.requests, rng)
        finally:
            for process in running:
                process.terminate()
                process.wait(timeout=60)
    print("| kind | answers | mean us | deviation us |\n|---|---|---|---|")
    for kind, each in times.items():
        print(f"| {kind} | {len(each):,} | {statistics.fmean(each):.2f} | {statistics.stdev(each):.2f} |")
    print("\n| between | difference us | t |\n|---|---|---|")
    pairs = [("no again, near", "no again, far"), ("miss, near", "miss, far"), ("hit", "no again, far"), ("miss, far", "no again, far")]
    for one, other in pairs:
        print(f"| {one} and {other} | {statistics.fmean(times[one]) - statistics.fmean(times[other]):+.3f} | {welch(times[one], times[other]):+.2f} |")
    leaks = [pair for pair in pairs[:2] if abs(welch(times[pair[0]], times[pair[1]])) >= BOUND]
    print("\nnear and far: " + (f"they differ: {leaks}" if leaks else f"no difference (|t| < {BOUND})"))
    raise SystemExit(bool(leaks))


main()
