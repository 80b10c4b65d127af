import json

import pytest

from tests.unit.tokens.ledger.known import a_call
from weft.cli.main import main
from weft.tokens.ledger import Ledger

PRICES = """
per: 1
prices:
  - model: gpt-*
    usd: {fresh: 0.01, cache_read: 0.001, text: 0.1}
"""


@pytest.fixture
def ledger(tmp_path):
    path = tmp_path / "ledger.db"
    with Ledger(path) as opened:
        opened.add([a_call(1, agent="coder"), a_call(2, agent="critic", model="mystery")])
    return str(path)


@pytest.fixture
def prices(tmp_path):
    path = tmp_path / "prices.yaml"
    path.write_text(PRICES)
    return str(path)


def test_a_report_says_who_spent_what_and_what_has_no_price(ledger, prices, capsys):
    assert main(["tokens", "report", ledger, "--by", "agent,model", "--prices", prices]) == 0
    told = capsys.readouterr().out
    assert "2 calls from 2026-11-01 to 2026-11-01 read 200 and generated 20 tokens" in told
    assert "for >= $1.64" in told
    assert "mystery" in told and "no price" in told
    assert f"prices: {prices}" in told


def test_a_page_is_written_where_it_is_asked_for(ledger, prices, tmp_path, capsys):
    page = tmp_path / "page.html"
    assert main(["tokens", "report", ledger, "--prices", prices, "--html", str(page)]) == 0
    assert page.read_text().startswith("<!doctype html>")
    assert f"wrote {page}" in capsys.readouterr().out


def test_the_result_is_one_line_of_json(ledger, prices, capsys):
    assert main(["tokens", "report", ledger, "--prices", prices, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["total"]["cost_usd"] == ["1.640", None]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["missing.db"], "no missing.db"),
        (["{ledger}", "--by", "agnt"], "agnt"),
        (["{ledger}", "--prices", "nowhere.yaml"], "nowhere.yaml"),
        (["{prices}"], "ledger"),
    ],
)
def test_what_is_not_there_is_named(ledger, prices, capsys, arguments, named):
    filled = [word.format(ledger=ledger, prices=prices) for word in arguments]
    assert main(["tokens", "report", *filled]) == 2
    assert named in capsys.readouterr().err


def test_an_action_is_asked_for(capsys):
    assert main(["tokens"]) == 2
    assert "ACTION" in capsys.readouterr().err


def test_an_empty_file_is_no_ledger_and_stays_empty(tmp_path, capsys):
    path = tmp_path / "l.db"
    path.touch()
    assert main(["tokens", "report", str(path)]) == 2
    assert "which is empty" in capsys.readouterr().err
    assert path.stat().st_size == 0
    assert main(["tokens", "report", str(tmp_path)]) == 2
    assert "a folder" in capsys.readouterr().err
    for action in (["report"], ["audit"], ["ingest", "-o", str(tmp_path / "o.db")]):
        assert main(["tokens", *action, "x" * 300]) == 2
        assert "too long" in capsys.readouterr().err
