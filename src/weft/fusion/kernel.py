"""A compiled region: takes tensors, gives tensors."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from pathlib import Path
from struct import Struct
from typing import Any

import torch
from torch import Tensor
from torch._C._dynamo import guards

from weft.capture.dtypes import to_torch_dtype
from weft.core.errors import InputError, RunError
from weft.fusion.compile import build, load, put
from weft.fusion.cost import Host
from weft.fusion.emit.cpp import Source, emit
from weft.fusion.lower import lower
from weft.fusion.plan import FusionPlan
from weft.fusion.points import Points
from weft.fusion.region import Region, Strides
from weft.fusion.stitch import planned, scheduled
from weft.program.types import DType, TensorType

__all__ = ["Kernel", "Layout", "checked", "compile_region", "layouts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A tensor that a kernel takes or makes."""

    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """All that a kernel needs beside its library; plain data.

    Attributes:
        name: of the function.
        library: file name of its library, in the same folder.
        inputs: tensors that it takes.
        outputs: tensors that it makes.
        between_bytes: of each tensor that it writes and reads itself [bytes].
        shared_bytes, thread_bytes: of scratch memory, and of that of each thread [bytes].
        threads: that share out the work.
        plan: the fusion plan, as JSON.
        measured: of all that was timed beside it, by name, the shortest run [s]; empty if nothing
            was.
    """

    name: str
    library: str
    inputs: tuple[Layout, ...]
    outputs: tuple[Layout, ...]
    between_bytes: tuple[int, ...]
    shared_bytes: int
    thread_bytes: int
    threads: int
    plan: str
    measured: Mapping[str, float] = field(default_factory=dict[str, float])


_empty: Any = vars(guards)["_empty_strided_cpu"]
"""What Inductor's code allocates with, in half the time of `torch.empty_strided`."""

ALIGN = 64
"""Alignment of memory between phases and of threads: a cache line [bytes]."""


class Kernel:
    """Runs a region; several threads may call it at once.

    Args:
        description: of the kernel.
        folder: where its library is.
    """

    def __init__(self, description: Description, folder: Path) -> None:
        self.description = description
        self._function = load(folder / description.library, description.name)
        self.made = tuple(
            (out.shape, out.strides, to_torch_dtype(DType(out.dtype)))
            for out in description.outputs
        )
        self._taken = tuple((given.shape, given.strides) for given in description.inputs)
        self._threads = description.threads
        # One piece of memory: tensors that it writes and reads itself, then its scratch.
        *self._between, at = accumulate(map(_aligned, description.between_bytes), initial=0)
        self._scratch_at = at
        at += description.shared_bytes + self._threads * description.thread_bytes
        self._own_shape = (at + ALIGN,) if at else None
        num_pointers = len(self._taken) + len(self.made) + len(self._between)
        self._packed = Struct(f"{num_pointers}P").pack

    def __call__(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The outputs of the region.

        Raises:
            InputError: a tensor has another shape or other strides than the kernel was made for.
            IndexError: an index was outside of what it looks up.
        """
        made = [_empty(*layout) for layout in self.made]
        self.into(made, inputs)
        return made

    def into(self, made: Sequence[Tensor], inputs: Sequence[Tensor]) -> None:
        """Write the outputs of the region into tensors that lie as `self.made` says.

        Raises:
            InputError, IndexError: as a call does.
        """
        checked(inputs, self._taken)
        given, scratch, _own = self._given(made, inputs)
        if self._function(given, scratch, self._threads):
            raise _outside()

    def prepared(self, made: Sequence[Tensor], inputs: Sequence[Tensor]) -> Callable[[], None]:
        """The bare kernel on tensors that lie as it wants them, to be called while they live."""
        given, scratch, own = self._given(made, inputs)

        def run(_own: Tensor | None = own) -> None:
            if self._function(given, scratch, self._threads):
                raise _outside()

        return run

    def _given(
        self, made: Sequence[Tensor], inputs: Sequence[Tensor]
    ) -> tuple[bytes, int, Tensor | None]:
        """Pointers to all tensors, one to scratch memory, and what holds that."""
        pointers = [tensor.data_ptr() for tensor in inputs]
        pointers += [tensor.data_ptr() for tensor in made]
        if self._own_shape is None:
            return self._packed(*pointers), 0, None
        own = _empty(self._own_shape, (1,), torch.uint8)
        start = _aligned(own.data_ptr())
        pointers += [start + at for at in self._between]
        return self._packed(*pointers), start + self._scratch_at, own


def _outside() -> IndexError:
    return IndexError("an index is outside of the dim that it looks up")


def _aligned(size: int) -> int:
    return -(-size // ALIGN) * ALIGN


def checked(inputs: Sequence[Tensor], taken: Sequence[tuple[tuple[int, ...], Strides]]) -> None:
    """Compare tensors with the shapes and strides that a kernel was made for.

    Raises:
        InputError: one has others.
    """
    for tensor, (shape, strides) in zip(inputs, taken, strict=True):
        if tensor.shape != shape or tensor.stride() != strides:
            _require_alike(tensor, shape, strides)


def _require_alike(tensor: Tensor, shape: Sequence[int], strides: Strides) -> None:
    """Strides of dims with one index mean nothing: nobody walks them."""
    walked = [n for n, size in enumerate(shape) if size > 1]
    found = tensor.stride()
    if tensor.shape != shape or any(found[n] != strides[n] for n in walked):
        raise InputError(
            need=f"a tensor of shape {shape} with strides {strides}",
            got=f"{tuple(tensor.shape)} with {found}",
            hint="compile the function again for tensors that lie like this",
        )


def compile_region(
    region: Region, host: Host, folder: Path, plan: FusionPlan | None = None
) -> Kernel:
    """Plan, generate and compile a region; from the folder's cache if it was done before.

    Args:
        region: what to compute.
        host: what it runs on.
        folder: where libraries are kept.
        plan: how to compute it, if that is planned already.
    """
    name = f"region_{region.digest}"
    kept = folder / f"{name}_{host.threads}.json"
    if kept.exists():
        with suppress(InputError, RunError):  # what is damaged is made anew
            return read_kernel(kept)
    points = lower(region)
    plan = plan or planned(region, points, host)
    source = emit(scheduled(points, plan), name)
    description = describe(region, points, plan, source, build([source], folder))
    put(kept, json.dumps(asdict(description)))
    return Kernel(description, folder)


def describe(
    region: Region, points: Points, plan: FusionPlan, source: Source, library: Path
) -> Description:
    """All that calls of a compiled function need.

    Args:
        region, points: what it computes.
        plan: how.
        source: its code.
        library: which holds it.
    """
    inputs, outputs = layouts(region)
    return Description(
        name=source.name,
        library=library.name,
        inputs=inputs,
        outputs=outputs,
        between_bytes=tuple(b.num_bytes for b in points.buffers if b.name.startswith("mid")),
        shared_bytes=source.shared_bytes,
        thread_bytes=source.thread_bytes,
        threads=plan.threads,
        plan=plan.to_json(),
    )


def layouts(region: Region) -> tuple[tuple[Layout, ...], tuple[Layout, ...]]:
    """What a kernel for a region takes, and what it makes."""
    program = region.program
    taken = zip(program.inputs, region.input_strides, strict=True)
    made = zip(region.outputs, region.output_strides, strict=True)
    return (
        tuple(_layout(program.nodes[given.node].outputs[0], strides) for given, strides in taken),
        tuple(_layout(program.type_of(value), strides) for value, strides in made),
    )


def _layout(of: TensorType, strides: Strides) -> Layout:
    return Layout(dtype=of.dtype.value, shape=of.shape, strides=strides)


def read_kernel(path: Path) -> Kernel:
    """A kernel that was compiled before.

    Raises:
        InputError: the file is none.
        RunError: its library is missing or damaged.
    """
    try:
        plain = json.loads(path.read_text())
        for key in ("inputs", "outputs"):
            plain[key] = tuple(
                Layout(dtype=one["dtype"], shape=tuple(one["shape"]), strides=tuple(one["strides"]))
                for one in plain[key]
            )
        plain["between_bytes"] = tuple(plain["between_bytes"])
        description = Description(**plain)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            need="the description of a kernel",
            got=f"{path}: {error}",
            hint=f"delete {path.parent}; all kernels in it are compiled anew",
        ) from error
    return Kernel(description, path.parent)
