import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.core.errors import InputError
from weft.tokens.classes import INPUT, OUTPUT, TokenClass
from weft.tokens.count import NONE, UNKNOWN, Count, exactly
from weft.tokens.usage import Usage

LEAVES = st.dictionaries(st.sampled_from(list(TokenClass)), st.integers(0, 10**9))


@given(LEAVES)
def test_sums_are_sums_of_leaves(leaves):
    used = Usage(counts={leaf: exactly(count) for leaf, count in leaves.items()})
    assert used.input == exactly(sum(n for leaf, n in leaves.items() if leaf in INPUT))
    assert used.output == exactly(sum(n for leaf, n in leaves.items() if leaf in OUTPUT))
    assert used.total() == used.input + used.output
    assert used.is_exact


@given(LEAVES, LEAVES)
def test_usages_add_up_leaf_by_leaf(one, other):
    first, second = (
        Usage(counts={leaf: exactly(count) for leaf, count in leaves.items()})
        for leaves in (one, other)
    )
    both = first + second
    assert all(both[leaf] == first[leaf] + second[leaf] for leaf in TokenClass)
    assert both.input == first.input + second.input


def test_a_class_without_tokens_is_not_kept():
    assert dict(Usage.of(fresh=0, text=3).counts) == {TokenClass.TEXT: exactly(3)}
    assert Usage.of(fresh=0) == Usage()
    assert Usage()[TokenClass.FRESH] == NONE


def test_a_sum_may_be_known_where_its_classes_are_not():
    split = Count(0, 100)
    used = Usage.of(fresh=split, cache_read=split, input=100)
    assert used.input == exactly(100)
    assert used.total() == Count(0, 200)
    assert (used + used).input == exactly(200)
    assert not used.is_exact


def test_a_sum_is_never_known_less_well_than_its_classes():
    assert Usage.of(fresh=3, text=2, input=UNKNOWN).input == exactly(3)
    assert Usage.of(fresh=Count(3, None), input=Count(0, 10)).input == Count(3, 10)


def test_a_sum_that_its_classes_cannot_add_up_to_is_an_error():
    with pytest.raises(InputError, match="agrees with 3"):
        Usage.of(fresh=3, input=4)


def test_an_unknown_name_is_no_class():
    with pytest.raises(ValueError, match="freshh"):
        Usage.of(freshh=1)


def test_nobody_changes_a_usage_through_the_mapping_that_it_was_made_of():
    counts = {TokenClass.TEXT: exactly(1)}
    used = Usage(counts=counts)
    counts[TokenClass.TEXT] = exactly(2)
    assert used.output == exactly(1)
    with pytest.raises(TypeError):
        used.counts[TokenClass.TEXT] = exactly(3)
