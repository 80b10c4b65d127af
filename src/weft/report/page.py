"""One HTML file: a sentence that says the result, one picture that shows it, then tables.

Nothing is fetched and no script runs, so a page can be mailed, printed and kept. The records
that its numbers come from are named at its end and lie in it as JSON.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from weft.core.files import write_whole
from weft.core.records import Record
from weft.report.markup import Markup, join, tag
from weft.report.table import Table, numeric_columns

__all__ = ["Figure", "Page", "Section", "html_table", "render", "write_page"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One number that matters: the number and a few words below it."""

    value: str
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A heading, a sentence or two, and what they are about."""

    heading: str
    text: str = ""
    body: Markup = Markup("")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What a page says.

    Attributes:
        title: of the window.
        kicker: a few words above the sentence: what sort of page this is.
        sentence: the result.
        figures: the numbers that matter most.
        picture: what shows the result.
        sections: the rest, in order.
        sources: where the numbers come from, as (what, where).
        records: the records that hold them.
    """

    title: str
    kicker: str
    sentence: str
    figures: tuple[Figure, ...] = ()
    picture: Section
    sections: tuple[Section, ...] = ()
    sources: tuple[tuple[str, str], ...] = ()
    records: tuple[Record, ...] = ()


def html_table(table: Table, *, chosen: Sequence[int] = ()) -> Markup:
    """A table; the rows numbered in `chosen` stand out."""
    right = numeric_columns(table)
    styles = ["number" if is_right else None for is_right in right]
    head = tag("tr", *(tag("th", c, class_=s) for c, s in zip(table.columns, styles, strict=True)))
    rows = (
        tag(
            "tr",
            *(tag("td", cell, class_=s) for cell, s in zip(row, styles, strict=True)),
            class_="chosen" if number in chosen else None,
        )
        for number, row in enumerate(table.rows)
    )
    caption = tag("caption", table.caption) if table.caption else None
    body = tag("table", caption, tag("thead", head), tag("tbody", *rows))
    return tag("div", body, class_="scroll")


def render(page: Page) -> str:
    """The page as HTML."""
    style = resources.files("weft.report").joinpath("style.css").read_text()
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", page.title),
        tag("style", Markup(style)),
    )
    figures = (tag("li", tag("b", f.value), tag("span", f.meaning)) for f in page.figures)
    body = tag(
        "main",
        tag("p", page.kicker, class_="kicker"),
        tag("h1", _unbroken(page.sentence)),
        tag("ul", *figures, class_="figures") if page.figures else None,
        *(_section(section) for section in (page.picture, *page.sections)),
        _sources(page),
    )
    return "<!doctype html>\n" + tag("html", head, tag("body", body), lang="en") + "\n"


def _unbroken(text: str) -> str:
    """The text with its numbers, their exponents and their units held together in a line."""
    text = re.sub(r"(?<=\d)e-(?=\d)", "e\u2011", text)
    return re.sub(r"(?<=\d) (?=(?:[num]?s|[KMGTP]?i?B|%)(?!\w))", "\u00a0", text)


def _section(section: Section) -> Markup:
    text = tag("p", _unbroken(section.text)) if section.text else None
    return tag("section", tag("h2", section.heading), text, section.body)


def _sources(page: Page) -> Markup:
    if not page.sources and not page.records:
        return Markup("")
    rows = tuple(page.sources)
    table = html_table(Table(columns=("what", "where"), rows=rows)) if rows else None
    lines = "\n".join(record.to_json() for record in page.records)
    held = (
        tag(
            "details",
            tag("summary", _count(page.records)),
            tag("pre", lines),
        )
        if page.records
        else None
    )
    return tag("section", tag("h2", "Where the numbers come from"), join(table, held))


def _count(records: Sequence[Record]) -> str:
    if len(records) == 1:
        return "The record behind this page"
    return f"The {len(records)} records behind this page, one line each"


def write_page(page: Page, path: Path) -> None:
    """Render into a file.

    Raises:
        FileError: the file cannot be written.
    """
    write_whole(path, render(page), "a page")
