import json

import pytest

from weft.core.errors import FileError, InputError
from weft.tokens import usd
from weft.tokens.allocate import (
    BudgetPlan,
    Line,
    Option,
    SaturatingCurve,
    Step,
    load_budget_plan,
    plan_menu,
    plan_split,
    save_budget_plan,
)

STEPS = [
    Step(
        name=name,
        options=(
            Option(name="small", cost=usd("0.1"), value=low),
            Option(name="large", cost=usd("0.5"), value=high),
        ),
    )
    for name, low, high in (("plan", 0.2, 0.9), ("write", 0.5, 0.8), ("review", 0.6, 0.7))
]
PLAN = plan_menu(STEPS, usd(1))


def test_a_plan_says_who_gets_what_and_what_lost():
    assert PLAN.explain().splitlines() == [
        "0.7 of 1 usd for 2 passes by integer programme; no plan brings more than 2 (gap 0.00%)",
        "  one usd more would bring 0.75 passes",
        "  plan         large 0.5 usd for 0.9; small -0.7 for -0.4 usd",
        "  write        small 0.1 usd for 0.5; large +0.3 for +0.4 usd",
        "  review       small 0.1 usd for 0.6; large +0.1 for +0.4 usd",
    ]


def test_a_plan_survives_its_file(tmp_path):
    save_budget_plan(PLAN, tmp_path / "plan.json")
    assert load_budget_plan(tmp_path / "plan.json") == PLAN
    assert json.loads(PLAN.to_json())["weft"] == "budget plan"


@pytest.mark.parametrize("change", [{"version": 2}, {"lines": None}, {"budget": {"nano": 0.5}}])
def test_another_text_is_no_plan(change):
    with pytest.raises(FileError, match="budget plan of version 1"):
        BudgetPlan.from_json(json.dumps(json.loads(PLAN.to_json()) | change))


def test_a_plan_keeps_to_its_budget():
    line = Line(name="a", cost=usd(2), value=1.0)
    with pytest.raises(InputError, match="2 usd of 1 usd"):
        BudgetPlan(lines=(line,), budget=usd(1), value=1.0, bound=1.0, shadow_price=0.0)


def test_a_split_is_within_the_budget_to_the_billionth():
    curves = {
        name: SaturatingCurve(worth=worth, scale_usd=1 / 3)
        for name, worth in (("a", 1.0), ("b", 2.0), ("c", 1 / 7))
    }
    plan = plan_split(curves, usd("0.1"))
    assert plan.cost == plan.budget
    assert plan.gap < 1e-6


def test_a_hull_takes_no_solver_and_says_so():
    assert plan_menu(STEPS, usd(1), exact=False).policy == "hull"
