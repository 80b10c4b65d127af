"""A cluster on this host, where it permits one: what ranks see of it, and that nothing stays."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from benchmarks.job import python_path
from tests.dist.cluster_rank import NUM_BYTES
from weft.core.errors import RunError
from weft.machine.yaml import machine_from_text, machine_to_text
from weft.runtime.cluster import Cluster, ClusterRank, built, launch_cluster, refusal
from weft.runtime.cluster.network import owner_of
from weft.runtime.cluster.ranks import run_ranks
from weft.runtime.cluster.standing import NAMESPACES
from weft.runtime.probe_cluster import probe_cluster

RANK = Path(__file__).with_name("cluster_rank.py")
LIMIT_S = 240.0

PAIR = Cluster(
    name="pair",
    ranks=(
        ClusterRank(cores=0.6, bytes_per_s=1e8),
        ClusterRank(cores=0.3, bytes_per_s=5e7),
    ),
)


@cache
def why_not():
    return refusal(PAIR)


@pytest.fixture(autouse=True)
def needs_permission():
    if (reason := why_not()) is not None:
        pytest.skip(f"no cluster can be built here: {reason}")


def state(pid):
    """State of a process: "R", "S", ..., or nothing once it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[0].replace("Z", "")


def wait_for(condition):
    until = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def namespaces_of(pid):
    return [path.name for path in NAMESPACES.iterdir() if owner_of(path.name) == pid]


def sent_bytes(stands, rank):
    """What the shaped link of a rank has let out, and how often it made a packet wait."""
    said = subprocess.run(
        ["tc", "-n", stands.names.rank(rank), "-s", "-j", "qdisc", "show", "dev", "eth0"],
        capture_output=True,
        check=True,
    )
    (bucket,) = [queue for queue in json.loads(said.stdout) if queue["kind"] == "tbf"]
    return bucket["bytes"], bucket["overlimits"], bucket["drops"]


def test_ranks_meet_over_links_of_their_own_and_use_up_their_shares():
    with built(PAIR) as stands:
        command = [sys.executable, str(RANK)]
        done = run_ranks(stands, command, timeout_s=LIMIT_S, env=python_path())
        links = [sent_bytes(stands, rank) for rank in range(2)]
        throttled = [(door.parent / "cpu.stat").read_text().split() for door in stands.doors]
    said = [json.loads(output.stdout.splitlines()[-1]) for output in done.outputs]
    assert [s["rank"] for s in said] == [0, 1]
    assert [s["sum"] for s in said] == [3.0, 3.0]
    assert all(s["interfaces"] == ["eth0", "lo"] for s in said)
    for num_bytes, waits, drops in links:
        # Each of two ranks sends as much as the tensor has, in whatever rounds.
        assert num_bytes > NUM_BYTES
        assert waits > 0
        assert drops == 0
    for words in throttled:
        assert int(words[words.index("nr_throttled") + 1]) > 0
    assert namespaces_of(os.getpid()) == []
    assert not any(door.exists() for door in stands.doors)


def test_a_failing_rank_ends_the_others_and_is_named(tmp_path):
    script = tmp_path / "fail.py"
    script.write_text(
        "import os, sys, time\n"
        "if os.environ['RANK'] == '1': sys.exit('no such thing')\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n"
        "time.sleep(600)\n"
    )
    lines = []
    with pytest.raises(RunError) as caught:
        launch_cluster(
            [str(script)], PAIR, timeout_s=LIMIT_S, on_line=lambda *line: lines.append(line)
        )
    assert caught.value.rank == 1
    assert "no such thing" in caught.value.got
    assert (1, "no such thing") in lines
    assert namespaces_of(os.getpid()) == []
    pid = tmp_path / "pid"
    assert not pid.exists() or state(int(pid.read_text())) == ""


def test_ranks_end_when_the_time_is_up():
    with pytest.raises(RunError, match=r"within 0\.5 s"):
        launch_cluster(["-c", "import time; time.sleep(600)"], PAIR, timeout_s=0.5)
    assert namespaces_of(os.getpid()) == []


def start(folder):
    """A starter whose ranks leave their numbers, and those of children of theirs, in files."""
    description = folder / "pair.yaml"
    ranks = [f"- {{cores: {r.cores}, bytes_per_s: {r.bytes_per_s}}}" for r in PAIR.ranks]
    description.write_text("\n".join(["weft_cluster: 1", "ranks:", *ranks]))
    body = "sleep 600 & echo $$ $! > $0/$RANK.partial; mv $0/$RANK.partial $0/$RANK.pids; wait"
    starter = subprocess.Popen(
        [
            *(sys.executable, "-m", "weft.runtime.cluster", str(description)),
            *("--", "sh", "-c", body, str(folder)),
        ],
        env=os.environ | python_path(),
        stdout=subprocess.DEVNULL,
    )
    files = [folder / f"{rank}.pids" for rank in range(2)]
    wait_for(lambda: all(file.exists() for file in files) or starter.poll() is not None)
    return starter, [list(map(int, file.read_text().split())) for file in files]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_starter_takes_everything_down(number, tmp_path):
    starter, ranks = start(tmp_path)
    assert len(namespaces_of(starter.pid)) == 3
    starter.send_signal(number)
    assert starter.wait(LIMIT_S) == 130
    assert namespaces_of(starter.pid) == []
    assert [state(pid) for rank in ranks for pid in rank] == [""] * 4


def test_what_a_killed_starter_leaves_is_taken_down_by_the_next_one(tmp_path):
    starter, ranks = start(tmp_path)
    starter.kill()
    starter.wait()
    # Ranks end with their starter; what they started themselves goes on.
    wait_for(lambda: not any(state(rank) for rank, _ in ranks))
    assert len(namespaces_of(starter.pid)) == 3
    with built(PAIR):
        assert namespaces_of(starter.pid) == []
        assert [state(pid) for rank in ranks for pid in rank] == [""] * 4


def test_latency_comes_from_netem_or_is_refused_by_name():
    late = replace(PAIR, ranks=tuple(replace(rank, latency_s=1e-3) for rank in PAIR.ranks))
    said = refusal(late)
    assert said is None or "netem" in said
    assert namespaces_of(os.getpid()) == []


@pytest.mark.slow
def test_a_probed_cluster_has_a_node_for_each_rank_with_the_way_it_was_given():
    machine = probe_cluster(PAIR, seconds=1.0)
    assert [group.device.name.endswith(" of a core") for group in machine.groups] == [True] * 2
    assert [(g.num_nodes, g.devices_per_node) for g in machine.groups] == [(1, 1), (1, 1)]
    assert machine.network.curves
    assert machine_from_text(machine_to_text(machine), "probed") == machine
