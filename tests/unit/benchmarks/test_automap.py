"""What `weft bench automap` says of what it found."""

from __future__ import annotations

import pytest

from benchmarks.automap import run as automap
from benchmarks.automap.models import RECIPES, TARGETS, of_layers
from benchmarks.job import workload_of
from tests.programs import transformer
from weft.parallel.linkage import ReducedAxis
from weft.parallel.partition import Partition, most_cuts
from weft.parallel.placement import REPLICATED
from weft.program.fold import fold
from weft.program.graph import Role, Value


def found(**changed):
    given = {"model": "T5-3B", "by": "dqn", "cuts": (435, 432), "seconds": 9.0, "episodes": 75}
    return automap.Found(**{**given, **changed})


@pytest.mark.parametrize(
    ("changed", "held"),
    [
        ({}, (True, True)),
        ({"cuts": (440, 431)}, (False, True)),
        ({"by": "exact", "seconds": 11.0}, (True, False)),
        ({"model": "T5-base", "cuts": (111, 108)}, (True, True)),
        ({"model": "T5-base", "cuts": (110, 108)}, (False, True)),
    ],
)
def test_targets_and_times_are_claims(changed, held):
    assert tuple(claim.ok for claim in automap._claims(found(**changed))) == held


def test_an_agent_and_the_exact_search_cut_as_many_variables():
    program = transformer(num_layers=4)
    batch = {Value(i.node): REPLICATED for i in program.inputs if i.role is Role.BATCH}
    partition = Partition(ReducedAxis(program, 2), fold(program), batch)
    learnt, episodes = automap._learnt(partition)
    assert learnt.conflicts == 0
    assert learnt.cuts == partition.settled(most_cuts(partition)).cuts
    assert 0 < episodes < automap.MOST_EPISODES


def test_the_models_are_those_of_the_paper():
    assert RECIPES.keys() == TARGETS.keys() == automap.PUBLISHED_H.keys()
    for recipe in RECIPES.values():
        assert workload_of(recipe).name == recipe.partition(":")[2]


def test_variables_of_layers_are_told_by_their_names():
    program = transformer(num_layers=4)
    names = {i.node: i.name for i in program.inputs}
    assert not of_layers(program)  # these layers have no module around them
    assert all(".layers." not in names[i.node] for i in program.inputs)


def test_regret_is_that_of_the_policy_against_every_way():
    (one,) = automap._cut(2, 1)
    assert 0 <= one.beside <= one.alone + 1e-9
    assert one.seconds > 0
