import json

import numpy as np
import pytest

from tests.unit.tokens.guards.letters import reply
from tests.unit.tokens.ledger.known import NOON, a_call
from weft.cli.main import main
from weft.tokens.ledger import Ledger

PRICES = "per: 1\nprices:\n  - model: gpt-*\n    usd: {fresh: 0.01, cache_read: 0.001, text: 0.1}\n"


@pytest.fixture
def ledger(tmp_path):
    """A thousand calls, of which the last two hundred came twenty times as fast."""
    gaps = np.random.default_rng(0).exponential(1.0, 1000)
    gaps[800:] /= 20.0
    path = tmp_path / "ledger.db"
    with Ledger(path) as opened:
        opened.add([a_call(n, at=NOON + float(t)) for n, t in enumerate(np.cumsum(gaps))])
    return path


@pytest.fixture
def logs(tmp_path):
    path = tmp_path / "log.jsonl"
    records = [reply(n, tool="search", tokens=20) for n in range(30)]
    records += [reply(n, "some words", tokens=4) for n in range(30, 60)]
    path.write_text("\n".join(map(json.dumps, records)) + "\nbroken\n")
    return path


def test_a_ledger_is_told_what_ran_away(ledger, tmp_path, capsys):
    prices = tmp_path / "prices.yaml"
    prices.write_text(PRICES)
    assert main(["tokens", "audit", str(ledger), "--prices", str(prices)]) == 0
    told = capsys.readouterr().out
    assert "1 finding in 1000 calls" in told and "burn rate" in told and "usd" in told
    assert "a false alarm has a chance of 0.01" in told
    assert "a ledger keeps no text" in told


def test_a_quiet_ledger_has_no_finding(ledger, capsys):
    words = ["tokens", "audit", str(ledger), "--share", "0.7", "--tolerance", "40", "--json"]
    assert main(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["findings"] == [] and told["guards"][0]["looked"] == 1


def test_logs_are_told_of_circles_and_bills(logs, tmp_path, capsys):
    tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")
    own = tokenizers.Tokenizer(tokenizers.models.WordLevel({"?": 0}, "?"))
    own.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    own.save(str(tmp_path / "words.json"))
    encoder = f"gpt-5*={tmp_path / 'words.json'}"
    assert main(["tokens", "audit", str(logs), "--encoder", encoder, "--json"]) == 0
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert [own["guard"] for own in told["findings"]] == ["tool cycle", "tokens billed"]
    cycle, bill = told["findings"]
    assert cycle["facts"]["period"] == 1 and bill["facts"]["ratio"] == 2.0
    assert all(own["evidence"] >= own["needed"] for own in told["findings"])
    assert "1 record could not be read" in err
    often = ["--again", "search=1", "--json"]
    assert main(["tokens", "audit", str(logs), *often]) == 0
    assert json.loads(capsys.readouterr().out)["findings"] == []


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["missing.db"], "no missing.db"),
        (["{ledger}", "--by", "moon"], "moon"),
        (["{ledger}", "--level", "2"], "level"),
        (["{ledger}", "--again", "nonsense"], "nonsense"),
        (["{ledger}", "{logs}"], "one ledger"),
        (["{logs}", "--encoder", "nowhere.json"], "nowhere.json"),
    ],
)
def test_what_is_wrong_is_named(words, named, ledger, logs, capsys):
    words = [word.format(ledger=ledger, logs=logs) for word in words]
    assert main(["tokens", "audit", *words]) == 2
    assert named in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [["--tolerance", "nan"], ["--tolerance", "0"], ["--honest", "-1"], ["--overhead", "-1"]],
)
def test_numbers_that_cannot_be_are_refused_also_where_nothing_needs_them(tmp_path, capsys, words):
    with Ledger(tmp_path / "l.db") as ledger:
        ledger.add([a_call(1)])
    assert main(["tokens", "audit", str(tmp_path / "l.db"), *words]) == 2
    assert words[0] in capsys.readouterr().err
