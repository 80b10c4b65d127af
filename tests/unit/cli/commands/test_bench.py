import json
import sys

import pytest

from weft.cli.main import main

SCRIPT = """
from weft.report.bench import BenchReport, at_least
from weft.report.table import Table


def run(quick):
    return BenchReport(
        bench="NAME",
        claims=(at_least("speed-up", 1.5 if quick else 1.7, 1.6),),
        table=Table(columns=("case", "step"), rows=(("one", "2 ms"),)),
    )
"""


@pytest.fixture
def checkout(tmp_path, monkeypatch, request):
    # Scripts are imported as benchmarks.NAME.run: each test takes a name of its own.
    name = "toy_" + request.node.name[5:25].replace("[", "_")
    folder = tmp_path / "benchmarks" / name
    folder.mkdir(parents=True)
    (folder / "run.py").write_text(SCRIPT.replace("NAME", name))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for module in [m for m in sys.modules if m.split(".")[0] == "benchmarks"]:
        monkeypatch.delitem(sys.modules, module)
    return name


def test_a_missed_claim_ends_with_zero_and_the_last_line_says_it(checkout, capsys):
    assert main(["bench", checkout, "--quick"]) == 0
    lines = capsys.readouterr().out.splitlines()
    plain = json.loads(lines[-1])
    assert plain["bench"] == checkout
    assert [claim["ok"] for claim in plain["claims"]] == [False]
    assert any("one" in line for line in lines[:-1])


def test_json_leaves_only_the_last_line(checkout, capsys):
    assert main(["bench", checkout, "--json"]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert json.loads(out)["claims"][0]["ok"]


def test_saving_adds_a_line_to_the_results(checkout, tmp_path, capsys):
    assert main(["bench", checkout, "--save"]) == 0
    files = list((tmp_path / "benchmarks" / "results").iterdir())
    assert len(files) == 1
    assert json.loads(files[0].read_text())["bench"] == checkout


def test_an_unknown_name_is_answered_with_the_names_there_are(checkout, capsys):
    assert main(["bench", "nothing"]) == 2
    err = capsys.readouterr().err
    assert "'nothing'" in err
    assert checkout in err


def test_a_script_without_a_report_is_named(checkout, tmp_path, capsys):
    path = tmp_path / "benchmarks" / checkout / "run.py"
    path.write_text("def run(quick):\n    return {}\n")
    assert main(["bench", checkout]) == 2
    err = capsys.readouterr().err
    assert "run.py" in err
    assert "a dict" in err
