"""What an uneven cluster on this host is to be: a small YAML file.

    weft_cluster: 1
    ranks:
    - {cores: 0.8, bytes_per_s: 2.0e+8}
    - {cores: 0.2, bytes_per_s: 2.0e+7, latency_s: 0.001}

One entry a rank, in order of rank. Knows the file; does not know how a cluster is built.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import cast

import yaml

from weft.core.errors import FileError, InputError
from weft.core.files import read_text
from weft.core.yaml import load_once

__all__ = ["Cluster", "ClusterRank", "load_cluster"]

VERSION = 1

MAX_RANKS = 64
"""As many CPU ranks as a probe starts on one host."""

LEAST_CORES = 0.01
"""A rank takes some seconds of processor time to start: ten minutes with this."""

LEAST_BYTES_PER_S = 1e5
"""A packet of 9,000 bytes takes 90 ms with this; slower is no network for training."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterRank:
    """What one rank gets.

    Attributes:
        cores: share of one core, up to 1.
        bytes_per_s: what it can send and, at the same time, receive [bytes/s].
        latency_s: added to what it sends [s].
    """

    cores: float
    bytes_per_s: float
    latency_s: float = 0.0

    def __post_init__(self) -> None:
        if not (
            LEAST_CORES <= self.cores <= 1
            and LEAST_BYTES_PER_S <= self.bytes_per_s < math.inf
            and 0 <= self.latency_s < 1
        ):
            raise InputError(
                need=f"{LEAST_CORES} to 1 cores, a bytes_per_s of at least {LEAST_BYTES_PER_S:g} "
                "and a latency_s from 0 to 1",
                got=f"cores {self.cores}, bytes_per_s {self.bytes_per_s}, "
                f"latency_s {self.latency_s}",
                hint="a rank computes on one thread, so it uses one core at most",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Ranks of this host that are to look like hosts of their own."""

    name: str
    ranks: tuple[ClusterRank, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.ranks) <= MAX_RANKS:
            raise InputError(
                need=f"1 to {MAX_RANKS} ranks",
                got=f"{len(self.ranks)}",
                hint="give each rank an entry in the list `ranks`",
            )

    @property
    def num_ranks(self) -> int:
        """How many."""
        return len(self.ranks)

    @property
    def cores(self) -> float:
        """Cores that all ranks use together."""
        return math.fsum(rank.cores for rank in self.ranks)

    def alike(self) -> tuple[range, ...]:
        """Runs of neighbouring ranks that get the same.

        Example:
            >>> fast, slow = (ClusterRank(cores=c, bytes_per_s=1e8) for c in (0.8, 0.2))
            >>> Cluster(name="three", ranks=(fast, slow, slow)).alike()
            (range(0, 1), range(1, 3))
        """
        starts = [r for r in range(self.num_ranks) if not r or self.ranks[r] != self.ranks[r - 1]]
        return tuple(
            range(start, end)
            for start, end in zip(starts, [*starts[1:], self.num_ranks], strict=True)
        )


def load_cluster(path: str | Path) -> Cluster:
    """Read a description; the cluster is named after the file.

    Raises:
        FileError: it is missing, is not YAML, or a key is missing, unknown, ill-typed or given
            twice.
    """
    text = read_text(path, "a description of a cluster", "see the guide to uneven clusters")
    try:
        plain = _mapping(load_once(text), ("weft_cluster", "ranks"), "the file")
        if plain["weft_cluster"] != VERSION or not isinstance(plain["ranks"], list):
            raise InputError(
                need=f"weft_cluster: {VERSION} and a list of ranks",
                got=f"weft_cluster: {plain['weft_cluster']!r}",
                hint="start from benchmarks/uneven_run/cluster.yaml",
            )
        entries = cast("list[object]", plain["ranks"])
        ranks = tuple(_rank(entry, number) for number, entry in enumerate(entries))
        return Cluster(name=Path(path).stem, ranks=ranks)
    except yaml.YAMLError as error:
        raise FileError(
            need="a description of a cluster in YAML",
            got=f"{path}: {' '.join(str(error).split())}",
            hint="mend the line that is named",
        ) from error
    except InputError as error:
        raise FileError(need=error.need, got=error.got, hint=error.hint, where=str(path)) from error


_FIGURES = tuple(field.name for field in fields(ClusterRank))


def _rank(entry: object, number: int) -> ClusterRank:
    where = f"rank {number}"
    plain = _mapping(entry, _FIGURES, where, optional=("latency_s",))
    return ClusterRank(**{key: _number(value, f"{key} of {where}") for key, value in plain.items()})


def _mapping(
    raw: object, keys: tuple[str, ...], where: str, optional: tuple[str, ...] = ()
) -> Mapping[str, object]:
    given = cast("dict[object, object]", raw) if isinstance(raw, dict) else None
    missing = set(keys) - set(optional) - set(given or ())
    if given is None or missing or set(given) - set(keys):
        found = ", ".join(map(str, given)) if given is not None else type(raw).__name__
        raise InputError(
            need=f"{where} with the keys {', '.join(keys)}",
            got=found or "nothing",
            hint=f"may be left out: {', '.join(optional) or 'none'}",
        )
    return cast("dict[str, object]", given)


def _number(raw: object, what: str) -> float:
    # YAML 1.1 reads 2e8, without a point and a sign, as a text.
    try:
        if isinstance(raw, int | float | str) and not isinstance(raw, bool):
            return float(raw)
    except (ValueError, OverflowError):
        pass
    raise InputError(need=f"a number as {what}", got=repr(raw), hint="for example 2.0e+8")
