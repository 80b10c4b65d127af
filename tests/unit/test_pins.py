"""The pins of requirements/*.txt against the ranges of pyproject.toml."""

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
RANGES = {
    "base": [
        *PROJECT["project"]["dependencies"],
        *PROJECT["project"]["optional-dependencies"]["cli"],
        *PROJECT["build-system"]["requires"],
    ],
    "dev": PROJECT["project"]["optional-dependencies"]["dev"],
    "docs": PROJECT["project"]["optional-dependencies"]["docs"],
    "rl": PROJECT["project"]["optional-dependencies"]["rl"],
}


def lines(name):
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    return [line for line in text.splitlines() if not line.startswith("#")]


@pytest.mark.parametrize("name", RANGES)
def test_a_file_of_pins_holds_exact_versions_and_nothing_else(name):
    for line in lines(name):
        pin = Requirement(line)
        assert str(pin.specifier).startswith("==")
        assert (pin.url, pin.marker, pin.extras) == (None, None, set())
        assert "+" not in line


@pytest.mark.parametrize("name", RANGES)
def test_what_the_project_asks_for_is_pinned_within_its_range(name):
    upto = list(RANGES)[: list(RANGES).index(name) + 1]  # later files leave out what is in earlier
    found = [Requirement(line) for other in upto for line in lines(other)]
    pins = {pin.name: str(pin.specifier)[2:] for pin in found}
    for wanted in map(Requirement, RANGES[name]):
        assert wanted.specifier.contains(pins[canonicalize_name(wanted.name)])


def test_no_package_is_pinned_twice():
    names = [Requirement(line).name for name in RANGES for line in lines(name)]
    assert len(names) == len(set(names))
