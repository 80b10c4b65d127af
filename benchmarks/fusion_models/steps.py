"""A training step and an inference of a model for each contestant, all on the same parameters.

Forward and backward pass are one compiled function, AdamW another; gradients are set to none
between steps, as torch does by default. All contestants share a model and an optimizer, whose
numbers make no difference to times, so that they find the same tensors in the caches.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.fusion.contestants import CONTROL, EAGER, INDUCTOR, WEFT, heard, own_copy
from benchmarks.fusion_models.traffic import Ledger, Traffic
from weft.capture import AdamW, Workload
from weft.capture.workload import build_model

__all__ = ["INFERENCE", "TRAINING", "Bench", "Contestant", "error_of"]

TRAINING, INFERENCE = "training", "inference"
SMALL = 1e-3
"""Share of the largest tensor's length below which a tensor's own does not count: gradients that
are zero but for rounding, as those of a bias before a normalisation."""

Batch = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """A model compiled by one back end.

    Attributes:
        calls: a training step and an inference.
        graded: outputs whose errors count, of each: loss and gradients, or what inference makes.
        traffic: of each.
        compile_s: of the first calls [s].
        notes: warnings of weft.
    """

    calls: Mapping[str, Callable[[], object]]
    graded: Mapping[str, Sequence[Tensor]]
    traffic: Mapping[str, Traffic]
    compile_s: float
    notes: tuple[str, ...] = ()


class Bench:
    """A model, its batch and its optimizer.

    Args:
        workload: what to train.
        features: of a batch, what the model is called with in inference.
    """

    def __init__(self, workload: Workload, features: Sequence[str]) -> None:
        optimizer = workload.pure_optimizer
        assert isinstance(optimizer, AdamW)
        rate = optimizer.lr
        assert isinstance(rate, float)
        self._loss = workload.loss
        self.model = build_model(workload)
        self._batch = dict(workload.batch(0))
        self._features = tuple(features)
        self._optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=rate,
            betas=optimizer.betas,
            eps=optimizer.eps,
            weight_decay=optimizer.weight_decay,
        )
        self._step(self._loss, self._optimizer.step)  # the state of the optimizer is there now
        self._start = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}

    def eager(self) -> Contestant:
        """Torch as it is."""
        return self._contestant(EAGER, lambda function: function, Ledger())

    def compiled(self, name: str) -> Contestant:
        """A contestant of torch.compile: Inductor, its control, or weft."""
        assert name in (INDUCTOR, CONTROL, WEFT)
        ledger = Ledger()
        backend = ledger.backend if name == WEFT else "inductor"
        return self._contestant(
            name, lambda f: torch.compile(f, backend=backend, dynamic=False), ledger
        )

    def exact(self) -> dict[str, list[Tensor]]:
        """What a contestant's graded outputs are in double precision."""
        double = copy.deepcopy(self.model)
        double.load_state_dict(self._start)
        double = double.double()
        batch = {
            key: entry.double() if entry.is_floating_point() else entry
            for key, entry in self._batch.items()
        }
        return self._graded(double, batch, self._loss, lambda m, x: m(*x))

    def _contestant(
        self, name: str, made: Callable[[Callable[..., object]], Callable[..., object]], to: Ledger
    ) -> Contestant:
        given_loss, optimizer = self._loss, self._optimizer

        def loss(model: nn.Module, batch: Batch) -> Tensor:
            return given_loss(model, batch)

        def infer(model: nn.Module, features: Sequence[Tensor]) -> object:
            return model(*features)

        def update() -> None:
            optimizer.step()

        def own(function: Callable[..., object]) -> Callable[..., object]:
            # Not of the graph that is timed: with what is random left out, it is another one.
            return made(own_copy(function, f"{function.__name__}_{name.replace(' ', '_')}"))

        own_loss, own_infer, own_update = own(loss), own(infer), own(update)
        calls: dict[str, Callable[[], object]] = {
            TRAINING: lambda: self._step(own_loss, own_update),
            INFERENCE: lambda: self._inferred(self.model, self._batch, own_infer),
        }
        traffic: dict[str, Traffic] = {}
        begun = time.perf_counter()
        with heard("weft.fusion") as notes:
            for mode, call in calls.items():
                before = to.traffic()
                with to.listening():
                    call()
                traffic[mode] = _between(before, to.traffic())
            compile_s = time.perf_counter() - begun
            graded_loss = own(loss) if self._is_random else own_loss
            self.model.load_state_dict(self._start)  # all are graded on equal parameters
            graded = self._graded(self.model, self._batch, graded_loss, own_infer)
        return Contestant(
            calls=calls, graded=graded, traffic=traffic, compile_s=compile_s, notes=tuple(notes)
        )

    @property
    def _is_random(self) -> bool:
        return any(isinstance(m, nn.Dropout) and m.p > 0 for m in self.model.modules())

    def _step(self, loss: Callable[..., object], update: Callable[..., object]) -> Tensor:
        self.model.train()
        found = loss(self.model, self._batch)
        assert isinstance(found, Tensor)
        torch.autograd.backward(found)
        update()
        self._optimizer.zero_grad()
        return found

    def _inferred(self, model: nn.Module, batch: Batch, infer: Callable[..., object]) -> object:
        model.eval()
        with torch.no_grad():
            return infer(model, [batch[key] for key in self._features])

    def _graded(
        self,
        model: nn.Module,
        batch: Batch,
        loss: Callable[..., object],
        infer: Callable[..., object],
    ) -> dict[str, list[Tensor]]:
        """Loss and gradients without what is random, and what inference makes."""
        with _statistics_kept(model), _without_dropout(model):
            model.train()
            found = loss(model, batch)
            assert isinstance(found, Tensor)
            gradients = torch.autograd.grad(found, list(model.parameters()), materialize_grads=True)
        made = self._inferred(model, batch, infer)
        outputs = made if isinstance(made, tuple | list) else [made]
        return {
            TRAINING: [found.detach(), *gradients],
            INFERENCE: [tensor for tensor in outputs if isinstance(tensor, Tensor)],
        }


def _between(before: Traffic, after: Traffic) -> Traffic:
    return Traffic(
        kernels=after.kernels - before.kernels,
        num_bytes=after.num_bytes - before.num_bytes,
        regions=after.regions - before.regions,
        left=after.left - before.left,
    )


@contextmanager
def _statistics_kept(model: nn.Module) -> Iterator[None]:
    """Have buffers, such as running means, afterwards as they were."""
    kept = {name: buffer.clone() for name, buffer in model.named_buffers()}
    yield
    for name, buffer in model.named_buffers():
        buffer.copy_(kept[name])


@contextmanager
def _without_dropout(model: nn.Module) -> Iterator[None]:
    layers = [m for m in model.modules() if isinstance(m, nn.Dropout)]
    chances = [layer.p for layer in layers]
    for layer in layers:
        layer.p = 0.0
    yield
    for layer, chance in zip(layers, chances, strict=True):
        layer.p = chance


def error_of(made: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """The largest error of a tensor, in Euclidean length over its own [relative].

    A tensor that is a thousandth of the longest one or less counts against that thousandth.

    Example:
        >>> error_of([torch.tensor([3.0, 4.5])], [torch.tensor([3.0, 4.0])])
        0.1
    """
    lengths = [w.double().norm().item() for w in wanted]
    least = SMALL * max(lengths)
    errors = [
        (m.double() - w.double()).norm() / max(length, least)
        for m, w, length in zip(made, wanted, lengths, strict=True)
    ]
    return torch.stack(errors).max().item()  # of numbers and a NaN, the NaN
