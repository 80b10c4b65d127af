"""Compile the full pins of requirements/*.txt from the ranges in pyproject.toml.

Each file is the closure of one set: base is what `weft` needs to run, dev what its checks
need, docs what its pages need, rl what the engines need that train policies. A later set is
resolved under the pins of the earlier ones, so that all can be installed together. The files hold
names and versions only: no addresses, no hashes, no local version labels, so they serve every index
and every supported Python.

Run it through `make lock`, on the oldest supported Python.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

HERE = Path(__file__).parent

# One exact torch: a looser range can resolve to a build that brings gigabytes of CUDA along,
# and captured graphs, hence golden files, differ from release to release.
TORCH = "torch==2.13.0"


def wanted() -> dict[str, list[str]]:
    """Requirements of each set, from pyproject.toml, in the order of resolution."""
    config = tomllib.loads((HERE.parent / "pyproject.toml").read_text())
    project = config["project"]
    extras = project["optional-dependencies"]
    base = [r for r in project["dependencies"] if not r.startswith("torch")]
    return {
        "base": [TORCH, *base, *extras["cli"], *config["build-system"]["requires"]],
        "dev": extras["dev"],
        "docs": extras["docs"],
        "rl": extras["rl"],
    }


def resolve(requirements: list[str], pins: dict[str, str]) -> dict[str, str]:
    """Name and version of everything that pip would install, under earlier pins."""
    with tempfile.TemporaryDirectory() as folder:
        report, constraints = Path(folder, "report.json"), Path(folder, "pins.txt")
        constraints.write_text(format_pins(pins))
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run"]
        command += ["--ignore-installed", "--report", str(report), "-c", str(constraints)]
        subprocess.run([*command, *requirements], check=True)
        installed = json.loads(report.read_text())["install"]
    found = (package["metadata"] for package in installed)
    return {_normal(p["name"]): p["version"].partition("+")[0] for p in found}


def _normal(name: str) -> str:
    # Indexes take any spelling; one spelling a package keeps the sets comparable.
    return re.sub(r"[-_.]+", "-", name).lower()


def format_pins(pins: dict[str, str]) -> str:
    """One pin a line, by name."""
    return "".join(f"{name}=={version}\n" for name, version in sorted(pins.items()))


def main() -> None:
    """Write one file a set."""
    pins: dict[str, str] = {}
    for name, requirements in wanted().items():
        found = resolve([*requirements, *([TORCH] if name == "dev" else [])], pins)
        new = {package: version for package, version in found.items() if package not in pins}
        pins |= new
        (HERE / f"{name}.txt").write_text(f"# Compiled by `make lock`.\n{format_pins(new)}")
        print(f"requirements/{name}.txt: {len(new)} pins")


if __name__ == "__main__":
    main()
