"""Where the next dollar does most: budgets split over agents, menus and time."""

from weft.tokens.allocate.curve import (
    Curve,
    OddsCurve,
    PowerCurve,
    SaturatingCurve,
    StepCurve,
)
from weft.tokens.allocate.menu import (
    Choice,
    Option,
    Step,
    dynamic_choice,
    exact_choice,
    hull_choice,
)
from weft.tokens.allocate.pacing import Pace, pace_start, pace_update, spend_more, which_option
from weft.tokens.allocate.plan import BudgetPlan, Line, load_budget_plan, save_budget_plan
from weft.tokens.allocate.planner import plan_menu, plan_split
from weft.tokens.allocate.routing import Router, fit_router
from weft.tokens.allocate.split import Split, split_budget

__all__ = [
    "BudgetPlan",
    "Choice",
    "Curve",
    "Line",
    "OddsCurve",
    "Option",
    "Pace",
    "PowerCurve",
    "Router",
    "SaturatingCurve",
    "Split",
    "Step",
    "StepCurve",
    "dynamic_choice",
    "exact_choice",
    "fit_router",
    "hull_choice",
    "load_budget_plan",
    "pace_start",
    "pace_update",
    "plan_menu",
    "plan_split",
    "save_budget_plan",
    "spend_more",
    "split_budget",
    "which_option",
]
