import json

import pytest

from tests.unit.tokens.ledger.known import a_call
from weft.cli.main import main
from weft.tokens import Count, Usage
from weft.tokens.ledger import Ledger

SERVER = """
cache_tokens: 40000
resources:
  - {name: compute, fixed_s: 1e-3, token_s: 2e-5}
  - {name: memory, fixed_s: 0.01, context_token_s: 1e-8}
clients:
  - {name: chat, share: 0.5, value_usd: 1.0, delay_usd_per_s: 0.003}
  - {name: batch, share: 0.5, value_usd: 0.3, delay_usd_per_s: 1e-4, identities: 3}
"""


@pytest.fixture
def server(tmp_path):
    path = tmp_path / "server.yaml"
    path.write_text(SERVER)
    return str(path)


@pytest.fixture
def trace(tmp_path):
    path = tmp_path / "trace.csv"
    rows = [f"{n * 0.11},{200 + 37 * (n % 40)},{20 + n % 80}" for n in range(400)]
    path.write_text("\n".join(["arrival_s,input_tokens,output_tokens", *rows]))
    return str(path)


def test_tolls_of_a_trace_rise_with_load(trace, server, capsys):
    assert main(["tokens", "toll", trace, "--steps", server, "--loads", "0.5,0.9"]) == 0
    told = capsys.readouterr().out
    assert "400 requests of" in told and "toll of a request [usd]" in told
    assert main(["tokens", "toll", trace, "--steps", server, "--json"]) == 0
    tolls = json.loads(capsys.readouterr().out)["tolls"]
    assert [own["request_usd"] for own in tolls] == sorted(own["request_usd"] for own in tolls)


def test_tolls_of_a_ledger_leave_out_what_is_not_known(tmp_path, server, capsys):
    path = tmp_path / "l.db"
    with Ledger(path) as ledger:
        ledger.add(
            a_call(n, usage=Usage.of(fresh=100 + n, cache_read=50, text=20 + n)) for n in range(30)
        )
        ledger.add([a_call(99, usage=Usage.of(fresh=9, cache_read=0, text=Count(0, 9)))])
    assert main(["tokens", "toll", str(path), "--steps", server, "--json"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert (plain["requests"], plain["left_out"]) == (30, 1)
    assert main(["tokens", "toll", str(path), "--steps", server, "--model", "none"]) != 0
    assert "none in" in capsys.readouterr().err


def test_a_market_is_played_and_its_page_written(trace, server, tmp_path, capsys):
    page = tmp_path / "m.html"
    words = ["tokens", "simulate", trace, "--steps", server, "--clients", server, "--seeds", "2"]
    assert main([*words, "--load", "2", "--html", str(page)]) == 0
    told = capsys.readouterr().out
    assert "toll does most good" in told and "payers' shares" in told
    html = page.read_text()
    assert "Welfare by mechanism" in html and "2 draws" in html and "tokens_market" in html
    assert main([*words, "--only", "first come", "--first", "50", "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)["runs"]) == ["first come"]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("cache_tokens: 4", "cache_tokens and resources"),
        ("resources: [3]\ncache_tokens: 4", "a list of mappings"),
        ("resources: [{name: a, speed: 4}]\ncache_tokens: 4", "speed"),
        ("resources: [{name: a, token_s: -4}]\ncache_tokens: 4", "-4"),
        ("- 3", "a mapping of"),
        ("a: [", "YAML"),
    ],
)
def test_files_of_something_else_are_refused(trace, tmp_path, capsys, text, named):
    path = tmp_path / "odd.yaml"
    path.write_text(text)
    assert main(["tokens", "toll", trace, "--steps", str(path)]) != 0
    assert named in capsys.readouterr().err


def test_what_cannot_be_asked_is_named(trace, server, tmp_path, capsys):
    for words, named in (
        (["toll", trace, "--steps", server, "--loads", "0.5,1"], "between 0 and 1"),
        (["toll", trace, "--steps", server, "--delay", "free"], "above zero"),
        (["simulate", trace, "--steps", server, "--only", "lottery"], "lottery"),
        (["simulate", str(tmp_path / "no.csv"), "--steps", server], "no.csv"),
    ):
        assert main(["tokens", *words]) != 0
        assert named in capsys.readouterr().err
