import io
import json

from weft.cli.console import Console
from weft.report.table import Table, format_table

TABLE = Table(columns=("plan", "step"), rows=(("[bold]ddp", "12 ms"),))


class Terminal(io.StringIO):
    def isatty(self):
        return True


def said(out, **options):
    console = Console(out=out, err=io.StringIO(), **options)
    console.line("a line")
    console.table(TABLE)
    with console.progress() as progress:
        progress("work", 0.5)
        progress("work", 1.0)
    console.result({"x": 1})
    return out.getvalue()


def test_into_a_pipe_goes_plain_text_without_progress():
    assert said(io.StringIO()) == "a line\n" + format_table(TABLE) + "\n"


def test_as_json_only_the_result_is_printed():
    assert json.loads(said(io.StringIO(), as_json=True)) == {"x": 1}


def test_quiet_prints_nothing_at_all():
    assert said(io.StringIO(), quiet=True) == ""
    assert said(io.StringIO(), quiet=True, as_json=True) == ""


def test_a_terminal_shows_progress_and_cells_as_they_are():
    text = said(Terminal())
    assert "work" in text
    assert "[bold]ddp" in text
