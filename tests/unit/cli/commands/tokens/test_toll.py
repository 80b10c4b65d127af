import json

import pytest

from tests.unit.tokens.ledger.known import a_call
from weft.cli.main import main
from weft.machine import preset
from weft.tokens import Count, Usage
from weft.tokens.ledger import Ledger
from weft.tokens.serving import Decoder, ServedPlan, priced_steps, save_served_plan

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
        ("resources: [{name: a, token_s: 0}]\ncache_tokens: 4", "0 s alone"),
        ("resources: [{name: a, token_s: true}]\ncache_tokens: 4", "True"),
        ("resources: [{name: a, token_s: 1}]\ncache_tokens: .inf", "inf"),
        ("cache_tokens: 4\ncache_tokens: 5", "'cache_tokens' stands twice"),
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
        (["toll", trace, "--steps", server, "--delay", "1e300"], "below 1e+12"),
        (["toll", trace, "--steps", server, "--loads", ""], "above zero"),
        (["toll", trace, "--steps", server, "--loads", "1e-300"], "at least 1e-06"),
        (["toll", trace, "--steps", server, "--most", "0.5"], "a whole number"),
        (["simulate", trace, "--steps", server, "--load", "1e-300"], "a load from"),
        (["simulate", trace, "--steps", server, "--first", "3.7"], "a whole number"),
        (["simulate", trace, "--steps", server, "--only", "lottery"], "lottery"),
        (["simulate", str(tmp_path / "no.csv"), "--steps", server], "no.csv"),
    ):
        assert main(["tokens", *words]) != 0
        assert named in capsys.readouterr().err


def test_a_served_plan_says_what_steps_take(trace, tmp_path, capsys):
    plan = tmp_path / "plan.json"
    model = Decoder(
        name="tiny",
        layers=4,
        hidden=512,
        heads=8,
        kv_heads=8,
        head=64,
        feed_forward=2048,
        vocabulary=32000,
    )
    machine = preset("dgx-h100x1")
    served = ServedPlan(decoder=model, machine=machine, usd_per_device_hour=2.5, source="a list")
    save_served_plan(served, plan)
    assert main(["tokens", "toll", trace, "--steps", str(plan), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    steps = tmp_path / "steps.yaml"
    times = priced_steps(served).times
    resources = [{n: getattr(own, n) for n in own.__slots__} for own in times.resources]
    steps.write_text(json.dumps({"cache_tokens": times.cache_tokens, "resources": resources}))
    assert main(["tokens", "toll", trace, "--steps", str(steps), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == told
    assert told["tolls"][-1]["request_usd"] > 0


@pytest.mark.parametrize("text", ["{}", "[1]", '{"weft": "plan", "version": 1}', ""])
def test_a_plan_of_another_kind_is_refused(trace, tmp_path, capsys, text):
    plan = tmp_path / "plan.json"
    plan.write_text(text)
    assert main(["tokens", "toll", trace, "--steps", str(plan)]) == 2
    told = capsys.readouterr().err
    assert "plan.json" in told and "served plan of version 1" in told


def test_requests_of_one_moment_have_tolls_and_no_rate(server, tmp_path, capsys):
    path = tmp_path / "t.csv"
    path.write_text("arrival_s,input_tokens,output_tokens\n" + "3,400,50\n" * 4)
    assert main(["tokens", "toll", str(path), "--steps", server]) == 0
    assert "no rate" in capsys.readouterr().out
    assert main(["tokens", "toll", str(path), "--steps", server, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rate"] is None
    assert main(["tokens", "simulate", str(path), "--steps", server]) == 2
    assert "at different times" in capsys.readouterr().err


def test_the_rate_is_of_the_times_between_requests(server, tmp_path, capsys):
    path = tmp_path / "t.csv"
    path.write_text("arrival_s,input_tokens,output_tokens\n4,400,50\n0,400,50\n2,400,50\n")
    assert main(["tokens", "toll", str(path), "--steps", server, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rate"] == 0.5


@pytest.mark.parametrize(
    "row",
    [
        "share: .nan, value_usd: 1, delay_usd_per_s: 0",
        "share: 1, value_usd: -1, delay_usd_per_s: 0",
        "share: 1, value_usd: 1, delay_usd_per_s: 0, identities: 0",
        "share: 1, value_usd: 1, delay_usd_per_s: 0, identities: .inf",
        "share: 1, value_usd: 1, delay_usd_per_s: 0, identities: 1.5",
        "share: true, value_usd: 1, delay_usd_per_s: 0",
        "share: 1, value_usd: 1, delay_usd_per_s: 0, share: 1",
    ],
)
def test_a_client_that_cannot_be_is_refused(trace, server, tmp_path, capsys, row):
    path = tmp_path / "clients.yaml"
    path.write_text(f"clients: [{{name: a, {row}}}]")
    assert main(["tokens", "simulate", trace, "--steps", server, "--clients", str(path)]) == 2
    assert "clients.yaml" in capsys.readouterr().err
