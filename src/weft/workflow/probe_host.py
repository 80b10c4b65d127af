"""Measure this host, with progress for who watches."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

from weft.workflow.progress import Progress, silent

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from weft.machine.model import Machine

__all__ = ["probe_host", "probe_uneven"]

_STAGE = "measure this machine"


def probe_host(num_ranks: int, *, seconds: float = 20.0, progress: Progress = silent) -> Machine:
    """`weft.probe`, whose log is told as progress.

    Args:
        num_ranks: how many ranks run at once.
        seconds: time to spend on measuring [s].
        progress: told what is going on.

    Raises:
        RunError: a rank failed or did not end in time.
    """
    from weft.runtime.probe import probe

    return _told(lambda: probe(num_ranks=num_ranks, seconds=seconds), progress)


def probe_uneven(cluster: Path, *, seconds: float = 60.0, progress: Progress = silent) -> Machine:
    """`weft.runtime.probe_cluster` of a described cluster, whose log is told as progress.

    Args:
        cluster: a description in YAML.
        seconds: time to spend on measuring; slow ranks take longer [s].
        progress: told what is going on.

    Raises:
        FileError: the description cannot be used.
        InputError: this host does not permit such a cluster.
        RunError: a rank failed or did not end in time.
    """
    from weft.runtime.cluster import load_cluster
    from weft.runtime.probe_cluster import probe_cluster

    described = load_cluster(cluster)
    return _told(lambda: probe_cluster(described, seconds), progress)


def _told(measure: Callable[[], Machine], progress: Progress) -> Machine:
    log = logging.getLogger("weft.runtime.probe")
    handler, level = _Teller(progress), log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    progress(_STAGE, None)
    try:
        machine = measure()
    finally:
        log.setLevel(level)
        log.removeHandler(handler)
    progress(_STAGE, 1.0)
    return machine


class _Teller(logging.Handler):
    """Turns lines of a log into progress."""

    def __init__(self, progress: Progress) -> None:
        super().__init__(logging.INFO)
        self._progress = progress

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage().removeprefix("probe: ")
        item = re.match(r"item (\d+) of (\d+)", text)
        self._progress(_STAGE, int(item[1]) / int(item[2]) if item else None, text)
