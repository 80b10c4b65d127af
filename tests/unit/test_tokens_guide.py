"""What the guide on tokens shows is what happens."""

import doctest
import json
import re
from pathlib import Path

import pytest

from weft.cli.border import build_parser
from weft.tokens.adapters import FORMATS, read_call
from weft.tokens.prices import FileBook

GUIDE = (Path(__file__).parents[2] / "docs" / "guides" / "tokens.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)


def commands():
    text = "\n".join(blocks("console")).replace("\\\n", " ")
    return [line.split()[2:] for line in text.splitlines() if line.startswith("$ weft tokens")]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_commands_are_understood(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("ledger.db").write_text("anything")
    assert build_parser().parse_args(words).command == "tokens"


def test_the_first_block_of_python_prints_what_it_says():
    shown = next(block for block in blocks("pycon"))
    test = doctest.DocTestParser().get_doctest(shown, {}, "guide", None, 0)
    runner = doctest.DocTestRunner(optionflags=doctest.IGNORE_EXCEPTION_DETAIL, verbose=False)
    assert runner.run(test).failed == 0


def test_the_record_is_a_call():
    (shown,) = blocks("json")
    record = json.loads(shown)
    record["response"] |= {"usage": {"input_tokens": 3, "output_tokens": 2}}
    call = read_call("", record)
    assert (call.agent, call.task, call.passed) == ("coder", "t-17", True)


def test_the_file_of_prices_is_one(tmp_path):
    (shown,) = blocks("yaml")
    path = tmp_path / "prices.yaml"
    path.write_text(shown)
    assert FileBook(path).rate("openai", "gpt-5-mini", 1.8e9).thresholds == (272_000,)
    assert FileBook(path).rate("openai", "gpt-5", 1.8e9, tier="batch").is_known


def test_every_format_is_in_the_table():
    assert all(f"`{name}`" in GUIDE for name in FORMATS)
