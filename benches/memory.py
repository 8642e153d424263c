#!/usr/bin/env python3
"""What a bearerd holds in memory, resident, by the number of tokens: for docs/kubernetes.md, Sizing.

    benches/memory.py [TOKENS]          (10,000; needs target/release/bearerd, or BEARERD=FILE)

An embedded token service runs as a process of its own; each token is of another API key or another route, and is used once. Two worker threads.
"""

import hashlib
import http.client
import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
BEARERD = os.environ.get("BEARERD", ROOT / "target/release/bearerd")

TOKEN_SERVICE = """
token_services: { default: { kind: embedded, keys_file: keys.yaml, signing_key_file: signing.pem, address: 127.0.0.1:0, lifetime: 1h } }
"""
PROXY = """
listeners: [{ address: 127.0.0.1:0 }]
admin: { address: 127.0.0.1:0 }
metrics: { address: 127.0.0.1:0 }
workers: 2
token_services: { default: { kind: iap, url: "TOKEN_SERVICE", mint: { rate: 100000 } } }
ROUTES
logging: { format: json, access: false }
shutdown: { delay: 0s }
"""


KEYS = 10000
# Another client is another token.
ROUTE = "- {{ match: {{ path: /{0} }}, respond: {{ status: 204 }}, validate: {{ details: off }}, token: {{ client_id: client-{0} }} }}\n"


def started(folder, command, text, address):
    """A process, and the address that it says it listens on."""
    file = folder / f"{command}.yaml"
    file.write_text(text)
    process = subprocess.Popen([BEARERD, command, "-c", file], stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if found := re.search(address, line):
            return process, found[1]
    raise SystemExit(f"bearerd {command} ended before it listened")


def resident(process):
    return int(re.search(r"^VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{process.pid}/status").read_text(), re.MULTILINE)[1])


def main(tokens):
    keys = [f"memory-key-{number:08}" for number in range(min(tokens, KEYS))]
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        entries = (f"  - {{ name: n{key}, subject: n{key}, hash: 'sha256:{hashlib.sha256(key.encode()).hexdigest()}' }}\n" for key in keys)
        (folder / "keys.yaml").write_text("keys:\n" + "".join(entries))
        routes = "routes:\n" + "".join(map(ROUTE.format, range(-(-tokens // KEYS))))
        service, url = started(folder, "token-service", TOKEN_SERVICE, r"token service on (http://[^,]*),")
        try:
            proxy, address = started(folder, "run", PROXY.replace("TOKEN_SERVICE", url).replace("ROUTES", routes), r'"callers":"\[?([^"\]]*)')
            try:
                caller = http.client.HTTPConnection(address)
                figures = [(0, resident(proxy))]
                for number in range(1, tokens + 1):
                    route, key = divmod(number - 1, KEYS)
                    caller.request("GET", f"/{route}", headers={"X-API-Key": keys[key]})
                    answer = caller.getresponse()
                    answer.read()
                    assert answer.status == 204, answer.status
                    if number in (1, 100, 1000, 10000, tokens):
                        figures.append((number, resident(proxy)))
            finally:
                proxy.terminate()
                proxy.wait()
        finally:
            service.terminate()
            service.wait()
    print("| tokens | resident MiB |\n|---|---|")
    for number, kibibytes in figures:
        print(f"| {number:,} | {kibibytes / 1024:.1f} |")
    (few, before), (many, after) = figures[-2:]
    print(f"\n{(after - before) / (many - few):.2f} KiB for each token between the last two")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10000)
