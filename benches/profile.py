#!/usr/bin/env python3
"""Where the processor time of warm requests goes: a flame graph.

    make profile      # writes target/profile/flame.svg and target/profile/functions.txt

Needs perf, wrk and nginx. The load is that of cpu_per_request.py.
"""
import os, pathlib, subprocess, tempfile

import protocols
from cpu_per_request import ROOT, ROUTE, configuration, free_port, keys_file, load, start, wait_for

SECONDS = 8
TOOLS = ROOT / "target" / "tools" / "inferno" / "bin"


def main():
    folder = pathlib.Path(tempfile.mkdtemp(prefix="bearerd-bench-"))
    folder.chmod(0o755)
    written = ROOT / "target" / "profile"
    written.mkdir(parents=True, exist_ok=True)
    keys_file(folder)
    plain, http2 = free_port(), free_port()
    running = [protocols.upstream(folder, plain, http2)]
    try:
        wait_for(plain)
        ports, command = configuration(folder, "profiled", plain, False, ROUTE)
        running.append(start(folder, "profiled", command))
        wait_for(ports["proxy"])
        load(folder, ports["proxy"], 1, 64)
        # A clock, not a counter: virtual machines have none.
        record = ["perf", "record", "--event", "cpu-clock", "--freq", "997", "--call-graph", "dwarf,8192", "--pid", str(running[-1].pid), "--output", str(folder / "perf.data")]
        with open(os.devnull, "w") as nothing:
            recording = subprocess.Popen([*record, "--", "sleep", str(SECONDS)], stdout=nothing, stderr=nothing)
        load(folder, ports["proxy"], SECONDS + 2, 64)
        if recording.wait() != 0:
            raise SystemExit("perf recorded nothing: it needs kernel.perf_event_paranoid of 1 or less, or root")
    finally:
        for process in running:
            process.kill()
    report = ["perf", "report", "--input", folder / "perf.data", "--no-children", "--call-graph", "none", "--stdio"]
    functions = subprocess.run(report, capture_output=True, text=True, check=True).stdout
    (written / "functions.txt").write_text(functions)
    script = subprocess.run(["perf", "script", "--input", folder / "perf.data", "--no-inline"], capture_output=True, check=True).stdout
    folded = subprocess.run([TOOLS / "inferno-collapse-perf"], input=script, capture_output=True, check=True).stdout
    flame = subprocess.run([TOOLS / "inferno-flamegraph", "--title", "bearerd, warm requests"], input=folded, capture_output=True, check=True).stdout
    (written / "flame.svg").write_bytes(flame)
    print("\n".join(line for line in functions.splitlines() if line and not line.startswith("#"))[:3000])
    print(f"written: {written.relative_to(ROOT)}/flame.svg, functions.txt")


main()
