"""The streaming probe: what the traffic of a graph's inputs and outputs takes by itself."""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from weft.core.errors import RunError

__all__ = ["streaming"]

SOURCE = Path(__file__).with_name("probe.cpp")
FLAGS = ("-O3", "-march=native", "-mprefer-vector-width=512", "-fopenmp", "-shared", "-fPIC")
WORD_BYTES = 8


def streaming(inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Callable[[], list[Tensor]]:
    """A function that reads every input once, and allocates and writes tensors like the outputs.

    It takes as many threads as torch does when it is made, and plain vector loads and stores.

    Args:
        inputs: contiguous.
        outputs: what the graph makes; only their layouts are kept.

    Raises:
        RunError: g++ is missing or refuses the source.
    """
    run, threads = _built(), torch.get_num_threads()
    layouts = [(out.shape, out.stride(), out.dtype) for out in outputs]
    reads, read_words = _pointers(inputs), _words(inputs)
    written = _words(outputs)

    def stream() -> list[Tensor]:
        made = [torch.empty_strided(s, t, dtype=d) for s, t, d in layouts]
        writes = _pointers(made)
        run(reads, read_words, len(inputs), writes, written, len(made), threads)
        return made

    return stream


def _pointers(tensors: Sequence[Tensor]) -> ctypes.Array[ctypes.c_void_p]:
    return (ctypes.c_void_p * len(tensors))(*[t.data_ptr() for t in tensors])


def _words(tensors: Sequence[Tensor]) -> ctypes.Array[ctypes.c_int64]:
    return (ctypes.c_int64 * len(tensors))(*[t.nbytes // WORD_BYTES for t in tensors])


@cache
def _built() -> Callable[..., int]:
    with tempfile.TemporaryDirectory(prefix="weft-bench-") as folder:
        library = Path(folder) / "probe.so"
        command = ["g++", *FLAGS, str(SOURCE), "-o", str(library)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            raise RunError(
                need="g++, which compiles the probe",
                got=str(error),
                hint="install your system's g++ package",
            ) from error
        if done.returncode:
            raise RunError(need=f"{SOURCE.name} to compile", got=done.stderr[:2000])
        # A loaded library needs its file no longer.
        run = ctypes.CDLL(str(library)).probe
    run.restype = ctypes.c_uint64
    return run
