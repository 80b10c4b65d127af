import json

import numpy as np
import pytest

from tests.unit.tokens.ledger.known import a_call
from weft.cli.main import main
from weft.tokens import Usage
from weft.tokens.allocate import load_budget_plan
from weft.tokens.ledger import Ledger
from weft.tokens.micro import simulated

PRICES = "per: 1\nprices:\n  - model: gpt-*\n    usd: {fresh: 0, text: 0.00001}\n"


@pytest.fixture
def prices(tmp_path):
    path = tmp_path / "prices.yaml"
    path.write_text(PRICES)
    return str(path)


def kept(path, arms=True):
    drawn = simulated(tasks=120, attempts=3, elasticity=0.8, difficulty=2.0, seed=4).trials
    tokens = np.asarray(drawn.inputs["tokens"])
    with Ledger(path) as ledger:
        ledger.add(
            a_call(
                n,
                task=drawn.task[n],
                session=str(n),
                arm=drawn.arm[n] if arms else "",
                passed=bool(drawn.y[n]),
                usage=Usage.of(fresh=1, text=round(float(tokens[n]))),
            )
            for n in range(len(drawn))
        )
    return str(path)


def test_arms_tell_an_effect_with_its_cost(tmp_path, prices, capsys):
    assert main(["tokens", "fit", kept(tmp_path / "l.db"), "--prices", prices]) == 0
    told = capsys.readouterr().out
    assert "Cobb-Douglas, experimental (360 attempts at 120 tasks, 4 arms)" in told
    assert "usd for each" in told and "one more is" in told


def test_without_arms_it_is_an_association(tmp_path, capsys):
    assert main(["tokens", "fit", kept(tmp_path / "l.db", arms=False), "--json"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert plain["mode"] == "observational"
    assert plain["elasticities"]["output"][0] < 0.0


def test_asking_for_arms_that_are_not_there_says_what_to_do(tmp_path, capsys):
    path = kept(tmp_path / "l.db", arms=False)
    assert main(["tokens", "fit", path, "--mode", "experimental"]) != 0
    assert "draw a cap or an effort for each attempt" in capsys.readouterr().err


def test_a_budget_is_spent_and_its_plan_kept(tmp_path, prices, capsys):
    path, plan = kept(tmp_path / "l.db"), tmp_path / "plan.json"
    arguments = ["--budget", "0.5usd", "--prices", prices, "-o", str(plan)]
    assert main(["tokens", "allocate", path, *arguments]) == 0
    assert "one usd more would bring" in capsys.readouterr().out
    assert load_budget_plan(plan).budget.nano == 500_000_000


def test_a_ledger_that_is_not_there_is_named(tmp_path, capsys):
    assert main(["tokens", "fit", str(tmp_path / "no.db")]) != 0
    assert "weft tokens ingest" in capsys.readouterr().err


@pytest.mark.parametrize("budget", ["50eur", "5000tokens"])
def test_a_budget_in_anything_but_dollars_is_refused(tmp_path, prices, capsys, budget):
    path = kept(tmp_path / "l.db")
    assert main(["tokens", "allocate", path, "--budget", budget, "--prices", prices]) == 2
    assert "a budget in dollars" in capsys.readouterr().err


def test_attempts_without_a_price_are_counted_and_left_out(tmp_path, prices, capsys):
    path = kept(tmp_path / "l.db")
    with Ledger(path) as ledger:
        ledger.add([a_call(9999, task="x", session="x", passed=True, model="other")])
    assert main(["tokens", "allocate", path, "--budget", "1usd", "--prices", prices]) == 0
    assert "left out    1 attempts: no price" in capsys.readouterr().out


def test_within_tasks_it_is_said_of_which_tasks_that_holds(tmp_path, capsys):
    assert main(["tokens", "fit", kept(tmp_path / "l.db"), "--mode", "within"]) == 0
    assert capsys.readouterr().out.count("of tasks that passed and failed both") == 2
