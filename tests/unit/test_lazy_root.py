import os
import subprocess
import sys
from pathlib import Path

import pytest

import weft

SOURCE = Path(weft.__file__).parents[1]


def modules_after(code):
    """Names of the modules that a fresh interpreter has loaded after running some code."""
    script = f"import sys\n{code}\nprint('\\n'.join(sys.modules), file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    return set(done.stderr.split())


HELP = """
from weft.cli.main import main
try:
    main(["--help"])
except SystemExit:
    pass
"""


@pytest.mark.parametrize(
    "code",
    [
        "import weft; weft.__version__",
        "import weft.program, weft.machine, weft.cost, weft.parallel, weft.report",
        "import weft.tokens.adapters, weft.tokens.ledger, weft.tokens.prices; weft.tokens.usd",
        "import weft; weft.Machine; weft.load_machine; weft.Program; weft.ParallelPlan",
        HELP,
        "from weft.cli.main import main; assert main(['machine', 'dgx-h100x8']) == 0",
    ],
    ids=["root", "layers", "tokens", "names", "help", "machine"],
)
def test_what_needs_no_torch_loads_no_torch(code):
    loaded = modules_after(code)
    assert "weft" in loaded
    assert "torch" not in loaded


def test_the_check_above_can_fail():
    assert "torch" in modules_after("import weft; weft.Workload")


def test_the_root_alone_loads_no_numpy_either():
    assert "numpy" not in modules_after("import weft")
