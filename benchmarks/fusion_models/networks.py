"""Which models are measured, in which sizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.fusion_models import bert, conformer, crnn, dien
from benchmarks.job import workload_of
from weft.capture import Workload

__all__ = ["NETWORKS", "Network"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A model to train and to run.

    Attributes:
        full: of the published widths.
        small: of a few milliseconds a step, for tests and `--quick`.
        features: of a batch, what the module is called with.
        cut: in what it differs from the published model.
    """

    full: Callable[[], Workload]
    small: Callable[[], Workload]
    features: tuple[str, ...]
    cut: str

    def workload(self, *, quick: bool) -> Workload:
        """The model in the size that is asked for."""
        return self.small() if quick else self.full()


NETWORKS = {
    "gpt2": Network(
        full=lambda: workload_of("gpt_fused.py:gpt2_4layers"),
        small=lambda: workload_of("gpt_fused.py:gpt_fused_tiny"),
        features=("tokens",),
        cut="small, 4 of 12 layers, without dropout; one sequence of 256",
    ),
    "bert": Network(
        full=lambda: bert.bert(
            bert.Config(num_layers=4, width=768, num_heads=12, sequence=128), batch=2
        ),
        small=lambda: bert.bert(
            bert.Config(num_layers=2, width=32, num_heads=4, sequence=16, vocabulary=256), batch=2
        ),
        features=("tokens", "is_token"),
        cut="base, 4 of 12 layers; two sequences of 128; attention not in one operator",
    ),
    "conformer": Network(
        full=lambda: conformer.conformer(
            conformer.Config(num_layers=4, width=256, num_heads=4, frames=512), batch=4
        ),
        small=lambda: conformer.conformer(
            conformer.Config(
                num_layers=1, width=32, num_heads=4, frames=32, bands=16, kernel=7, classes=40
            ),
            batch=2,
        ),
        features=("mels",),
        cut="medium, 4 of 16 layers, without dropout and decoder; four utterances of 5 seconds",
    ),
    "dien": Network(
        full=lambda: dien.dien(dien.Config(history=10), batch=256),
        small=lambda: dien.dien(dien.Config(history=4, items=50, categories=10), batch=8),
        features=("items", "categories", "is_real"),
        cut="10 of 100 behaviours; 256 users",
    ),
    "crnn": Network(
        full=lambda: crnn.crnn(crnn.Config(columns=48), batch=8),
        small=lambda: crnn.crnn(
            crnn.Config(columns=16, channels=(4, 4, 8, 8, 8, 8, 8), state=16, letters=1), batch=2
        ),
        features=("pictures",),
        cut="48 of 100 columns; eight pictures",
    ),
    "llama": Network(
        full=lambda: workload_of("llama3.py:llama_block"),
        small=lambda: workload_of("llama3.py:llama_tiny"),
        features=("tokens",),
        cut="1 of 22 layers of TinyLlama; one sequence of 256",
    ),
}
"""By name."""
