"""The commands that build a cluster's network."""

import pytest

from weft.runtime.cluster import Cluster, ClusterRank
from weft.runtime.cluster.network import (
    BURST_BYTES,
    MTU_BYTES,
    SEGMENT_BYTES,
    Names,
    address,
    owner_of,
    setup_commands,
)

NAMES = Names(4711)


def lines(*ranks):
    cluster = Cluster(name="test", ranks=ranks)
    return [" ".join(command) for command in setup_commands(cluster, NAMES)]


def test_each_rank_has_a_namespace_with_one_link_to_the_switch():
    said = lines(*(ClusterRank(cores=0.5, bytes_per_s=1e8) for _ in range(3)))
    for rank in range(3):
        own = f"weft-4711-{rank}"
        assert f"ip netns add {own}" in said
        made = f"link add name rank{rank} type veth peer name eth0 netns {own}"
        assert said.index(f"ip -n weft-4711-switch {made}") > said.index(f"ip netns add {own}")
        assert f"ip -n {own} addr add {address(rank)}/24 dev eth0" in said
    assert len({address(rank) for rank in range(64)}) == 64


def test_nothing_is_made_in_the_namespace_of_the_host():
    for line in lines(ClusterRank(cores=0.5, bytes_per_s=1e8)):
        assert line.startswith(("ip netns add weft-4711-", "ip -n weft-4711-", "tc -n weft-4711-"))


def test_both_ends_of_a_link_let_pass_what_its_rank_may_send_and_receive():
    said = lines(ClusterRank(cores=0.5, bytes_per_s=2.5e7), ClusterRank(cores=0.5, bytes_per_s=1e8))
    shaped = {line.split(" root ")[0]: line for line in said if line.startswith("tc")}
    for rank, rate in enumerate(("200000000bit", "800000000bit")):
        for end in (f"{rank} qdisc add dev eth0", f"switch qdisc add dev rank{rank}"):
            assert f"tbf rate {rate} " in shaped[f"tc -n weft-4711-{end}"]


def test_latency_is_added_once_where_it_is_asked_for():
    said = lines(
        ClusterRank(cores=0.5, bytes_per_s=1e8, latency_s=0.0015),
        ClusterRank(cores=0.5, bytes_per_s=1e8),
    )
    (delayed,) = [line for line in said if "netem" in line]
    assert delayed.startswith(
        "tc -n weft-4711-0 qdisc add dev eth0 root handle 1: netem delay 1500us"
    )
    after = said[said.index(delayed) + 1]
    assert "dev eth0 parent 1:1 tbf" in after


def test_a_segment_with_its_headers_fits_what_passes_unslowed():
    # A packet that is larger than the bucket never passes.
    assert SEGMENT_BYTES + 100 < BURST_BYTES < 2 * SEGMENT_BYTES
    assert MTU_BYTES < SEGMENT_BYTES


@pytest.mark.parametrize("name", [NAMES.group, NAMES.switch, NAMES.rank(0), NAMES.rank(12)])
def test_a_name_says_whose_it_is(name):
    assert owner_of(name) == 4711


@pytest.mark.parametrize(
    "name", ["weft", "weft-", "weft-one", "weft-1-2-3", "xweft-1-2", "docker0"]
)
def test_what_others_have_named_is_nobodys(name):
    assert owner_of(name) is None
