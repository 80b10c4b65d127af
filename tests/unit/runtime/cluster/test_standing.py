"""What a cluster tells its ranks, and what it says where it cannot be built."""

import os
import sys
from pathlib import Path

import pytest

from weft.core.errors import InputError
from weft.runtime.cluster import Built, Cluster, ClusterRank, built, refusal
from weft.runtime.cluster.network import Names
from weft.runtime.world import _read_environment

PAIR = Cluster(name="pair", ranks=tuple(ClusterRank(cores=c, bytes_per_s=1e8) for c in (0.5, 0.25)))
STANDS = Built(
    cluster=PAIR, names=Names(4711), doors=(Path("/group/0/procs"), Path("/group/1/procs"))
)


def test_a_rank_finds_the_variables_that_torchrun_sets():
    found = _read_environment(STANDS.variables(1))
    assert (found.rank, found.size, found.hosted) == (1, 2, False)
    assert (found.host, found.port) == ("10.77.0.1", 29500)
    assert STANDS.variables(0)["GLOO_SOCKET_IFNAME"] == "eth0"
    assert STANDS.variables(1, 3)["OMP_NUM_THREADS"] == "3"


def test_every_rank_is_the_only_one_of_its_host():
    for rank in range(2):
        given = STANDS.variables(rank)
        assert (given["LOCAL_RANK"], given["LOCAL_WORLD_SIZE"]) == ("0", "1")


def test_a_command_enters_its_group_and_its_network_and_knows_its_starter():
    command = STANDS.command(1, ["true", "-x"])
    assert command[0] == sys.executable
    assert command[-5:] == [
        *("/group/1/procs", "/run/netns/weft-4711-1", f"{os.getpid()}"),
        *("true", "-x"),
    ]


def test_shares_beyond_the_cores_that_there_are_are_refused(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0})
    monkeypatch.setattr("shutil.which", lambda tool: f"/sbin/{tool}")
    wide = Cluster(name="wide", ranks=PAIR.ranks * 2)
    with pytest.raises(InputError, match=r"1\.5 cores"), built(wide):
        pass


def test_missing_tools_are_named(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda tool: None if tool == "tc" else f"/sbin/{tool}")
    said = refusal(PAIR)
    assert said is not None
    assert "iproute2" in said
    assert "without tc" in said


def test_a_command_that_the_kernel_refuses_is_named_with_its_words(monkeypatch, tmp_path):
    tool = tmp_path / "ip"
    tool.write_text("#!/bin/sh\necho 'RTNETLINK answers: Operation not permitted' >&2\nexit 2\n")
    tool.chmod(0o755)
    (tmp_path / "tc").symlink_to(tool)
    monkeypatch.setenv("PATH", f"{tmp_path}")
    monkeypatch.setattr("weft.runtime.cluster.standing.NAMESPACES", tmp_path / "netns")
    said = refusal(PAIR)
    assert said is not None
    assert f"`ip netns add weft-{os.getpid()}-switch`" in said
    assert "Operation not permitted" in said
