"""Shares of a core: where groups are made, and what is written into them."""

from pathlib import Path

import pytest

from weft.core.errors import InputError
from weft.runtime.cluster.quota import Hierarchy, end_group, hierarchy, limit_texts, make_group

FIRST = "cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0\n"
SECOND = "cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0\n"
OTHER = "cgroup /sys/fs/cgroup/cpuset cgroup rw,relatime,cpuset 0 0\nproc /proc proc rw 0 0\n"


def test_the_first_version_is_taken_where_it_has_the_controller():
    found = hierarchy(SECOND + OTHER + FIRST, "1:cpu,cpuacct:/\n0::/\n")
    assert found == Hierarchy(version=1, folder=Path("/sys/fs/cgroup/cpu,cpuacct"))


def test_the_second_version_is_taken_otherwise():
    found = hierarchy(OTHER + SECOND, "3:cpuset:/\n0::/\n")
    assert found == Hierarchy(version=2, folder=Path("/sys/fs/cgroup/unified"))
    assert hierarchy(OTHER, "3:cpuset:/\n") is None


def test_groups_are_made_within_the_own_one(tmp_path):
    (tmp_path / "job" / "7").mkdir(parents=True)
    mounts = f"cgroup {tmp_path} cgroup rw,cpu 0 0\n"
    expected = Hierarchy(version=1, folder=tmp_path / "job" / "7")
    assert hierarchy(mounts, "2:cpu:/job/7\n") == expected
    # In a container the own group may lie above what is mounted.
    assert hierarchy(mounts, "2:cpu:/elsewhere\n") == Hierarchy(version=1, folder=tmp_path)


@pytest.mark.parametrize("cores", [0.01, 0.05, 0.1, 0.15, 0.3, 0.625, 1.0])
def test_a_quota_is_the_share_of_its_period_in_both_versions(cores):
    quota, period = map(int, limit_texts(2, cores)["cpu.max"].split())
    assert quota / period == pytest.approx(cores, rel=1e-3)
    assert quota >= 1000
    assert 1000 <= period <= 1_000_000
    first = limit_texts(1, cores)
    # The period first: a quota above the old period would be no limit.
    assert list(first.items()) == [
        ("cpu.cfs_period_us", f"{period}"),
        ("cpu.cfs_quota_us", f"{quota}"),
    ]


def test_each_rank_gets_a_group_of_its_own_with_its_quota(tmp_path):
    doors = make_group(Hierarchy(version=1, folder=tmp_path), "weft-1", (0.5, 0.2))
    assert doors == tuple(tmp_path / "weft-1" / f"{rank}" / "cgroup.procs" for rank in (0, 1))
    quotas = [(door.parent / "cpu.cfs_quota_us").read_text() for door in doors]
    assert quotas == ["5000", "2000"]
    # What is theirs they get before other processes, whose weight is 1,024.
    assert int((tmp_path / "weft-1" / "cpu.shares").read_text()) > 100 * 1024


def test_the_second_version_hands_the_controller_down(tmp_path):
    make_group(Hierarchy(version=2, folder=tmp_path), "weft-1", (0.5,))
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+cpu"
    assert (tmp_path / "weft-1" / "cgroup.subtree_control").read_text() == "+cpu"
    assert (tmp_path / "weft-1" / "0" / "cpu.max").read_text() == "5000 10000"


def test_a_host_that_does_not_permit_it_is_told_what_was_refused(tmp_path):
    (tmp_path / "weft-1").mkdir()
    with pytest.raises(InputError, match=r"control groups with a CPU quota") as caught:
        make_group(Hierarchy(version=1, folder=tmp_path), "weft-1", (0.5,))
    assert str(tmp_path / "weft-1") in caught.value.got


def test_a_group_that_is_gone_needs_no_ending(tmp_path):
    end_group(tmp_path / "weft-1")
