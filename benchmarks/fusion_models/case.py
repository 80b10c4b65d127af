"""One model in a process of its own: a training step, then an inference.

    python -m benchmarks.fusion_models.case bert

prints one line of JSON for each of the two, and one for people on the standard error stream.
Threads, allocator and waits for a quiet machine are those of `benchmarks.fusion.case`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field

import torch
from torch._inductor.utils import fresh_cache

from benchmarks.fusion.case import THREADS, Effort, run_process, settled, timed
from benchmarks.fusion.contestants import CONTROL, EAGER, INDUCTOR, WEFT, warm_up
from benchmarks.fusion.point import Point
from benchmarks.fusion.quiet import Watch
from benchmarks.fusion_models.networks import NETWORKS
from benchmarks.fusion_models.share import memory_bound_share
from benchmarks.fusion_models.steps import INFERENCE, TRAINING, Bench, Contestant, error_of
from benchmarks.fusion_models.traffic import Traffic

__all__ = ["Measured", "measure"]

FULL = Effort(seconds=12.0, rounds=40, patience_s=60.0)
QUICK = Effort(seconds=0.5, rounds=10, patience_s=5.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A model in training or in inference.

    Attributes:
        point: times, errors and what else belongs to a point; its graph is the model, its size
            the mode.
        share: of Inductor's time that is outside of matrix products, convolutions, attention.
        traffic: kernels and bytes, by contestant.
    """

    point: Point
    share: float = 0.0
    traffic: dict[str, Traffic] = field(default_factory=dict[str, Traffic])

    def fact(self) -> dict[str, object]:
        """What belongs into the result, as JSON values."""
        traffic = {name: asdict(own) for name, own in self.traffic.items()}
        return {**self.point.fact(), "memory_bound_share": self.share, "traffic": traffic}

    def to_json(self) -> str:
        """One line."""
        plain = {"share": self.share, "traffic": {n: asdict(t) for n, t in self.traffic.items()}}
        return json.dumps({**plain, "point": self.point.to_json()})

    @classmethod
    def from_json(cls, text: str) -> Measured:
        """What `to_json` wrote."""
        raw = json.loads(text)
        return cls(
            point=Point.from_json(raw["point"]),
            share=raw["share"],
            traffic={name: Traffic(**own) for name, own in raw["traffic"].items()},
        )


def measure(name: str, *, quick: bool, timeout_s: float) -> Iterator[Measured]:
    """Run a model in a new process; training and inference, whatever happens."""
    command = [sys.executable, "-m", __spec__.name, name, *["--quick"] * quick]
    out, failure = run_process(command, timeout_s)
    found = [Measured.from_json(line) for line in out.splitlines() if line.startswith("{")]
    yield from found
    for mode in (TRAINING, INFERENCE)[len(found) :]:
        yield Measured(point=Point(graph=name, size=mode, failure=failure))


def measure_here(name: str, *, quick: bool) -> Iterator[Measured]:
    """Compile, compare and time a model, in this process."""
    network, effort = NETWORKS[name], QUICK if quick else FULL
    watch = Watch(THREADS, effort.patience_s)
    bench = Bench(network.workload(quick=quick), network.features)
    contestants: dict[str, Contestant] = {EAGER: bench.eager()}
    failure = ""
    with fresh_cache():
        for contestant in (INDUCTOR, CONTROL):
            contestants[contestant] = bench.compiled(contestant)
    with fresh_cache():
        try:
            contestants[WEFT] = bench.compiled(WEFT)
        except Exception as error:  # whatever it is, the others go on without it
            failure = f"{type(error).__name__}: {error}"
        exact = bench.exact()
        errors = {
            mode: {n: error_of(c.graded[mode], exact[mode]) for n, c in contestants.items()}
            for mode in (TRAINING, INFERENCE)
        }
        del exact
        for mode in (TRAINING, INFERENCE):
            calls = {n: c.calls[mode] for n, c in contestants.items()}
            quiet = watch.wait()
            times, controls = timed(calls, effort, watch)
            point = Point(
                graph=name,
                size=mode,
                times=times,
                controls=controls,
                errors=errors[mode],
                compile_s={n: c.compile_s for n, c in contestants.items() if n != EAGER},
                kernels={n: c.traffic[mode].kernels for n, c in contestants.items() if n != EAGER},
                quiet=quiet,
                notes=contestants[WEFT].notes if WEFT in contestants else (),
                failure=failure,
            )
            yield Measured(
                point=point,
                share=memory_bound_share(calls[INDUCTOR]),
                traffic={n: c.traffic[mode] for n, c in contestants.items() if n != EAGER},
            )


def main(arguments: Sequence[str]) -> None:
    """Life of the process."""
    parser = argparse.ArgumentParser(prog=f"python -m {__spec__.name}")
    parser.add_argument("model", choices=list(NETWORKS))
    parser.add_argument("--quick", action="store_true", help="a small model, fewer rounds")
    given = parser.parse_args(arguments)
    settled(__spec__.name, arguments)
    torch.manual_seed(0)
    with torch.no_grad():
        warm_up()
    torch.compiler.reset()
    for found in measure_here(given.model, quick=given.quick):
        print(found.to_json(), flush=True)
        print(found.point.line(), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
