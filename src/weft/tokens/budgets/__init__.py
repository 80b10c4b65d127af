"""Budgets: caps in a tree, from which is reserved before anything is spent."""

from __future__ import annotations

from weft.tokens.budgets.budget import Budget
from weft.tokens.budgets.node import ROOT, Cap
from weft.tokens.budgets.records import Handle, Settled, Standing
from weft.tokens.budgets.refusal import BudgetError, HandleError, NodeError
from weft.tokens.budgets.window import Window, parse_window

__all__ = [
    "ROOT",
    "Budget",
    "BudgetError",
    "Cap",
    "Handle",
    "HandleError",
    "NodeError",
    "Settled",
    "Standing",
    "Window",
    "parse_window",
]
