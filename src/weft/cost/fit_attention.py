"""From measured times of attention to the figures with which `weft.cost.roofline` prices it.

    seconds = launch + products / (rate x share) + rows x row_s + scores x score_s

Products of short sequences and narrow heads are small, softmax works row by row, and both take
longer than their arithmetic says. Costs of rows and of scores say so without regard to how a
library lays out its loops: over heads of 8 to 64 and 16 to 1,024 positions on one core of an AMD
EPYC (torch 2.13) times come out within a quarter of what is measured, where a share of the rate
alone was up to ten times off.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from weft.core.nonnegative import nonnegative_fit

__all__ = ["AttentionFit", "AttentionTime", "fit_attention"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionTime:
    """Measured time of attention over `size` = (batch, heads, queries, head width) in f32.

    There are as many keys as queries.
    """

    size: tuple[int, int, int, int]
    causal: bool
    backward: bool
    seconds: float

    @property
    def op(self) -> str:
        """Name of the operator."""
        return "attention_backward" if self.backward else "attention"


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionFit:
    """What was found.

    Attributes:
        share: rate of its products as a share of that of others, at most 1.
        block: keys in a tile, of which causal attention skips whole ones; None if unknown.
        row_s, score_s: for each query of each head, and for each of its scores, by operator [s].
    """

    share: float
    block: float | None
    row_s: Mapping[str, float]
    score_s: Mapping[str, float]


def fit_attention(
    times: Sequence[AttentionTime], rate: float, launch_s: float
) -> AttentionFit | None:
    """Figures with the smallest relative errors; None where nothing was measured.

    Args:
        times: the same sizes full and, where the tile is to be found, causal.
        rate: of matrix products in f32 [FLOP/s].
        launch_s: of any operator [s].
    """
    full = [time for time in times if not time.causal]
    if not full:
        return None
    ops = tuple(dict.fromkeys(time.op for time in full))
    # A second of products at the full rate, then rows and scores of each operator.
    columns = np.array([_columns(time, ops, rate) for time in full])
    net_s = np.array([max(time.seconds - launch_s, time.seconds / 10) for time in full])
    found = nonnegative_fit(columns / net_s[:, None], np.ones(len(full)))
    if found[0] < 1.0:
        # Attention does not outrun products: whatever says so is small, and tells of rows.
        rest = np.ones(len(full)) - columns[:, 0] / net_s
        others = nonnegative_fit(columns[:, 1:] / net_s[:, None], rest)
        found = np.concatenate([[1.0], others])
    costs = [float(cost) for cost in found[1:]]
    return AttentionFit(
        share=1.0 / float(found[0]),
        block=_block(times, full),
        row_s=dict(zip(ops, costs[0::2], strict=True)),
        score_s=dict(zip(ops, costs[1::2], strict=True)),
    )


def _columns(time: AttentionTime, ops: Sequence[str], rate: float) -> list[float]:
    batch, heads, queries, head = time.size
    rows = float(batch * heads * queries)
    flops = (10.0 if time.backward else 4.0) * rows * queries * head
    costs = [(rows, rows * queries) if op == time.op else (0.0, 0.0) for op in ops]
    return [flops / rate, *(cost for pair in costs for cost in pair)]


def _block(times: Sequence[AttentionTime], full: Sequence[AttentionTime]) -> float | None:
    """Tile of keys, from what causal attention saves on the longest sequences.

    On shorter ones a tile as long as the sequence cannot be told from a longer tile.
    """
    whole_s = {(time.size, time.backward): time.seconds for time in full}
    causal = [time for time in times if time.causal and (time.size, time.backward) in whole_s]
    longest = max((time.size[2] for time in causal), default=0)
    blocks: list[float] = []
    for time in causal:
        if time.size[2] == longest:
            computed = time.seconds / whole_s[time.size, time.backward]
            blocks.append(min(1.0, max(0.0, 2.0 * computed - 1.0)) * longest)
    return fmean(blocks) if blocks else None
