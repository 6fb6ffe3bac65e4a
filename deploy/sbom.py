#!/usr/bin/env python3
"""Writes a software bill of materials of the program: `deploy/sbom.py FILE` makes CycloneDX 1.6 as JSON. `make sbom` calls it.

It lists the crates that the image's program is built from, on both architectures: what `cargo tree` names without what only tests need. Names,
licences and edges come from `cargo metadata`, digests from Cargo.lock. The same tree and SOURCE_DATE_EPOCH give the same bytes.
"""

import datetime
import json
import os
import pathlib
import re
import subprocess
import sys
import tomllib
import uuid

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGETS = ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"]


def cargo(*words: str) -> str:
    command = [os.environ.get("CARGO", "cargo"), *words, "--locked"]
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def built() -> set[tuple[str, str]]:
    """Name and version of each crate that the program is built from."""
    found = set()
    for target in TARGETS:
        lines = cargo("tree", "--edges", "no-dev", "--target", target, "--prefix", "none", "--format", "{p}")
        found |= {tuple(line.split()[:2]) for line in lines.splitlines() if line}
    return {(name, version.removeprefix("v")) for name, version in found}


def purl(package: dict) -> str:
    return f"pkg:cargo/{package['name']}@{package['version'].replace('+', '%2B')}"


def component(package: dict, digests: dict) -> dict:
    kind = "application" if package["name"] == "pointsman" else "library"
    one = {"type": kind, "bom-ref": purl(package), "name": package["name"], "version": package["version"]}
    if package["source"]:
        one["hashes"] = [{"alg": "SHA-256", "content": digests[package["name"], package["version"]]}]
    if package["license"]:
        # Old crates write a slash for a choice.
        one["licenses"] = [{"expression": re.sub(r"\s*/\s*", " OR ", package["license"])}]
    one["purl"] = purl(package)
    if package["repository"]:
        one["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    return one


def bill() -> dict:
    filters = [word for target in TARGETS for word in ("--filter-platform", target)]
    metadata = json.loads(cargo("metadata", "--format-version", "1", *filters))
    names = built()
    packages = {one["id"]: one for one in metadata["packages"] if (one["name"], one["version"]) in names}
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())
    digests = {(one["name"], one["version"]): one.get("checksum") for one in lock["package"]}
    program = packages[metadata["resolve"]["root"]]
    edges = []
    for node in metadata["resolve"]["nodes"]:
        if node["id"] in packages:
            needed = [one["pkg"] for one in node["deps"] if any(kind["kind"] != "dev" for kind in one["dep_kinds"])]
            needs = sorted({purl(packages[one]) for one in needed if one in packages})
            edges.append({"ref": purl(packages[node["id"]]), "dependsOn": needs})
    crates = [component(one, digests) for one in packages.values() if one is not program]
    about = {"component": component(program, digests)}
    if epoch := os.environ.get("SOURCE_DATE_EPOCH"):
        moment = datetime.datetime.fromtimestamp(int(epoch), datetime.timezone.utc)
        about["timestamp"] = moment.strftime("%Y-%m-%dT%H:%M:%SZ")
    body = {
        "metadata": about,
        "components": sorted(crates, key=lambda one: one["purl"]),
        "dependencies": sorted(edges, key=lambda one: one["ref"]),
    }
    number = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(body, sort_keys=True))
    head = {"bomFormat": "CycloneDX", "specVersion": "1.6", "serialNumber": f"urn:uuid:{number}", "version": 1}
    return head | body


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: deploy/sbom.py FILE")
    path = pathlib.Path(sys.argv[1])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(bill(), indent=2) + "\n")


if __name__ == "__main__":
    main()
