#!/usr/bin/env python3
"""Runs an image as Kubernetes would, without an engine: deploy/image/check.py LAYOUT:TAG

It is unpacked with umoci, and started with bubblewrap: as user 65532, without capabilities, on a root file system that is read-only, with
configuration and keys mounted. It must serve, keep its ledger, and end on SIGTERM. All of it is bounded in time.
"""

import json
import os
import pathlib
import re
import signal
import stat
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

USER = 65532
CONFIGURATION = """
listeners: [{ address: 127.0.0.1:0 }]
admin: { address: 127.0.0.1:0 }
metrics: { address: 127.0.0.1:0 }
token_services: { default: { kind: embedded, keys_file: /secrets/keys.yaml, signing_key_file: /var/lib/bearerd/signing.pem } }
routes: [{ respond: { status: 204 } }]
cache: { ledger: { path: /var/lib/bearerd/ledger.redb, key_files: [/secrets/ledger.key] } }
shutdown: { delay: 0s }
"""


def configuration(image):
    """The image's own configuration, read from its blobs."""
    layout, tag = image.rsplit(":", 1)
    layout = pathlib.Path(layout)

    def blob(digest):
        return json.loads((layout / "blobs" / digest.replace(":", "/")).read_text())

    index = json.loads((layout / "index.json").read_text())
    manifest = next(
        entry for entry in index["manifests"] if entry["annotations"]["org.opencontainers.image.ref.name"] == tag
    )
    return blob(blob(manifest["digest"])["config"]["digest"])


def check_files(root):
    """Nothing to start but bearerd, nothing that gives rights, nothing that others may change."""
    executable = []
    for path in root.rglob("*"):
        status = path.lstat()
        assert stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode), f"{path} is neither a folder nor a file"
        assert not status.st_mode & (stat.S_ISUID | stat.S_ISGID | stat.S_IWGRP | stat.S_IWOTH), f"{path} has mode {status.st_mode:o}"
        if stat.S_ISREG(status.st_mode) and "bin" in path.relative_to(root).parts:
            executable.append(str(path.relative_to(root)))
    assert executable == ["usr/local/bin/bearerd"], executable
    bom = json.loads((root / "usr/share/doc/bearerd/sbom.cdx.json").read_text())
    assert bom["bomFormat"] == "CycloneDX" and len(bom["components"]) > 100


def descendant(process, name):
    """The process of this name under another one."""
    for _ in range(200):
        left = [process.pid]
        while left:
            pid = left.pop()
            try:
                if pathlib.Path(f"/proc/{pid}/comm").read_text().strip() == name:
                    return pid
                left += map(int, pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
            except FileNotFoundError:
                pass
        time.sleep(0.05)
    raise AssertionError(f"there is no process {name}")


def status_of(url, headers=None):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers or {}), timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def main(image):
    # A watchdog over all of it.
    signal.alarm(120)
    inside = configuration(image)
    config = inside["config"]
    assert config["User"] == f"{USER}:{USER}", config
    for label in ["title", "licenses", "version", "revision", "created"]:
        assert config["Labels"][f"org.opencontainers.image.{label}"], label

    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        work.chmod(0o755)
        as_root = os.getuid() == 0
        subprocess.run(["umoci", "unpack", *([] if as_root else ["--rootless"]), "--image", image, work / "bundle"], check=True)
        root = work / "bundle/rootfs"
        for folder in [work / "bundle", root]:
            folder.chmod(0o755)
        check_files(root)

        # As a ConfigMap, a Secret with defaultMode 0440 and an emptyDir arrive where the pod has fsGroup 65532.
        etc, secrets, data = (work / name for name in ["etc", "secrets", "data"])
        for folder in [etc, secrets, data]:
            folder.mkdir()
        (etc / "bearerd.yaml").write_text(CONFIGURATION)
        (secrets / "ledger.key").write_bytes(os.urandom(32))
        drop = []
        if as_root:
            drop = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
        sandbox = [
            *drop, "bwrap", "--unshare-user", "--unshare-ipc", "--unshare-uts", "--unshare-pid", "--die-with-parent", "--clearenv",
            "--setenv", "PATH", "/usr/local/bin", "--ro-bind", root, "/", "--proc", "/proc", "--dev", "/dev",
            "--ro-bind", etc, "/etc/bearerd", "--bind", secrets, "/secrets", "--bind", data, "/var/lib/bearerd", "--chdir", "/",
        ]  # fmt: skip
        if as_root:
            for path in [secrets, secrets / "ledger.key", data]:
                os.chown(path, USER, USER)

        def run(*arguments):
            return subprocess.run([*sandbox, *config["Entrypoint"], *arguments], check=True, capture_output=True, text=True, timeout=30).stdout

        version = run("--version").strip()
        assert config["Labels"]["org.opencontainers.image.version"] in version, version
        key = run("keys", "new", "--name", "alice", "--keys-file", "/secrets/keys.yaml").strip()
        assert "ok" in run("check", "-c", "/etc/bearerd/bearerd.yaml")

        read_only = [("--ro-bind" if part == "--bind" and sandbox[number + 1] == secrets else part) for number, part in enumerate(sandbox)]
        began = time.monotonic()
        process = subprocess.Popen([*read_only, *config["Entrypoint"], *config["Cmd"]], stderr=subprocess.PIPE, text=True)
        try:
            listening = {}
            while listening.get("message") != "listening":
                line = process.stderr.readline()
                assert line, "it ended before it listened"
                listening = json.loads(line)
            took = time.monotonic() - began
            pid = descendant(process, "bearerd")
            proc = pathlib.Path(f"/proc/{pid}")
            told = dict(re.findall(r"^(\w+):\s*(.*)$", (proc / "status").read_text(), re.MULTILINE))
            uid = USER if as_root else os.getuid()
            assert set(told["Uid"].split()) == {str(uid)}, told["Uid"]
            assert int(told["CapEff"], 16) == 0 and told["NoNewPrivs"] == "1", told
            mounts = [line.split() for line in (proc / "mountinfo").read_text().splitlines()]
            options = next(mount[5] for mount in mounts if mount[4] == "/")
            assert "ro" in options.split(","), options
            resident = int(told["VmRSS"].split()[0]) / 1024

            callers, metrics = listening["callers"].strip("[]"), listening["metrics"]
            for path in ["livez", "startupz", "readyz", "metrics"]:
                # The line is written a moment before the probes say so.
                until = time.monotonic() + 10
                while status_of(f"http://{metrics}/{path}") != 200:
                    assert time.monotonic() < until, path
                    time.sleep(0.02)
            assert status_of(f"http://{callers}/") == 401
            for _ in range(3):
                assert status_of(f"http://{callers}/", {"X-API-Key": key}) == 204
            os.kill(pid, signal.SIGTERM)
            for _ in process.stderr:
                pass
            assert process.wait(timeout=30) == 0, process.returncode
        finally:
            process.kill()
            process.wait()
        assert (data / "ledger.redb").stat().st_size > 0
        print(f"{version}: serves as user {uid} on a read-only root, listening after {took * 1000:.0f} ms, {resident:.0f} MiB resident; ends with 0")


if __name__ == "__main__":
    main(sys.argv[1])
