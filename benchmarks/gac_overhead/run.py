"""What a step of GAC takes beyond its memory traffic: `weft bench gac-overhead`.

Tensors have the shapes of Llama 3.2 1B. In turns: AdamW by itself, the same AdamW inside GAC, which
takes a part out of every gradient, and a probe that reads and writes what GAC's two passes have to,
over the same memory. In float32 four of the sixteen layers are used, since gradient, reference,
weights and AdamW's state of the whole would take 25 GB; in bfloat16 it is the whole model.

Then a small transformer is trained as it would be without stale samples, to see what GAC takes of
steps in which it changes nothing. That is processor time of one thread: fractions of a millisecond
would tell more about what else is running here.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

from benchmarks.gac_overhead.probe import Probe
from weft.report.bench import BenchReport, Claim, at_most, exactly, print_report
from weft.report.table import Table
from weft.rl import GAC, Regime

__all__ = ["run"]

WIDTH, KEYS, FEED_FORWARD, LAYERS, WORDS = 2048, 512, 8192, 16, 128_256
"""Source: config.json of the published Llama-3.2-1B."""
LAYER = (
    *((WIDTH,), (WIDTH, WIDTH), (KEYS, WIDTH), (KEYS, WIDTH), (WIDTH, WIDTH)),
    *((WIDTH,), (FEED_FORWARD, WIDTH), (FEED_FORWARD, WIDTH), (WIDTH, FEED_FORWARD)),
)
SHARE = 0.03
"""Of a step of AdamW. Chosen: what is meant by as cheap as its memory traffic."""
SMALL_SHARE = 0.02
"""Of a training step. Chosen: what nobody would notice."""
BATCH = 64
"""Sequences of the small model. Chosen: a step then takes some 25 ms."""
RESERVE = 1.2
"""Memory that has to be free, over what the tensors take."""


def run(quick: bool = False) -> BenchReport:
    """Measure; `quick` takes one layer, fewer rounds, and one type."""
    cases = [("float32", 1, False, 5)]
    if not quick:
        cases = [("float32", 4, False, 15), ("bfloat16", LAYERS, True, 9)]
    rows: list[tuple[str, ...]] = []
    claims: list[Claim] = []
    facts: dict[str, object] = {}
    for dtype, layers, embeds, rounds in cases:
        shapes = [*LAYER * layers, *([(WORDS, WIDTH)] if embeds else [])]
        elements = sum(torch.Size(shape).numel() for shape in shapes)
        gc.collect()  # what was measured before refers to itself
        took = 5 * elements * getattr(torch, dtype).itemsize
        if took * RESERVE > _free_bytes():
            facts[f"{dtype}_left_out"] = f"{took / 1e9:.1f} GB, {_free_bytes() / 1e9:.1f} GB free"
            continue
        own, found, copies = _large(shapes, getattr(torch, dtype), rounds=rounds)
        rows += own
        claims += [
            at_most(
                f"GAC beyond its two passes, {elements / 1e6:.0f} M {dtype}, {threads} threads"
                " [share of an AdamW step]",
                share,
                SHARE,
            )
            for threads, share in found.items()
        ]
        claims.append(exactly(f"copies of the gradients that GAC keeps, {dtype}", copies, 1.0))
    share, step_s, own_s = _small(rounds=30 if quick else 200)
    claims.append(at_most("GAC of a training step of a small model [share]", share, SMALL_SHARE))
    facts |= {"small_step_s": step_s, "small_gac_s": own_s}
    columns = ("gradients", "threads", "AdamW", "probe", "in GAC", "beyond both", "share")
    return BenchReport(
        bench="gac-overhead",
        claims=tuple(claims),
        table=Table(columns=columns, rows=tuple(rows)),
        facts=facts,
    )


def _large(
    shapes: list[tuple[int, ...]], dtype: torch.dtype, *, rounds: int
) -> tuple[list[tuple[str, ...]], dict[int, float], float]:
    """Rows of the table, what GAC takes beyond by threads [share], and copies it keeps."""
    parameters = [_filled(shape, dtype) for shape in shapes]
    for parameter in parameters:
        parameter.grad = _filled(parameter.shape, dtype).detach()
    inner = torch.optim.AdamW(parameters, lr=1e-6, fused=True)
    gac = GAC(inner)
    gac.step()
    # From here on every gradient has a part along its reference, and one that is left.
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad += _filled(parameter.shape, dtype).detach()
    kept = [(p.grad, gac.history.kept(p)[0]) for p in parameters if p.grad is not None]
    probe = Probe(kept)
    copies = sum(other.nbytes for _, other in kept) / sum(own.nbytes for own, _ in kept)
    elements = sum(own.numel() for own, _ in kept)
    ways: dict[str, Callable[[], object]] = {"AdamW": inner.step, **probe.ways, "GAC": gac.step}
    rows, shares = list[tuple[str, ...]](), dict[int, float]()
    for threads in (1, 2):
        with _threads(threads):
            taken: dict[str, list[float]] = {name: [] for name in ways}
            for number in range(rounds + 1):
                for name in _turned(list(ways), number):
                    seconds = _seconds(ways[name])
                    if number:  # the first round warms up
                        taken[name].append(seconds)
                assert gac.last is not None and gac.last.regime is Regime.PROJECT
        adam_s = median(taken["AdamW"])
        probe_s = min(median(taken[name]) for name in probe.ways)
        added_s = median(
            with_gac - alone for with_gac, alone in zip(taken["GAC"], taken["AdamW"], strict=True)
        )
        shares[threads] = (added_s - probe_s) / adam_s
        times = (f"{1e3 * s:.1f} ms" for s in (adam_s, probe_s, added_s, added_s - probe_s))
        name = f"{elements / 1e6:.0f} M {str(dtype).removeprefix('torch.')}"
        rows.append((name, str(threads), *times, f"{shares[threads]:.1%}"))
        print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
    return rows, shares, copies


def _filled(shape: tuple[int, ...], dtype: torch.dtype) -> nn.Parameter:
    """Random numbers; those of large tensors repeat."""
    count = torch.Size(shape).numel()
    some = torch.randn(min(count, 1 << 22)).to(dtype)
    whole = torch.empty(count, dtype=dtype)
    for part in whole.split(some.numel()):
        part.copy_(some[: part.numel()])
    return nn.Parameter(whole.view(shape))


class _Small(nn.Module):
    """A transformer of 105 thousand weights that tells tokens from those before."""

    def __init__(self, words: int = 32, width: int = 64, layers: int = 2) -> None:
        super().__init__()
        self.words = nn.Embedding(words, width)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True)
            for _ in range(layers)
        )
        self.out = nn.Linear(width, words)

    def forward(self, tokens: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1])
        hidden = self.words(tokens)
        for layer in self.layers:
            hidden = layer(hidden, src_mask=mask, is_causal=True)
        return self.out(hidden)


def _small(*, rounds: int) -> tuple[float, float, float]:
    """What GAC takes of a training step [share], such a step [s], and GAC of it [s]."""
    torch.manual_seed(0)
    model = _Small()
    inner = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    gac = GAC(inner)
    gac.staleness = 0.0
    # In turns, so that either finds in the caches what a backward pass leaves there.
    ways = {"GAC": gac.step, "AdamW": inner.step}
    passes, taken = list[float](), {name: list[float]() for name in ways}
    with _threads(1):
        for number in range(2 * rounds):
            tokens = torch.randint(0, 32, (BATCH, 33))
            begun = time.thread_time()
            inner.zero_grad()
            logits = model(tokens[:, :-1])
            nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
            passes.append(time.thread_time() - begun)
            name = _turned(list(ways), number)[0]
            taken[name].append(_seconds(ways[name], time.thread_time))
    added_s = median(taken["GAC"]) - median(taken["AdamW"])
    step_s = median(passes) + median(taken["AdamW"])
    return added_s / step_s, step_s, added_s


def _turned(names: list[str], number: int) -> list[str]:
    """Each goes first once in a while."""
    at = number % len(names)
    return names[at:] + names[:at]


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _free_bytes() -> float:
    """Memory that is free here [bytes]."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    found = dict(line.split(":") for line in lines)
    return float(found["MemAvailable"].split()[0]) * 1024


def _seconds(call: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    begun = clock()
    call()
    return clock() - begun


if __name__ == "__main__":
    print_report(run(quick="--quick" in sys.argv))
