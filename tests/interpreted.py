"""Code in a process where Triton interprets kernels: it decides that when it is imported."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[1]
BEFORE = "import torch\nfrom pathlib import Path\ntorch.manual_seed(0)\nfolder = Path({folder!r})\n"


def run_interpreted(code: str) -> list[str]:
    """What code prints, line by line; it has `torch` and a `folder`."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    settings = {**os.environ, "PYTHONPATH": path, "TRITON_INTERPRET": "1"}
    with tempfile.TemporaryDirectory() as folder:
        text = BEFORE.format(folder=folder) + textwrap.dedent(code)
        done = subprocess.run(
            [sys.executable, "-c", text], capture_output=True, text=True, check=False, env=settings
        )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()
