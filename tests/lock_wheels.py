#!/usr/bin/env python3
"""Writes the hashes of all wheels that a requirements file may install.

`tests/lock_wheels.py tests/requirements.txt` reads the lines `name==version` and writes the file again, with the SHA-256 of the wheels for
Linux with glibc on x86-64 and aarch64 and for each Python from 3.11 on. After a change of a version, delete nothing and run it again.
"""

import hashlib
import pathlib
import re
import subprocess
import sys
import tempfile

MACHINES = ["x86_64", "aarch64"]
PYTHONS = ["311", "312", "313", "314", "315"]
GLIBCS = ["2014", "_2_17", "_2_28", "_2_31"]
PINNED = re.compile(r"^([A-Za-z0-9_.-]+)==([A-Za-z0-9_.!+-]+)")


def download(pin: str, machine: str, python: str, folder: str) -> bool:
    """Fetches the one wheel that pip would install there; false if there is none."""
    platforms = [word for glibc in GLIBCS for word in ("--platform", f"manylinux{glibc}_{machine}")]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary", ":all:", *platforms, "--implementation", "cp", "--python-version", python]
    command += ["--abi", f"cp{python}", "--abi", "abi3", "--abi", "none", "--dest", folder, pin]
    return subprocess.run(command, stderr=subprocess.DEVNULL).returncode == 0


def hashes(pin: str) -> list[str]:
    """SHA-256 of each wheel of this version, in order."""
    with tempfile.TemporaryDirectory() as folder:
        for machine in MACHINES:
            for python in PYTHONS:
                found = download(pin, machine, python, folder)
                if not found and python == PYTHONS[0]:
                    sys.exit(f"{pin}: no wheel for Python {python} on {machine}")
                if found and all(wheel.stem.endswith("-any") for wheel in pathlib.Path(folder).iterdir()):
                    break
        return sorted({hashlib.sha256(wheel.read_bytes()).hexdigest() for wheel in pathlib.Path(folder).iterdir()})


def main() -> None:
    path = pathlib.Path(sys.argv[1])
    lines = path.read_text().splitlines()
    out = [line for line in lines if line.startswith("#")]
    for match in filter(None, map(PINNED.match, lines)):
        out.append(" \\\n    ".join([match[0], *(f"--hash=sha256:{digest}" for digest in hashes(match[0]))]))
    path.write_text("\n".join(out) + "\n")


if __name__ == "__main__":
    main()
