import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.core.digest import canonical_json, digest
from weft.core.errors import InputError

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def test_a_known_value_keeps_its_digest_for_ever():
    # SHA-256 of '{"a":[1,2.5,null,"é"]}' in canonical form. Saved plans depend on it.
    assert canonical_json({"a": [1, 2.5, None, "é"]}) == '{"a":[1,2.5,null,"\\u00e9"]}'
    assert digest({"a": [1, 2.5, None, "é"]}) == "2a30e3d7f3e10ee1"


@given(PLAIN, PLAIN)
def test_digests_agree_exactly_when_canonical_json_agrees(a, b):
    assert (digest(a) == digest(b)) == (canonical_json(a) == canonical_json(b))


@given(st.dictionaries(st.text(), st.integers(), min_size=2))
def test_the_order_of_keys_does_not_matter(table):
    assert digest(table) == digest(dict(reversed(table.items())))


def test_the_order_of_a_list_matters():
    assert digest([1, 2]) != digest([2, 1])


def test_the_digest_does_not_depend_on_the_process():
    # Sets and hashes of strings differ from process to process; a digest must not.
    code = "from weft.core.digest import digest; print(digest({'b': 1, 'a': ['x', 'y']}))"
    runs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert runs == {digest({"b": 1, "a": ["x", "y"]})}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, object(), {(1, 2): 3}])
def test_what_is_not_plain_json_is_refused(value):
    with pytest.raises(InputError, match="need  plain JSON"):
        digest([value])
