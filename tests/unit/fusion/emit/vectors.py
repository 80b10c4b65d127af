"""The headers of generated code, compiled for each kind of register and called."""

from __future__ import annotations

import ctypes
import platform
import subprocess
from pathlib import Path

import numpy as np

import weft
from weft.fusion.compile import HEADERS

__all__ = ["FLAGS", "FUSION", "TARGETS", "built", "call", "reaches"]

FUSION = Path(weft.__file__).parent / "fusion"
FLAGS = (
    *("-std=c++17", "-fopenmp", "-shared", "-fPIC"),
    *("-fno-math-errno", "-fno-trapping-math", "-w"),
)
TARGETS = {
    "native": ("-march=native", "-mprefer-vector-width=512"),
    "avx2": ("-march=x86-64", "-mavx2", "-mfma", "-mf16c"),
    "any": ("-march=x86-64",) if platform.machine() == "x86_64" else (),
}


def reaches(target):
    """Why a target cannot run here, or nothing."""
    if target != "avx2":
        return ""
    if platform.machine() != "x86_64":
        return "AVX2 needs an x86-64 processor"
    known = set(Path("/proc/cpuinfo").read_text().split())
    missing = {"avx2", "fma", "f16c"} - known
    return f"the processor has no {', '.join(sorted(missing))}" if missing else ""


def built(target, path):
    """A library of the kernels in kernels.cpp, behind all headers."""
    texts = [(FUSION / "emit" / name).read_text() for name in HEADERS]
    texts.append((Path(__file__).parent / "kernels.cpp").read_text())
    # -O2 takes two thirds of the time of -O3.
    command = ["g++", "-O2", *FLAGS, *TARGETS[target], "-x", "c++", "-", "-o", str(path)]
    done = subprocess.run(command, input="\n".join(texts), capture_output=True, text=True)
    assert not done.returncode, done.stderr[:2000]
    return ctypes.CDLL(str(path))


def call(library, name, *args):
    """Call a kernel; arrays are given as where they lie."""
    words = [
        ctypes.c_void_p(arg.ctypes.data) if isinstance(arg, np.ndarray) else ctypes.c_int64(arg)
        for arg in args
    ]
    return getattr(library, name)(*words)
