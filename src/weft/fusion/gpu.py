"""A region compiled with Triton: takes tensors on a GPU, gives tensors there.

Where the environment had TRITON_INTERPRET=1 when Triton was imported, the same kernels run in its
interpreter, on tensors in the host's memory.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from weft.capture.dtypes import to_torch_dtype
from weft.core.errors import InputError, RunError, VerifyError
from weft.fusion.compile import put
from weft.fusion.cost import host_like
from weft.fusion.device import Device, Usage, device_like
from weft.fusion.emit.triton import OUTSIDE, Launch, TritonSource, emit_triton
from weft.fusion.kernel import Layout, checked, layouts
from weft.fusion.lower import lower
from weft.fusion.moments import OF_PROGRAMS
from weft.fusion.plan import FusionPlan
from weft.fusion.points import Points
from weft.fusion.region import Region
from weft.fusion.stitch import planned, scheduled
from weft.program.types import DType

__all__ = [
    "TritonDescription",
    "TritonKernel",
    "compile_for",
    "described",
    "device_of",
    "emitted",
    "key_of",
    "read_triton_kernel",
    "require_tensors",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scratch:
    """A tensor that kernels hand to one another."""

    name: str
    dtype: str
    num_elements: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TritonDescription:
    """All that a kernel needs beside its module; plain data.

    Attributes:
        name: of the region.
        module: file name of the generated module, in the same folder.
        inputs: tensors that it takes.
        outputs: tensors that it makes.
        scratch: tensors in between.
        launches: of the module's functions, in order.
        plan: the fusion plan, as JSON.
        measured: what plans and Inductor took; empty if they were not timed [s].
    """

    name: str
    module: str
    inputs: tuple[Layout, ...]
    outputs: tuple[Layout, ...]
    scratch: tuple[Scratch, ...]
    launches: tuple[Launch, ...]
    plan: str
    measured: Mapping[str, float] = field(default_factory=dict[str, float])


class TritonKernel:
    """Runs a region.

    Args:
        description: of the kernel.
        folder: where its module is.

    Raises:
        RunError: Triton is missing.
    """

    def __init__(self, description: TritonDescription, folder: Path) -> None:
        self.description = description
        self._folder = folder
        self._options: dict[str, dict[str, object]] = {}
        self.made = [
            (out.shape, out.strides, to_torch_dtype(DType(out.dtype)))
            for out in description.outputs
        ]
        self._taken = [(given.shape, given.strides) for given in description.inputs]
        self._scratch = [
            (own.name, own.num_elements, to_torch_dtype(DType(own.dtype)))
            for own in description.scratch
        ]

    def __call__(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The outputs of the region.

        Raises:
            InputError: a tensor has another shape or other strides than the kernel was made for.
            IndexError: an index was outside of what it looks up; on a GPU the device says so, when
                it is waited for.
        """
        checked(inputs, self._taken)
        module = load_module(self._folder / self.description.module)
        device = inputs[0].device
        made = [torch.empty_strided(s, t, dtype=d, device=device) for s, t, d in self.made]
        named = {f"in{number}": tensor for number, tensor in enumerate(inputs)}
        named |= {f"out{number}": tensor for number, tensor in enumerate(made)}
        for name, elements, dtype in self._scratch:
            named[name] = torch.empty(elements, dtype=dtype, device=device)
        # Triton's own masks are bits; in memory they are bytes.
        given = {n: t.view(torch.uint8) if t.dtype is torch.bool else t for n, t in named.items()}
        with torch.cuda.device_of(inputs[0]):  # where Triton launches; nothing for the interpreter
            for launch in self.description.launches:
                self._launch(launch, getattr(module, launch.kernel), given)
        return made

    def _launch(self, launch: Launch, function: Any, given: Mapping[str, Tensor]) -> None:  # noqa: ANN401
        own = [given[name] for name in launch.buffers]
        options = self._options.setdefault(launch.kernel, options_of(launch))
        try:
            compiled = function[(launch.programs,)](*own, **options)
        except Exception as error:
            if OUTSIDE in str(error):  # the interpreter's way to say it
                raise IndexError(OUTSIDE) from error
            raise
        if getattr(compiled, "n_spills", 0) and "maxnreg" not in options:
            usage = Usage(registers=compiled.n_regs, shared_bytes=0, warps=launch.warps)
            self._options[launch.kernel] = options_of(launch, usage)


MOST_REGISTERS = 255
"""Registers that a thread can have."""


def options_of(launch: Launch, spilled: Usage | None = None) -> dict[str, object]:
    """How Triton compiles a kernel.

    Args:
        launch: of the kernel.
        spilled: what it took when registers were spilled: it may have half as many again then.
            The compiler spills a few now and then for the sake of more blocks on a processor.
    """
    own: dict[str, object] = {
        "num_warps": launch.warps,
        "debug": launch.checks,
        "sanitize_overflow": False,
        # Products and sums in one, as C++ for CUDA has it; Triton is about to leave that out.
        "enable_fp_fusion": True,
    }
    if spilled is not None:
        own["maxnreg"] = min(spilled.registers * 3 // 2 // 8 * 8, MOST_REGISTERS)
    return own


def emitted(
    region: Region, device: Device, name: str = "region"
) -> tuple[TritonSource, FusionPlan, Points]:
    """The code of a region, and the plan that it follows.

    A plan whose phases do not fit into registers gives way to one of smaller phases.

    Args:
        region: what to compute.
        device: what it runs on.
        name: what kernels' names begin with.

    Raises:
        VerifyError: there is no code for it.
    """
    require_tensors(region)
    points = lower(region, OF_PROGRAMS)
    refused: VerifyError | None = None
    for planner in ("beam", "none"):
        plan = planned(region, points, host_like(device), planner)
        try:
            return emit_triton(scheduled(points, plan), name, device), plan, points
        except VerifyError as error:
            refused = refused or error
    assert refused is not None
    raise refused


def require_tensors(region: Region) -> None:
    """Check that a region reads any tensor.

    Raises:
        VerifyError: it does not.
    """
    if not region.program.inputs:
        raise VerifyError(
            need="a region that reads a tensor, where its kernels run",
            got="constants only",
            hint="leave it to Inductor, which folds constants",
        )


def key_of(region: Region, device: Device) -> str:
    """Tells kernels apart: by region, kind of GPU, and how many programs it can run."""
    return f"region_{region.digest}_sm{device.capability}x{device.processors}"


def device_of(device: torch.device) -> Device:
    """The figures of a GPU of this machine.

    Raises:
        InputError: it is too old.
    """
    major, minor = torch.cuda.get_device_capability(device)
    own = device_like(10 * major + minor)
    processors = torch.cuda.get_device_properties(device).multi_processor_count
    return replace(own, processors=processors)


def compile_for(region: Region, device: Device, folder: Path) -> TritonKernel:
    """Plan and generate a region; from the folder's cache if it was done before.

    Triton compiles the code when it is run first, and keeps what it makes in a cache of its own.

    Args:
        region: what to compute.
        device: what it runs on.
        folder: where modules are kept.

    Raises:
        VerifyError: there is no code for it.
    """
    kept = folder / f"{key_of(region, device)}.json"
    if kept.exists():
        return read_triton_kernel(kept)
    source, plan, _ = emitted(region, device, f"region_{region.digest}")
    description = described(region, plan, source, folder)
    put(kept, json.dumps(asdict(description)))
    return TritonKernel(description, folder)


def described(
    region: Region, plan: FusionPlan, source: TritonSource, folder: Path
) -> TritonDescription:
    """A region's kernel, its code written into a folder.

    Args:
        region: what is computed.
        plan: how.
        source: the code.
        folder: where modules are kept.
    """
    inputs, outputs = layouts(region)
    return TritonDescription(
        name=f"region_{region.digest}",
        module=write_module(source, folder).name,
        inputs=inputs,
        outputs=outputs,
        scratch=tuple(
            Scratch(name=b.name, dtype=b.dtype.value, num_elements=b.num_elements)
            for b in source.buffers
            if not b.name.startswith(("in", "out"))
        ),
        launches=source.launches,
        plan=plan.to_json(),
    )


def read_triton_kernel(path: Path) -> TritonKernel:
    """A kernel that was generated before.

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
        plain["scratch"] = tuple(Scratch(**one) for one in plain["scratch"])
        plain["launches"] = tuple(
            Launch(**{**one, "buffers": tuple(one["buffers"])}) for one in plain["launches"]
        )
        description = TritonDescription(**plain)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            need="the description of a kernel",
            got=f"{path}: {error}",
            hint="delete the file; the kernel is generated anew",
        ) from error
    return TritonKernel(description, path.parent)


def write_module(source: TritonSource, folder: Path) -> Path:
    """The file of generated code, named by what is in it."""
    path = folder / f"{hashlib.sha256(source.text.encode()).hexdigest()[:24]}.py"
    if not path.exists():
        put(path, source.text)
    return path


@cache
def load_module(path: Path) -> ModuleType:
    """A generated module.

    Raises:
        RunError: Triton is missing.
    """
    name = f"weft_generated_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # Triton looks up the source of functions there
    try:
        spec.loader.exec_module(module)
    except ImportError as error:
        raise RunError(
            need="Triton, which compiles kernels for GPUs",
            got=str(error),
            hint="pip install 'weft[triton]'",
        ) from error
    return module
