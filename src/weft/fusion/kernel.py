"""A compiled region: takes tensors, gives tensors."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from weft.capture.dtypes import to_torch_dtype
from weft.core.errors import InputError
from weft.fusion.compile import build, load
from weft.fusion.cost import Host
from weft.fusion.emit.cpp import emit
from weft.fusion.lower import lower
from weft.fusion.plan import FusionPlan
from weft.fusion.region import Region, Strides
from weft.fusion.stitch import planned, scheduled
from weft.program.types import DType, TensorType

__all__ = ["Kernel", "Layout", "compile_region"]


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


class Kernel:
    """Runs a region.

    Args:
        description: of the kernel.
        folder: where its library is.
    """

    def __init__(self, description: Description, folder: Path) -> None:
        self.description = description
        self._function = load(folder / description.library, description.name)
        self.made = [
            (out.shape, out.strides, to_torch_dtype(DType(out.dtype)))
            for out in description.outputs
        ]
        self._threads = description.threads
        self._taken = [(given.shape, given.strides) for given in description.inputs]
        count = len(self._taken) + len(self.made) + len(description.between_bytes)
        self._pointers = ctypes.c_void_p * count

    def __call__(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The outputs of the region.

        Raises:
            InputError: a tensor has another shape or other strides than the kernel was made for.
            IndexError: an index was outside of what it looks up.
        """
        for tensor, (shape, strides) in zip(inputs, self._taken, strict=True):
            if tensor.shape != shape or tensor.stride() != strides:
                _require_alike(tensor, shape, strides)
        own, threads = self.description, self._threads
        made = [torch.empty_strided(s, t, dtype=d) for s, t, d in self.made]
        held = [torch.empty(size, dtype=torch.uint8) for size in own.between_bytes]
        size = own.shared_bytes + threads * own.thread_bytes
        start = 0
        if size:
            scratch = torch.empty(size + ALIGN, dtype=torch.uint8)
            start = -(-scratch.data_ptr() // ALIGN) * ALIGN
        pointers = self._pointers(*[t.data_ptr() for t in (*inputs, *made, *held)])
        if self._function(pointers, start, threads):
            raise IndexError("an index is outside of the dim that it looks up")
        return made


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


ALIGN = 64
"""Alignment of scratch memory: a cache line [bytes]."""


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
        return read_kernel(kept)
    points, program = lower(region), region.program
    plan = plan or planned(region, points, host)
    source = emit(scheduled(points, plan), name)
    library = build([source], folder)
    description = Description(
        name=name,
        library=library.name,
        inputs=tuple(
            _layout(program.nodes[given.node].outputs[0], strides)
            for given, strides in zip(program.inputs, region.input_strides, strict=True)
        ),
        outputs=tuple(
            _layout(program.type_of(value), strides)
            for value, strides in zip(region.outputs, region.output_strides, strict=True)
        ),
        between_bytes=tuple(b.num_bytes for b in points.buffers if b.name.startswith("mid")),
        shared_bytes=source.shared_bytes,
        thread_bytes=source.thread_bytes,
        threads=plan.threads,
        plan=plan.to_json(),
    )
    scratch = kept.with_suffix(f".{library.stem}.tmp")
    scratch.write_text(json.dumps(asdict(description)))
    scratch.replace(kept)
    return Kernel(description, folder)


def _layout(of: TensorType, strides: Strides) -> Layout:
    return Layout(dtype=of.dtype.value, shape=of.shape, strides=strides)


def read_kernel(path: Path) -> Kernel:
    """A kernel that was compiled before.

    Raises:
        InputError: the file is none.
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
            hint="delete the file; the kernel is compiled anew",
        ) from error
    return Kernel(description, path.parent)
