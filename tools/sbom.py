#!/usr/bin/env python3
"""Prints what bearerd is made of, as CycloneDX: tools/sbom.py [DEBIAN_PACKAGE...]

The crates that are linked into the binary, by Cargo.lock, and the Debian packages whose files are beside it in the image. Neither crates that
only run during the build (procedural macros, build scripts) nor those of tests are in it. The same input gives the same output.
"""

import json
import pathlib
import re
import subprocess
import sys
import uuid

ROOT = pathlib.Path(__file__).resolve().parent.parent


def output(*command):
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def linked(metadata):
    """Ids of the packages that are reached from the binary by ordinary dependencies, each with those that it has."""
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    runs_in_build = {
        name for name, package in packages.items() if any("proc-macro" in target["kind"] for target in package["targets"])
    }
    found, left = {}, [metadata["resolve"]["root"]]
    while left:
        name = left.pop()
        if name in found:
            continue
        found[name] = sorted(
            dependency["pkg"]
            for dependency in nodes[name]["deps"]
            if dependency["pkg"] not in runs_in_build and any(kind["kind"] is None for kind in dependency["dep_kinds"])
        )
        left += found[name]
    return packages, found


def crate(package, checksums):
    name, version = package["name"], package["version"]
    component = {
        "type": "library",
        "bom-ref": f"pkg:cargo/{name}@{version}",
        "name": name,
        "version": version,
        "purl": f"pkg:cargo/{name}@{version}",
    }
    if package["license"]:
        # Older crates write `MIT/Apache-2.0` for `MIT OR Apache-2.0`.
        component["licenses"] = [{"expression": re.sub(r"\s*/\s*", " OR ", package["license"])}]
    if (name, version) in checksums:
        component["hashes"] = [{"alg": "SHA-256", "content": checksums[name, version]}]
    if package["repository"]:
        component["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    return component


def debian(name):
    version, architecture, source = output(
        "dpkg-query", "--show", "--showformat", "${Version}\t${Architecture}\t${source:Package}\n", name
    ).splitlines()[0].split("\t")
    purl = f"pkg:deb/debian/{name}@{version.replace('+', '%2B').replace(':', '%3A')}?arch={architecture}"
    return {
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": version,
        "purl": purl,
        "properties": [{"name": "debian:source", "value": source}],
    }


def main(debian_packages):
    host = re.search(r"^host: (.*)$", output("rustc", "-vV"), re.MULTILINE)[1]
    metadata = json.loads(output("cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", host))
    lock = (ROOT / "Cargo.lock").read_text()
    checksums = {
        (name, version): checksum
        for name, version, checksum in re.findall(r'name = "(.*)"\nversion = "(.*)"\nsource = ".*"\nchecksum = "(.*)"', lock)
    }
    packages, found = linked(metadata)
    reference = {name: crate(packages[name], checksums)["bom-ref"] for name in found}
    bearerd = crate(packages[metadata["resolve"]["root"]], checksums) | {"type": "application"}
    crates = [crate(packages[name], checksums) for name in found if name != metadata["resolve"]["root"]]
    others = [debian(name) for name in debian_packages]
    dependencies = [{"ref": reference[name], "dependsOn": [reference[other] for other in others]} for name, others in found.items()]
    next(entry for entry in dependencies if entry["ref"] == bearerd["bom-ref"])["dependsOn"] += [other["bom-ref"] for other in others]
    content = {
        "components": sorted(crates + others, key=lambda component: component["bom-ref"]),
        "dependencies": sorted(dependencies, key=lambda dependency: dependency["ref"])
        + [{"ref": other["bom-ref"], "dependsOn": []} for other in others],
    }
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, json.dumps([bearerd, content], sort_keys=True))}",
        "version": 1,
        "metadata": {"component": bearerd},
    } | content
    json.dump(document, sys.stdout, separators=(",", ":"))
    print()


if __name__ == "__main__":
    main(sys.argv[1:])
