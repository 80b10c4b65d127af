"""A name that stands twice is refused with both of its places; everything else is as PyYAML's."""

import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from weft.core.yaml import OnceLoader, load_once

TEXT = st.text(st.characters(exclude_characters="\x85\u2028\u2029", exclude_categories=["Cs"]))
"""Without the rarer ends of lines, which PyYAML does not write as it reads them."""
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


def refusal(text):
    with pytest.raises(yaml.YAMLError) as caught:
        load_once(text)
    return " ".join(str(caught.value).split())


@given(PLAIN, st.sampled_from([True, False, None]))
def test_a_text_without_doubles_reads_as_it_was_written(plain, flow):
    text = yaml.safe_dump(plain, allow_unicode=True, default_flow_style=flow)
    assert load_once(text) == yaml.safe_load(text) == plain


@pytest.mark.parametrize(
    ("text", "name", "lines"),
    [
        ("a: 1\nb: 2\na: 3", "a", (1, 3)),
        ("x:\n- {b: 1}\n- b: 2\n  c: 3\n  b: 4", "b", (3, 5)),
        ("{a: 1,\n'a': 2}", "a", (1, 2)),
        ("1: a\n'1': b", "1", (1, 2)),
        ("'': 1\n? \n: 2", "", (1, 2)),
        ("? [{a: 1,\na: 2}]\n: 3", "a", (1, 2)),
        ("a: !!set {b, c,\nb}", "b", (1, 2)),
        ("a: &a {x: 1}\nb:\n  <<: *a\n  <<: *a", "<<", (3, 4)),
        ("&k a: 1\nb: 2\n*k : 3", "a", (1, 1)),  # the second is the first itself
    ],
)
def test_a_name_that_is_spelt_twice_is_refused_with_both_lines(text, name, lines):
    said = refusal(text)
    assert said.startswith(f"{name!r} stands twice")
    found = [int(line) for line in re.findall(r"line (\d+)", said)]
    assert (found[0], found[-1]) == lines


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1000", "1_000"),
        ("10", "0xA"),
        ("1", "1.0"),
        ("yes", "on"),
        ("~", "null"),
        (".nan", ".NaN"),
    ],
)
def test_names_that_read_alike_are_one(one, other):
    text = f"{one}: a\n{other}: b"
    assert len(yaml.safe_load(text)) == 1  # so PyYAML loses one of them
    said = refusal(text)
    assert said.startswith(f"{one!r} stands twice") and f"and again as {other!r}" in said
    assert "line 1" in said and "line 2" in said


@pytest.mark.parametrize(
    "text",
    [
        "a: {b: 1}\nc: {b: 2}",
        "a: b\nb: a",
        "A: 1\na: 2",
        "1: a\n2: b\n1.5: c",
        "01: a\n'08': b\n'8': c",
    ],
)
def test_names_that_differ_stand_beside_each_other(text):
    assert repr(load_once(text)) == repr(yaml.safe_load(text))


@pytest.mark.parametrize(
    "text",
    [
        "a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}",
        "a: &a {x: 1}\nb: &b {y: 2, x: 4}\nc: {<<: [*a, *b], y: 3}",
        # PyYAML merges c before it reads the mapping in the list, which lies deeper.
        "a: &a {x: 1}\nd: [{e: &b {<<: *a, x: 2}}]\nc: {<<: *b}",
    ],
)
def test_what_is_taken_over_may_be_said_anew(text):
    assert load_once(text) == yaml.safe_load(text)


def test_nodes_have_names_that_are_spelt_once():
    assert OnceLoader("1000: a\n1_000: b").get_single_node() is not None
    with pytest.raises(yaml.YAMLError, match="'a' stands twice"):
        OnceLoader("a: 1\na: 2").get_single_node()


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("a: [", "line 1"),
        ("[" * 1000, "nested too deeply"),
        ("a: 2026-13-45", "month"),
        ("a: !!int ''", "IndexError"),
        ("a: !!bool maybe", "maybe"),
        ("a: !!timestamp soon", "AttributeError"),
        ("a: " + "9" * 5000, "digits"),
        ("[a]: 1", "unhashable"),
        ("a: !!python/object:os.system {}", "python/object"),
    ],
)
def test_whatever_cannot_be_read_is_an_error_of_yaml(text, word):
    assert word in refusal(text)


def test_another_kind_of_loader_keeps_its_words():
    class Words(OnceLoader):
        yaml_implicit_resolvers = {}

    assert load_once("1: 2", Words) == {"1": "2"}
    assert load_once("1000: a\n1_000: b", Words) == {"1000": "a", "1_000": "b"}
    with pytest.raises(yaml.YAMLError, match="stands twice"):
        load_once("1: 2\n1: 3", Words)
