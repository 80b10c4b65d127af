import importlib
import logging

import pytest

from tests.unit.report import toy_plan
from weft.runtime.cluster import load_cluster
from weft.workflow.probe_host import probe_host, probe_uneven


def told_by(monkeypatch, body):
    """What `probe_host` tells while a stand-in measures."""
    told = []
    module = importlib.import_module("weft.runtime.probe")

    def measure(num_ranks, seconds):
        body(logging.getLogger("weft.runtime.probe"))
        return toy_plan.machine()

    monkeypatch.setattr(module, "probe", measure)
    machine = probe_host(2, progress=lambda stage, share, detail="": told.append((share, detail)))
    assert machine.name == "toy-box"
    return told


def test_lines_of_the_probes_log_become_progress(monkeypatch):
    def measure(log):
        log.info("probe: starting %d ranks", 2)
        log.info("probe: item 3 of 12: product")

    assert told_by(monkeypatch, measure) == [
        (None, ""),
        (None, "starting 2 ranks"),
        (0.25, "item 3 of 12: product"),
        (1.0, ""),
    ]


def test_the_log_is_left_as_it_was_also_after_an_error(monkeypatch):
    log = logging.getLogger("weft.runtime.probe")
    before = (log.level, list(log.handlers))

    def fail(log):
        raise RuntimeError("a rank failed")

    with pytest.raises(RuntimeError):
        told_by(monkeypatch, fail)
    assert (log.level, list(log.handlers)) == before


def test_a_described_cluster_is_read_and_its_probe_is_told_likewise(monkeypatch, tmp_path):
    path = tmp_path / "pair.yaml"
    path.write_text("weft_cluster: 1\nranks: [{cores: 0.5, bytes_per_s: 1e8}]\n")
    told = []

    def measure(cluster, seconds):
        assert cluster == load_cluster(path)
        logging.getLogger("weft.runtime.probe").info("probe: item 1 of 4: launch")
        return toy_plan.machine()

    monkeypatch.setattr("weft.runtime.probe_cluster.probe_cluster", measure)
    machine = probe_uneven(path, progress=lambda stage, share, detail="": told.append(share))
    assert machine.name == "toy-box"
    assert told == [None, 0.25, 1.0]
