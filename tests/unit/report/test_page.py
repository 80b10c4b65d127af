import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from weft.core.errors import FileError
from weft.core.records import Record
from weft.report.markup import tag
from weft.report.page import Figure, Page, Section, html_table, render, write_page
from weft.report.table import Table


class Reader(HTMLParser):
    """Text by element, and whether every element that opens also closes."""

    def __init__(self, text):
        super().__init__()
        self.open, self.unbalanced, self.text, self.attributes = [], [], {}, []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.attributes += attrs
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data):
        if self.open:
            self.text.setdefault(self.open[-1], []).append(data)


RECORD = Record(kind="step", fields={"loss": 1.5}, time_s=3.0)


def page(sentence="it works"):
    return Page(
        title="a title",
        kicker="a page",
        sentence=sentence,
        figures=(Figure(value="9 ms", meaning="a step"),),
        picture=Section(heading="the picture", body=tag("svg", tag("title", "p"))),
        sections=(Section(heading="more", text="words"),),
        sources=(("plan", "plan.json"),),
        records=(RECORD,),
    )


def test_every_element_that_opens_closes():
    reader = Reader(render(page()))
    assert reader.open == []
    assert reader.unbalanced == []


def test_the_sentence_comes_first_then_the_picture_then_the_rest():
    text = render(page())
    order = ["it works", "9 ms", "the picture", "more", "Where the numbers come from"]
    assert [text.index(word) for word in order] == sorted(text.index(word) for word in order)


def test_nothing_is_fetched_and_nothing_runs():
    text = render(page())
    reader = Reader(text)
    assert "<script" not in text
    assert not re.search(r"url\(|@import|https?://", text)
    assert not {"src", "href"} & {name for name, _ in reader.attributes}


def test_light_dark_and_print_are_all_styled():
    text = render(page())
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text


def test_every_colour_that_is_used_is_defined_for_light():
    text = render(page())
    light = text[text.index(":root") : text.index("@media")]
    assert set(re.findall(r"var\((--[a-z-]+)\)", text)) - {"--ink"} <= set(
        re.findall(r"(--[a-z-]+):", light)
    )


def test_a_hostile_name_stays_text():
    text = render(page("<img src=x onerror=alert(1)> & co"))
    assert "<img" not in text
    assert Reader(text).text["h1"] == ["<img src=x onerror=alert(1)> & co"]


def test_the_records_lie_in_the_page_as_json_lines():
    lines = "".join(Reader(render(page())).text["pre"]).splitlines()
    assert [json.loads(line) for line in lines] == [json.loads(RECORD.to_json())]


def test_one_record_is_not_counted():
    assert "The record behind this page" in render(page())
    both = replace(page(), records=(RECORD, RECORD))
    assert "The 2 records behind this page" in render(both)


def test_a_table_keeps_its_cells_and_marks_the_chosen_row():
    markup = html_table(Table(columns=("a", "b"), rows=(("x", "1"), ("y", "2"))), chosen=(1,))
    assert Reader(markup).text["td"] == ["x", "1", "y", "2"]
    assert markup.count('class="chosen"') == 1
    assert markup.index("chosen") > markup.index(">x<")


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(FileError, match="nowhere"):
        write_page(page(), tmp_path / "nowhere" / "page.html")


def test_a_number_and_its_unit_stay_on_one_line():
    sentence = "4 ms a step, 2.5 GiB at 96 % and 3 samples, off by 2e-06"
    text = render(page(sentence))
    assert "2e\u201106" in text
    assert "4\u00a0ms a step, 2.5\u00a0GiB at 96\u00a0% and 3 samples" in text
