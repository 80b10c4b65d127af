import json

import pytest

from weft.cli.main import main
from weft.tokens.serving import load_served_plan

CONFIG = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "torch_dtype": "bfloat16",
    "vocab_size": 128256,
}
HERE = ["--machine", "dgx-h100x1", "--usd-per-hour", "2.5"]


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "llama-8b" / "config.json"
    path.parent.mkdir()
    path.write_text(json.dumps(CONFIG))
    return str(path)


@pytest.fixture
def arrivals(tmp_path):
    path = tmp_path / "trace.csv"
    rows = [f"{n * 0.2:.1f},{400 + 31 * (n % 50)},{20 + 7 * (n % 60)}" for n in range(900)]
    path.write_text("\n".join(["arrival_s,input_tokens,output_tokens", *rows]))
    return ["--arrivals", str(path)]


def asked(capsys, *words):
    assert main(["tokens", "price", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_parts_of_the_bill_add_up_to_it(model, arrivals, capsys):
    plain = asked(capsys, model, *arrivals, *HERE)
    usd = {name: own["part"] / 1e6 for name, own in plain["usd_per_million"].items()}
    fresh = sum(400 + 31 * (n % 50) for n in range(900)) / 900
    output = sum(20 + 7 * (n % 60) for n in range(900)) / 900
    bill = fresh * usd["fresh"] + output * usd["output"]
    assert bill == pytest.approx(plain["usd_per_request"], rel=1e-9)
    # And the bill is what the server costs while the requests come.
    assert plain["usd_per_request"] == pytest.approx(2.5 / 3600 * 0.2, rel=1e-6)
    assert plain["servers"] == 1 and 0 < plain["utilisation"] < 1


def test_a_plan_that_is_kept_is_asked_again_with_other_prices(model, arrivals, tmp_path, capsys):
    kept = str(tmp_path / "plan.json")
    first = asked(capsys, model, *arrivals, *HERE, "--source", "a list", "-o", kept)
    assert load_served_plan(kept).source == "a list"
    assert asked(capsys, kept, *arrivals) == first
    twice = asked(capsys, kept, *arrivals, "--usd-per-hour", "5")
    assert twice["usd_per_request"] == pytest.approx(2 * first["usd_per_request"])
    two = asked(capsys, kept, *arrivals, "--devices", "2")
    assert two["devices"] == 2 and two["steps_per_s"] > 0
    slower = asked(capsys, kept, *arrivals, "--machine", "dgx-a100x1")
    assert slower["utilisation"] > first["utilisation"]


def test_a_table_says_what_it_rests_on(model, arrivals, tmp_path, capsys):
    book = tmp_path / "prices.yaml"
    book.write_text("prices:\n  - {provider: p, model: m, usd: {fresh: 1, text: 4}}\n")
    words = [model, *arrivals, *HERE, "--against", "p/m", "--prices", str(book), "--off", "0.1"]
    assert main(["tokens", "price", *words]) == 0
    told = capsys.readouterr().out
    for word in ("fresh input", "part of the bill", "2.50 usd, given on the command line"):
        assert word in told
    assert "an own server pays" in told and "at work" in told


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "--machine dgx-h100x1 --usd-per-hour 2.5"),
        (["--machine", "dgx-h100x1"], "one of the two"),
        ([*HERE, "--token-ms", "1"], "a token every 0.001 s"),
        ([*HERE, "--devices", "64"], "1 to 8 devices"),
        ([*HERE, "--usd-per-hour", "-1"], "dollars for an hour"),
    ],
)
def test_what_cannot_be_priced_says_what_to_try(model, arrivals, capsys, words, told):
    assert main(["tokens", "price", model, *arrivals, *words]) != 0
    assert told in capsys.readouterr().err


def test_a_model_that_does_not_fit_says_how_many_devices_would(tmp_path, arrivals, capsys):
    path = tmp_path / "config.json"
    large = {"hidden_size": 8192, "intermediate_size": 28672, "num_attention_heads": 64}
    path.write_text(json.dumps(CONFIG | large | {"num_hidden_layers": 80}))
    assert main(["tokens", "price", str(path), *arrivals, *HERE]) != 0
    assert "2 devices for a server" in capsys.readouterr().err
