from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from weft.report.markup import Markup, join, tag

TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FFF))


@given(TEXT, TEXT)
def test_any_text_comes_back_as_it_was_from_children_and_attributes(child, attribute):
    element = ElementTree.fromstring(tag("p", child, title=attribute))
    assert (element.text or "") == child
    assert element.get("title") == attribute


def test_markup_stands_as_it_is_and_none_is_left_out():
    assert tag("p", tag("b", "x"), None, title=None) == "<p><b>x</b></p>"


def test_elements_without_content_are_not_closed():
    assert tag("meta", charset="utf-8") == '<meta charset="utf-8">'


def test_keywords_of_python_and_dashes_can_be_written():
    assert tag("text", class_="a", text_anchor="end") == '<text class="a" text-anchor="end"></text>'


def test_numbers_are_short():
    assert join(1.0, " ", 0.125, " ", 10.0) == "1 0.12 10"
    assert isinstance(join("a"), Markup)
