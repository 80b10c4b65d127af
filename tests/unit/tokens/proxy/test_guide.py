"""What the guide on the proxy shows is understood."""

import re
from pathlib import Path

import pytest

from weft.cli.border import build_parser
from weft.cli.main import main

GUIDE = (Path(__file__).parents[4] / "docs" / "guides" / "proxy.md").read_text()
BLOCKS = "\n".join(re.findall(r"```console\n(.*?)```", GUIDE, re.DOTALL))
COMMANDS = [line.split()[2:] for line in BLOCKS.splitlines() if line.startswith("$ weft tokens")]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_commands_are_understood(words):
    assert build_parser().parse_args(words).act


def test_every_option_that_the_guide_names_is_there():
    text = build_parser().parse_args(["tokens", "serve"])
    known = {f"--{name.replace('_', '-')}" for name in vars(text)}
    named = set(re.findall(r"`(--[a-z-]+)", GUIDE))
    assert named - {"--rivals"} <= known | {"--store"}


def run(capsys, *words):
    try:
        code = main(["tokens", "serve", *words])
    except SystemExit as error:
        code = error.code
    return code, "".join(capsys.readouterr())


def test_a_key_is_made_and_what_is_missing_is_said(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, text = run(capsys, "--keys", "keys.yaml", "--new-key", "coder")
    assert text.startswith("sk-weft-") and "sha256:" in Path("keys.yaml").read_text()
    for words, says in (
        (["--new-key", "coder"], "--keys"),
        ([], "--upstream"),
        (["--upstream", "http://x"], "--budgets"),
    ):
        code, text = run(capsys, *words)
        assert code and says in text
    Path("b.yaml").write_text("cap: 1 usd")
    code, text = run(capsys, "--upstream", "http://x", "--budgets", "b.yaml", "--host", "0.0.0.0")
    assert code and "keys, where other machines may ask" in text
    Path("b.yaml").write_text("cap: 1 eur")
    code, text = run(capsys, "--upstream", "http://x", "--budgets", "b.yaml")
    assert code and "usd, tokens or calls" in text
