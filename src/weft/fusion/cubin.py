"""What generated Triton kernels take of a GPU, from machine code made without one.

Triton compiles for a GPU that is not there; the tools that it brings along read registers and
stack from the result. Not under Triton's interpreter, which is chosen when Triton is imported.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from weft.core.errors import RunError
from weft.fusion.device import Device, Usage
from weft.fusion.emit.triton import Launch, TritonSource
from weft.fusion.gpu import load_module, options_of, write_module
from weft.program.types import DType

__all__ = ["compiled_usage"]

_POINTERS: Mapping[DType, str] = MappingProxyType(
    {
        DType.F64: "*fp64",
        DType.F32: "*fp32",
        DType.BF16: "*bf16",
        DType.F16: "*fp16",
        DType.I64: "*i64",
        DType.I32: "*i32",
        DType.U8: "*u8",
        DType.BOOL: "*u8",
    }
)
ALIGNED = [["tt.divisibility", 16]]
"""What Triton finds out of tensors that torch allocates: they begin at multiples of 16 bytes."""


def compiled_usage(source: TritonSource, device: Device, folder: Path) -> tuple[Usage, ...]:
    """Compile each kernel, and read what it takes.

    Args:
        source: generated code.
        device: what it is compiled for.
        folder: where the module is put.

    Raises:
        RunError: Triton interprets kernels in this process, or the tools refuse the code.
    """
    module = load_module(write_module(source, folder))
    pointers = {buffer.name: _POINTERS[buffer.dtype] for buffer in source.buffers}
    return tuple(
        _usage(getattr(module, own.kernel), own, pointers, device) for own in source.launches
    )


def _usage(function: Any, launch: Launch, pointers: Mapping[str, str], device: Device) -> Usage:  # noqa: ANN401
    import triton
    from triton import knobs
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    if knobs.runtime.interpret:
        raise RunError(
            need="Triton as a compiler",
            got="TRITON_INTERPRET=1, with which it interprets kernels",
            hint="compile in another process, without the variable",
        )
    source = ASTSource(
        fn=function,
        signature={name: pointers[name] for name in launch.buffers},
        attrs={(number,): ALIGNED for number in range(len(launch.buffers))},
    )
    target, tool = GPUTarget("cuda", device.capability, 32), str(knobs.nvidia.cuobjdump.path)

    def compiled(options: Mapping[str, object]) -> Usage:
        made: Any = triton.compile(source, target=target, options=dict(options))
        registers, stack = _resources(made.asm["cubin"], launch.kernel, tool)
        shared, warps = made.metadata.shared, launch.warps
        return Usage(registers=registers, shared_bytes=shared, warps=warps, spilled_bytes=stack)

    found = compiled(options_of(launch))
    return compiled(options_of(launch, found)) if found.spilled_bytes else found


def _resources(cubin: bytes, kernel: str, tool: str) -> tuple[int, int]:
    """Registers of a thread, and bytes of its stack and local memory, where spilled ones are."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        done = subprocess.run(
            [tool, "--dump-resource-usage", str(path)], capture_output=True, text=True, check=False
        )
    found = re.search(
        rf"Function {re.escape(kernel)}:\s*REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)",
        done.stdout,
    )
    if found is None:
        raise RunError(
            need=f"the resources of {kernel} from cuobjdump",
            got=(done.stdout + done.stderr)[:2000],
            hint="install triton as pinned in requirements/dev.txt",
        )
    registers, stack, local = map(int, found.groups())
    return registers, stack + local
