import hashlib
import re
from pathlib import Path

import pytest

from weft.core.errors import FileError
from weft.tokens import NANO, Money, usd
from weft.tokens.budgets import BudgetError, Cap, NodeError
from weft.tokens.budgets.budgets_file import read_budgets

TEXT = f"""\
cap: 500 usd monthly
nodes:
  coder:
    cap: [50 usd daily, 2000 usd rolling 3600 s]
    nodes:
      "*": {{cap: $2}}
  reader:
    cap: 0.5
keys:
  sk-coder: coder
  sk-fix: coder/fix
  sha256:{hashlib.sha256(b"secret").hexdigest()}: reader
"""


@pytest.fixture
def write(tmp_path):
    def save(text):
        path = tmp_path / "budgets.yaml"
        path.write_text(text)
        return path

    return save


def test_a_file_says_caps_and_keys(write):
    found = read_budgets(write(TEXT))
    assert found.nodes == {
        "": (Cap.of(usd(500), "monthly"),),
        "coder": (Cap.of(usd(50), "daily"), Cap.of(usd(2000), 3600)),
        "coder/*": (Cap.of(usd(2)),),
        "reader": (Cap.of(usd("0.5")),),
    }
    assert [found.node_of(key) for key in ("sk-coder", "sk-fix", "secret", "other")] == [
        *("coder", "coder/fix", "reader", None)
    ]
    assert "sk-coder" not in repr(found)


def test_caps_of_other_units_are_read(write):
    found = read_budgets(write("cap: [2e6 tokens hourly, 100 calls]"))
    assert found.nodes[""] == (
        Cap.of(Money(2 * 10**6 * NANO, "tokens"), "hourly"),
        Cap(Money(100 * NANO, "calls")),
    )


def test_a_budget_is_opened_with_the_files_caps_and_follows_when_they_change(write, tmp_path):
    where = tmp_path / "team.db"
    with read_budgets(write(TEXT)).open(where) as budget:
        budget.settle(budget.reserve("coder/fix", usd(1)), usd(1))
    changed = TEXT.replace("$2", "$3").replace("cap: 0.5", "cap: 0.7")
    with read_budgets(write(changed)).open(where, durable=True) as budget:
        assert budget.standing("reader")[-1].cap == Cap(usd("0.7"))
        assert budget.standing("")[0].spent == usd(1)
        budget.verify()
    with read_budgets(write(TEXT.replace("500 usd monthly", "1 usd monthly"))).open(
        where
    ) as budget:
        with pytest.raises(BudgetError, match="the whole budget"):
            budget.reserve("reader", usd("0.1"))
    with pytest.raises(NodeError):
        read_budgets(write(TEXT.replace("500 usd monthly", "500 usd daily"))).open(where)


@pytest.mark.parametrize(
    ("text", "line", "wrong"),
    [
        ("cap: 5 usd\nnodes:\n  a: {cap: lots}", 3, "lots"),
        ("cap: 5 usd\nnodes:\n  a: {}", 3, "none"),
        ("cap: 5 usd\nnodes:\n  a: {cap: 1 usd, most: 2}", 3, "most"),
        ("cap: 5 usd\nnodes:\n  a b: {cap: 1 usd}", 3, "a b"),
        ("cap: 5 usd\nnodes:\n  a: {cap: 1 usd}\n  a: {cap: 2 usd}", 4, "'a' stands twice"),
        ("cap: 5 usd\nnodes:\n  '': {cap: 1 usd}", 3, "a name"),
        ("cap: 5 usd\nnodes:\n  a/b: {cap: 1 usd}", 3, "a/b"),
        ("cap: 5 usd\nnodes: &all\n  a: {cap: 1 usd, nodes: *all}", 0, "within themselves"),
        ("cap: 5 usd\nkeys:\n  sk: nobody", 3, "nobody"),
        ("cap: 5 usd\nkeys:\n  sha256:12: ''", 3, "sha256:12"),
        ("cap: [5 usd, 6 usd]", 1, "5 usd"),
        ("cap: -5 usd", 1, "-5 usd"),
        ("cap: 5 usd weekly", 1, "weekly"),
        ("- 5", 1, "colon"),
        ("cap: [5 usd", 1, "line"),
        ("", 0, "empty"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(write, text, line, wrong):
    path = write(text)
    with pytest.raises(FileError) as refused:
        read_budgets(path)
    said = str(refused.value)
    assert str(path) in said and wrong in said
    if line:
        assert re.search(rf"line {line}\b", said)


def test_the_example_of_the_docstring_is_read(write):
    import weft.tokens.budgets.budgets_file as module

    example = (module.__doc__ or "").split("::\n", 1)[1]
    example = example.replace("9f86d081884c7d65...", "9f" * 32)
    text = "\n".join(line[4:] for line in example.splitlines())
    assert set(read_budgets(write(text)).nodes) == {"", "coder", "coder/*", "reader"}


def test_the_example_of_the_guide_is_read(write):
    guide = Path(__file__).parents[4] / "docs" / "guides" / "budgets.md"
    block = re.search(r"```yaml\n(.*?)```", guide.read_text(), re.DOTALL)
    assert block is not None
    assert len(read_budgets(write(block[1])).nodes) > 2
