"""Descriptions of clusters: what is read, and what is refused with its place."""

from pathlib import Path

import pytest

from weft.core.errors import FileError, InputError
from weft.runtime.cluster import Cluster, ClusterRank, load_cluster

DEFAULT = Path(__file__).parents[4] / "benchmarks" / "uneven_run" / "cluster.yaml"


def written(folder, text):
    path = folder / "small.yaml"
    path.write_text(text)
    return path


def test_a_description_is_read_in_order_of_rank(tmp_path):
    text = (
        "weft_cluster: 1\nranks:\n- {cores: 0.5, bytes_per_s: 2e8}\n"
        "- {cores: 1, bytes_per_s: 20000000, latency_s: 0.001}\n"
    )
    assert load_cluster(written(tmp_path, text)) == Cluster(
        name="small",
        ranks=(
            ClusterRank(cores=0.5, bytes_per_s=2e8),
            ClusterRank(cores=1.0, bytes_per_s=2e7, latency_s=0.001),
        ),
    )


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("weft_cluster: 2\nranks: []", "weft_cluster: 1"),
        ("weft_cluster: 1\nranks: []", "1 to 64 ranks"),
        ("weft_cluster: 1", "weft_cluster, ranks"),
        ("[1, 2]", "got   list"),
        ("weft_cluster: [1\n", "in YAML"),
        ("weft_cluster: 1\nranks: []\nranks: []", "'ranks' stands twice"),
        ("weft_cluster: 1\nranks: [{cores: 0.5, cores: 1}]", "'cores' stands twice"),
        ("weft_cluster: 1\nranks: [{cores: 0.5}]", "rank 0 with the keys"),
        ("weft_cluster: 1\nranks: [{cores: 0.5, bytes_per_s: fast}]", "bytes_per_s of rank 0"),
        ("weft_cluster: 1\nranks: [{cores: true, bytes_per_s: 1e8}]", "cores of rank 0"),
        ("weft_cluster: 1\nranks: [{cores: 0.5, bytes_per_s: 1e8, speed: 1}]", "speed"),
        ("weft_cluster: 1\nranks: [{cores: 2, bytes_per_s: 1e8}]", "cores 2.0"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_file(text, word, tmp_path):
    with pytest.raises(FileError) as caught:
        load_cluster(written(tmp_path, text))
    assert word in str(caught.value)
    assert "small.yaml" in str(caught.value)


@pytest.mark.parametrize(
    "figures",
    [
        {"cores": 0.0},
        {"cores": 1.5},
        {"cores": float("nan")},
        {"bytes_per_s": 0.0},
        {"bytes_per_s": float("inf")},
        {"latency_s": -1.0},
        {"latency_s": float("nan")},
    ],
)
def test_a_rank_gets_a_share_of_a_core_and_a_way_that_can_be_built(figures):
    with pytest.raises(InputError, match="cores"):
        ClusterRank(**{"cores": 0.5, "bytes_per_s": 1e8} | figures)


def test_ranks_apart_are_apart_though_they_are_alike():
    a, b = (ClusterRank(cores=cores, bytes_per_s=1e8) for cores in (0.5, 0.25))
    cluster = Cluster(name="four", ranks=(a, b, b, a))
    assert cluster.alike() == (range(1), range(1, 3), range(3, 4))
    assert cluster.cores == 1.5


def test_the_cluster_of_the_benchmark_fits_two_cores_and_is_uneven():
    cluster = load_cluster(DEFAULT)
    assert cluster.num_ranks == 4
    assert cluster.cores <= 1.8
    ways = [rank.bytes_per_s for rank in cluster.ranks]
    assert (min(ways), max(ways)) == (2e7, 2e8)
    assert len(cluster.alike()) == 3
