"""The quick start, block by block, as a newcomer would type it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROBE = "weft machine probe -o host.yaml"


def blocks(page, kind):
    return [text for language, text in BLOCK.findall(page.read_text()) if language == kind]


def commands(page):
    lines = [line for text in blocks(page, "console") for line in text.splitlines()]
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]


def run(command, folder):
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    python_path = os.pathsep.join([str(ROOT / "src"), str(folder)])
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"PATH": path, "PYTHONPATH": python_path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.dist
def test_every_command_and_program_of_the_quick_start_works(tmp_path):
    page = ROOT / "docs" / "quickstart.md"
    recipe, script = blocks(page, "python")
    (tmp_path / "digits.py").write_text(recipe)
    typed = commands(page)
    assert typed[0] == PROBE
    # Measuring takes longer than all the rest, and has tests of its own: the machine file that
    # the reference page shows, slowed down to a pair of CPU ranks, stands in for the result.
    (machine,) = blocks(ROOT / "docs" / "reference" / "machine_file.md", "yaml")
    slow = {"1.0e+14": "5.0e+10", "1.0e+13": "5.0e+9", "2.0e+12": "1.0e+10", "1.0e+11": "2.0e+9"}
    for fast, as_here in slow.items():
        machine = machine.replace(fast, as_here)
    (tmp_path / "host.yaml").write_text(machine)
    for command in typed[1:]:
        run(["bash", "-c", command], tmp_path)
    assert "<svg" in (tmp_path / "plan.html").read_text()
    assert len((tmp_path / "run.jsonl").read_text().splitlines()) >= 20
    assert "digits" in run([sys.executable, "-c", script], tmp_path)


def test_the_errors_page_shows_what_the_command_prints(capsys):
    from weft.cli.main import main

    (shown,) = blocks(ROOT / "docs" / "errors.md", "console")
    command, _, output = shown.removeprefix("$ weft ").partition("\n")
    assert main(command.split()) == 2
    assert capsys.readouterr().err == output


def test_the_machine_file_of_the_reference_page_is_read_and_written_back_the_same(tmp_path):
    from weft.machine import load_machine, save_machine

    (machine,) = blocks(ROOT / "docs" / "reference" / "machine_file.md", "yaml")
    (tmp_path / "pair.yaml").write_text(machine)
    pair = load_machine(tmp_path / "pair.yaml")
    assert (pair.num_devices, pair.overlap.value) == (2, 1.0)
    save_machine(pair, tmp_path / "again.yaml")
    assert load_machine(tmp_path / "again.yaml") == pair


def test_every_python_block_of_every_page_compiles():
    pages = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md"]
    # Decisions sketch signatures, which are no programs.
    found = [(p, b) for p in pages if p.parent.name != "decisions" for b in blocks(p, "python")]
    assert len(found) >= 4
    for page, text in found:
        compile(text, str(page), "exec")
