"""Random regions under Triton's interpreter; a process of its own, with TRITON_INTERPRET=1.

    python -m tests.property.fused_triton COUNT NUMBER PROCESSORS

prints one line of JSON: how many regions were computed, how many have no kernel and why, and what
is wrong with the others. Strange numbers in bfloat16 are left out: the interpreter reads its
subnormal ones as zeros.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from tests.property.fused_kernels import complaint, drawn
from weft.core.errors import VerifyError
from weft.fusion.device import H100
from weft.fusion.gpu import compile_for
from weft.program.types import DType

ROOT = Path(__file__).parents[2]


def interpreted(count: int, number: int, processors: int) -> dict:
    """The same from another process."""
    command = [sys.executable, "-m", __name__, str(count), str(number), str(processors)]
    path = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    settings = {**os.environ, "PYTHONPATH": path, "TRITON_INTERPRET": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=settings)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def main(count: int, number: int, processors: int) -> None:
    device = replace(H100, processors=processors)
    refused, wrong, computed = [], [], 0
    with tempfile.TemporaryDirectory() as folder:
        for at, case in enumerate(drawn(count, number)):
            nodes = case.region.program.nodes
            if case.wild and any(node.outputs[0].dtype is DType.BF16 for node in nodes):
                continue
            try:
                kernel = compile_for(case.region, device, Path(folder) / str(at))
            except VerifyError as error:
                refused.append(error.got)
                continue
            except Exception as error:
                wrong.append(f"case {at}: {type(error).__name__}: {error}\n{case}")
                continue
            try:
                said = complaint(case, kernel)
            except Exception as error:
                said = f"{type(error).__name__}: {error}"
            computed += 1
            if said:
                wrong.append(f"case {at}: {said}\n{case}")
    print(json.dumps({"computed": computed, "refused": refused, "wrong": wrong}))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
