#!/usr/bin/env python3
"""The load that a profile-guided build learns from: the mix of the benchmarks, on the binary that BEARERD names.

    BEARERD=target/pgo/.../bearerd benches/train.py

Needs nginx, wrk, h2load and openssl. Each process ends in order, so that it writes its profile.
"""
import http.client, pathlib, re, signal, tempfile

import cpu_per_request as mix
import protocols

SECONDS = 3


def end(process):
    process.send_signal(signal.SIGTERM)
    if process.wait(timeout=60) != 0:
        raise SystemExit("it did not end in order")


def in_order(folder, command):
    """The same configuration, with an end that does not wait."""
    file = pathlib.Path(command[-1])
    file.write_text(file.read_text() + "shutdown: { delay: 0s, drain_timeout: 2s }\n")
    return mix.start(folder, "bearerd", command)


def main():
    folder = pathlib.Path(tempfile.mkdtemp(prefix="bearerd-train-"))
    folder.chmod(0o755)
    mix.keys_file(folder)
    plain, http2 = mix.free_port(), mix.free_port()
    upstream = protocols.upstream(folder, plain, http2)
    try:
        mix.wait_for(plain)
        for name, access, routes in (("plain", False, mix.ROUTE), ("policy", False, mix.POLICY), ("jwt", False, mix.JWT), ("log", True, mix.ROUTE)):
            ports, command = mix.configuration(folder, name, plain, access, routes)
            file = folder / f"{name}.yaml"
            file.write_text(file.read_text().replace("%d", str(ports["service"])))
            process = in_order(folder, command)
            mix.wait_for(ports["proxy"])
            mix.wait_for(ports["service"])
            lines = [f"Authorization: Bearer {token}" for token in mix.tokens(ports["service"])] if name == "jwt" else None
            mix.load(folder, ports["proxy"], SECONDS, 64, lines)
            # Refusals too: they are what an outage or an attack is made of.
            caller = http.client.HTTPConnection("127.0.0.1", ports["proxy"])
            for number in range(500):
                caller.request("GET", "/", headers={"X-API-Key": f"unknown-{number}"} if number % 2 else {})
                caller.getresponse().read()
            scrape = http.client.HTTPConnection("127.0.0.1", ports["metrics"])
            scrape.request("GET", "/metrics")
            scrape.getresponse().read()
            caller.close()
            scrape.close()
            end(process)
        protocols.keys_file(folder)
        protocols.certificate_files(folder)
        asked = 'wrk.headers["X-Original-URI"] = "/api/v1/items"\nwrk.headers["X-Original-Method"] = "GET"\n'
        for name, listener, server, protocol in (("h2", "h2c: true", http2, "h2c"), ("tls", protocols.TLS, plain, "http1"), ("decision", "mode: decision", plain, "http1")):
            port = mix.free_port()
            process = in_order(folder, protocols.bearerd(folder, name, listener, server, port, protocol))
            mix.wait_for(port)
            if name == "h2":
                protocols.by_h2load(f"http://127.0.0.1:{port}/api/v1/items", 40000)
            elif name == "tls":
                protocols.by_wrk(f"https://localhost:{port}/api/v1/items", SECONDS, folder)
            else:
                protocols.by_wrk(f"http://127.0.0.1:{port}/", SECONDS, folder, asked)
            end(process)
    finally:
        upstream.kill()


main()
