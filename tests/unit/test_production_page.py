"""The page on the production function, as somebody types it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import weft.tokens.allocate
import weft.tokens.micro

PAGE = (Path(__file__).parents[2] / "docs" / "explain" / "production_function.md").read_text()


def test_the_example_runs_and_says_what_the_page_says(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    scope: dict[str, object] = {}
    exec(code, scope)
    told = capsys.readouterr().out
    assert "associated  tokens -" in told
    assert "an observational fit: hard tasks take more tokens" in told
    assert "one more pass:" in told
    assert "an outcome of 0.6 costs" in told
    assert "0.06 of 0.06 usd" in told
    fit = scope["fit"]
    assert isinstance(fit, weft.tokens.micro.Production)
    assert 0.6 in fit.elasticities()["tokens"]


def test_names_in_the_text_exist() -> None:
    known = {*weft.tokens.micro.__all__, *weft.tokens.allocate.__all__}
    fields = {"experimental", "within", "observational", "log", "logit", "identity", "arm"}
    named = {n for n in re.findall(r"`([A-Za-z_]+)`", PAGE) if n not in fields}
    assert named - {"usd_per_outcome"} <= known
