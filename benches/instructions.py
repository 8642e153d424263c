#!/usr/bin/env python3
"""Instructions of a warm request, user space, by callgrind: repeatable where times are not.

    make instructions             # fails where a figure is more than 3 % above the committed one
    make instructions ACCEPT=1    # writes the figures of this run to benches/results/instructions.json, to be committed with a reason

One connection, one key, one request after the other, 2,000 of them after a warm-up; the whole process counts. The token
service is a process of its own: embedded, it would look at its files now and then. Needs valgrind and nginx.
"""
import argparse, json, pathlib, re, socket, subprocess, sys, tempfile

import protocols
from cpu_per_request import BEARERD, KEYS, POLICY, ROOT, ROUTE, configuration, free_port, keys_file, over_http, start, stop, wait_for

COMMITTED = ROOT / "benches" / "results" / "instructions.json"
REQUESTS = 2000
WARM = 300
ALLOWED = 1.03


def receive(stream):
    """One answer with a Content-Length."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = stream.readline()
        if not line:
            raise SystemExit(f"the connection ended after {head!r}")
        head += line
    if not head.startswith(b"HTTP/1.1 200"):
        raise SystemExit(head.decode())
    stream.read(int(re.search(rb"(?i)content-length: (\d+)", head).group(1)))


def ask(port, count):
    with socket.create_connection(("127.0.0.1", port)) as connection:
        stream = connection.makefile("rb")
        for _ in range(count):
            connection.sendall(f"GET /api/v1/items HTTP/1.1\r\nHost: svc.local\r\nUser-Agent: bench\r\nAccept: */*\r\nX-API-Key: {KEYS[0]}\r\n\r\n".encode())
            receive(stream)


def total(out):
    """What the dump that was asked for counted."""
    dumps = sorted(out.parent.glob(f"{out.name}.*"))
    return int(re.search(r"(?m)^(?:totals|summary): (\d+)", dumps[-1].read_text()).group(1))


def measured(folder, name, routes, upstream, service):
    ports, command = configuration(folder, name, upstream, False, routes)
    over_http(folder, name, service)
    out = folder / f"{name}.callgrind"
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", *map(str, command)]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    control = lambda what: subprocess.run(["callgrind_control", what, str(process.pid)], check=True, capture_output=True)
    try:
        # valgrind is slow to begin.
        for _ in range(12):
            try:
                wait_for(ports["proxy"])
                break
            except SystemExit:
                pass
        ask(ports["proxy"], WARM)
        control("--zero")
        ask(ports["proxy"], REQUESTS)
        control("--dump")
        return round(total(out) / REQUESTS)
    finally:
        process.kill()
        process.wait()


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--accept", action="store_true")
    options = arguments.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="bearerd-bench-"))
    folder.chmod(0o755)
    keys_file(folder)
    plain, http2 = free_port(), free_port()
    running = [protocols.upstream(folder, plain, http2)]
    try:
        wait_for(plain)
        ports, command = configuration(folder, "service", plain, False)
        running.append(start(folder, "service", command))
        wait_for(ports["service"])
        found = {name: measured(folder, name, routes, plain, ports["service"]) for name, routes in (("plain", ROUTE), ("policy", POLICY))}
    finally:
        stop(running)
    compiler = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if options.accept:
        COMMITTED.parent.mkdir(exist_ok=True)
        COMMITTED.write_text(json.dumps({"compiler": compiler, "instructions_per_request": found}, indent=1) + "\n")
        print(f"written to {COMMITTED.relative_to(ROOT)}: {found}")
        return
    committed = json.loads(COMMITTED.read_text())
    over = []
    for name, count in found.items():
        before = committed["instructions_per_request"][name]
        print(f"{name}: {count:,} instructions a request, committed {before:,}: {count / before - 1:+.1%}")
        if count > before * ALLOWED:
            over.append(name)
    if over:
        if committed["compiler"] != compiler:
            print(f"the committed figures are of {committed['compiler']}, this is {compiler}")
        sys.exit(f"more than 3 % above the committed figure: {', '.join(over)}. If that is meant, `make instructions ACCEPT=1` and commit it with the reason.")


main()
