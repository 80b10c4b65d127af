"""Collectives that a probe times, each as a segment of a step makes it."""

from __future__ import annotations

from collections.abc import Callable

import torch

from weft.parallel.local import Collective, CollectiveKind
from weft.program.graph import Phase
from weft.program.types import DType, TensorType
from weft.runtime.emit_collective import collective_module
from weft.runtime.place import Place

__all__ = ["PAYLOADS", "collective_run"]

PAYLOADS = tuple(4**power for power in range(5, 13))
"""Bytes of the whole tensor: 1 KiB to 16 MiB."""


def collective_run(
    kind: str, payload_bytes: int, place: Place
) -> tuple[float, Callable[[], object]]:
    """Bytes of the tensor whole along the only axis of the mesh, and what runs it once."""
    num_ranks = place.mesh.num_devices
    rows = max(1, payload_bytes // 4 // num_ranks**2)
    part, whole = _vector(rows * num_ranks), _vector(rows * num_ranks**2)
    source, target, source_dim, target_dim = {
        "all-reduce": (whole, whole, -1, -1),
        "all-gather": (part, whole, 0, -1),
        "reduce-scatter": (whole, part, -1, 0),
        "all-to-all": (_vector(rows, num_ranks), _vector(rows * num_ranks, 1), 0, 1),
    }[kind]
    collective = Collective(
        kind=CollectiveKind(kind),
        axis=0,
        reduce="sum" if "reduce" in kind else "",
        source_dim=source_dim,
        target_dim=target_dim,
        source=0,
        target=0,
        node=0,
        phase=Phase.FORWARD,
    )
    run = collective_module(collective, source, target, place)
    x = torch.randn(source.shape, device=place.device)
    return float(whole.num_bytes), lambda: run(x)


def _vector(*size: int) -> TensorType:
    return TensorType(DType.F32, size)
