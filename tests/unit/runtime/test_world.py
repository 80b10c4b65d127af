"""A world of one rank, and what torchrun's variables must hold."""

import pytest
import torch
import torch.distributed as dist

from weft.core.errors import InputError, MismatchError, RunError
from weft.parallel.placement import Mesh
from weft.runtime.world import (
    alone,
    barrier,
    device_mesh,
    gather_objects,
    join,
    joined,
    largest,
    place_in,
    require_agreement,
)


def test_without_torchrun_a_process_is_alone():
    world = join({}, device="cpu")
    assert world == alone("cpu")
    assert world.is_alone
    assert world.is_first


def test_alone_every_exchange_returns_at_once_what_was_given():
    with joined({}, device="cpu") as world:
        barrier(world, "nowhere")
        require_agreement(world, "plan", "abc")
        assert gather_objects(world, {"a": 1}) == [{"a": 1}]
        assert largest(world, 7) == 7


def test_alone_there_is_no_device_mesh_and_no_group():
    mesh = Mesh((1, 1))
    assert device_mesh(alone(), mesh) is None
    place = place_in(alone(), mesh, None)
    assert (place.coordinate, place.groups, place.device) == ((0, 0), ("", ""), torch.device("cpu"))


def test_a_mesh_of_another_size_is_refused_with_the_command_that_would_do():
    with pytest.raises(MismatchError, match="--nproc-per-node 4"):
        device_mesh(alone(), Mesh((2, 2)))


def test_ranks_that_do_not_come_are_named():
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    environment = {
        "RANK": "1",
        "WORLD_SIZE": "4",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }
    with pytest.raises(RunError, match="no sign of rank 0, 2, 3"):
        join(environment, meeting_s=0.5, device="cpu")


def test_incomplete_variables_are_named():
    with pytest.raises(InputError, match="MASTER_ADDR"):
        join({"RANK": "0", "WORLD_SIZE": "2"}, device="cpu")
    with pytest.raises(InputError, match="ValueError"):
        join({"RANK": "zero", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"})
