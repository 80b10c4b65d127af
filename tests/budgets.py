"""Budgets on every back end, for tests: a real Redis where there is one."""

from __future__ import annotations

from contextlib import contextmanager

import pytest

from benchmarks.tokens.own_redis import redis_server, without_redis
from weft.tokens.budgets import Budget

BACK_ENDS = ("memory", "sqlite", "redis")


class Clock:
    """Tells the time it was given."""

    def __init__(self, now=1_000_000.0):
        self.now = now

    def __call__(self):
        return self.now


@contextmanager
def redis_or_skip(folder):
    """Address of a server of its own, or a skip that says what is missing."""
    if missing := without_redis():
        pytest.skip(missing)
    with redis_server(folder) as address:
        yield address


class Places:
    """Where budgets of a back end are kept: a new one each time, or by name."""

    def __init__(self, kind, folder, address=""):
        self.kind, self.folder, self.address = kind, folder, address

    def where(self, name):
        if self.kind == "memory":
            return ":memory:"
        if self.kind == "sqlite":
            return str(self.folder / f"{name}.db")
        return f"{self.address}?name={name}"

    def open(self, name, **options):
        return Budget.open(self.where(name), **options)
