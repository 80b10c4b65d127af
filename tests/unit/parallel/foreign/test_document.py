"""The form of files of foreign plans."""

from __future__ import annotations

import json

import pytest

from weft.core.errors import FileError, InputError
from weft.parallel.foreign.document import Target, foreign_from_json
from weft.parallel.placement import PARTIAL, REPLICATED, Mesh


def document(*entries: object, **fields: object) -> str:
    return json.dumps({"weft_placements": 1, "mesh": [4, 2], "entries": entries, **fields})


def test_all_that_can_be_said_is_read() -> None:
    found = foreign_from_json(
        document(
            {"input": "batch.*", "placements": ["S(0)", "R"]},
            {
                "module": "layers.*.up",
                "parameter": "weight",
                "placements": ["Shard(1)", "Shard(dim=0)"],
                "read": ["R", "S(0)"],
                "state": ["S1", "S0"],
                "keep": True,
            },
            {"module": "layers.*", "placements": ["Replicate()", "Partial(sum)"]},
            {"node": 7, "placements": ["P", "R"]},
            default=["R", "R"],
            recompute="full",
            pipeline={"stages": ["layers.2"], "micro_batches": 4, "schedule": "gpipe"},
        )
    )
    assert found.mesh == Mesh((4, 2))
    assert found.default == (REPLICATED, REPLICATED)
    assert found.recompute == "full"
    batch, weight, output, node = found.entries
    assert (batch.target, batch.pattern) == (Target.INPUT, "batch.*")
    assert (weight.target, weight.pattern) == (Target.PARAMETER, "layers.*.up.weight")
    assert (weight.placements, weight.read, weight.state) == ((1, 0), (REPLICATED, 0), (1, 0))
    assert weight.keep
    assert not batch.keep
    assert (output.target, output.placements) == (Target.OUTPUT, (REPLICATED, PARTIAL))
    assert (node.target, node.node, node.number) == (Target.NODE, 7, 4)
    assert found.pipeline is not None
    assert found.pipeline.starts == ("layers.2",)
    assert (found.pipeline.micro_batches, found.pipeline.chunks) == (4, 1)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weft_placements": 2}', "null"])
def test_other_files_are_refused(text: str) -> None:
    with pytest.raises(FileError):
        foreign_from_json(text)


@pytest.mark.parametrize(
    ("entry", "named"),
    [
        (3, "entry 1"),
        ({"placements": ["R", "R"]}, "entry 1"),
        ({"module": "a", "node": 3, "placements": ["R", "R"]}, "entry 1"),
        ({"module": "a"}, "entry 1"),
        ({"module": 3, "placements": ["R", "R"]}, "entry 1"),
        ({"node": -1, "placements": ["R", "R"]}, "entry 1"),
        ({"input": "x", "placements": ["R"]}, "2 mesh axes"),
        ({"input": "x", "placements": ["R", "T(1)"]}, "entry 1"),
        ({"input": "x", "placements": ["R", "P"]}, "entry 1"),
        ({"input": "x", "placements": ["R", "R"], "read": ["R", "R"]}, "no keys but"),
        (
            {"module": "a", "parameter": "w", "placements": ["S(0)", "R"], "read": ["S(1)", "R"]},
            "a.w",
        ),
        ({"module": "a", "parameter": "w", "placements": ["R", "R"], "keep": 1}, "keep"),
    ],
)
def test_a_malformed_entry_is_named(entry: object, named: str) -> None:
    with pytest.raises(InputError, match=named):
        foreign_from_json(document(entry))


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"mesh": []}, "mesh"),
        ({"mesh": [0]}, "mesh"),
        ({"mesh": 8}, "mesh"),
        ({"default": ["P", "R"]}, "default"),
        ({"recompute": "some"}, "recompute"),
        ({"entries": {}}, "entries"),
        ({"axes": 1}, "axes"),
        ({"pipeline": {"stages": [], "micro_batches": 2}}, "stages"),
        ({"pipeline": {"stages": ["a"]}}, "micro_batches"),
        ({"pipeline": {"stages": ["a"], "micro_batches": 2, "pp": 2}}, "pp"),
        ({"pipeline": 3}, "pipeline"),
    ],
)
def test_other_fields_are_checked_too(fields: dict[str, object], named: str) -> None:
    with pytest.raises(InputError, match=named):
        foreign_from_json(document(**fields))
