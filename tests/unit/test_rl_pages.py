"""The guides on reinforcement learning, as somebody types them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import weft.rl
from weft.rl import Regime

ROOT = Path(__file__).parents[2]


def _page(name: str) -> str:
    return (ROOT / "docs" / "guides" / name).read_text()


def _code(name: str, kind: str = "python") -> str:
    (code,) = re.findall(rf"^```{kind}\n(.*?)^```$", _page(name), re.MULTILINE | re.DOTALL)
    return code


def _run(arguments: list[str], folder: Path) -> str:
    paths = os.pathsep.join([str(ROOT / "src"), str(folder)])
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": paths, "XDG_CACHE_HOME": str(folder / "cache")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_loop_runs_and_says_what_it_did(tmp_path: Path) -> None:
    told = _run(["-c", _code("own_loop.md")], tmp_path)
    assert told.startswith("step 1: first")
    assert "step 2: project" in told
    assert (tmp_path / "checkpoint.pt").exists()


def test_every_regime_is_explained() -> None:
    for regime in Regime:
        assert f"| `{regime.name}` |" in _page("own_loop.md")


def test_the_task_is_learnt_by_the_command_beside_it(tmp_path: Path) -> None:
    (tmp_path / "echo.py").write_text(_code("own_task.md"))
    command = _code("own_task.md", "console").removeprefix("$ weft ").split()
    told = _run(["-m", "weft", *command], tmp_path)
    reward = float(re.findall(r"reward (\d\.\d+) at the end", told)[0])
    # An answer by chance has a tenth of its letters right.
    assert reward > 0.2
    assert (tmp_path / "runs" / "echo" / "records.jsonl").exists()


def test_names_in_the_text_exist() -> None:
    for name in ("own_loop.md", "own_task.md", "stale_samples.md"):
        for found in re.findall(r"weft\.rl\.([A-Z]\w+)", _page(name)):
            assert found in weft.rl.__all__, f"{name}: {found}"
