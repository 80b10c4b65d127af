"""The paper's models and machines, as far as it says what they are.

T5 of three sizes with layer norms and biases in the MLPs, as its first implementations have,
VGG-19, and a BERT of 48 layers. In a T5 the paper cuts four matrices of each attention, both of
each MLP and the first bias: 7 variables in a layer of the encoder and 11 in one of the decoder.

Source: Auto-MAP (Wang et al. 2020, arXiv 2007.04069), section 5.1 and tables 3 to 6; sizes of T5
from Raffel et al. 2019, arXiv 1910.10683, section 3.7. BERT-48 has 640 M parameters (DAPPLE, Fan
et al. 2020, arXiv 2007.01045, table 2, by the same group): 48 layers of BERT-large's width, and
here a head with a table of its own. What the paper calls T5-base has 51 M parameters and targets of
6 layers on each side, which is T5-small.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import MappingProxyType

from benchmarks.job import ROOT, workload_of
from weft.capture import Workload, capture
from weft.machine import Machine, load_machine
from weft.machine.topology import with_nodes
from weft.program.graph import Program, Role

__all__ = [
    "BATCH",
    "DEVICES",
    "RECIPES",
    "SERVERS",
    "TARGETS",
    "cluster",
    "in_single",
    "of_layers",
    "program_to_run",
    "server",
    "workloads",
]

RECIPES = {
    "T5-base": "t5.py:t5_small_biased",
    "T5-3B": "t5.py:t5_3b_biased",
    "T5-11B": "t5.py:t5_11b_biased",
}
TARGETS = {"T5-base": 111, "T5-3B": 432, "T5-11B": 432}
"""Variables that the paper cuts: 18 for a layer of each side; three more in T5-base, which here are
the table of tokens and the two of biases by distance."""
DEVICES = 8
"""Of the axis: the heads of T5-base do not divide by more."""
SERVERS = {"A": 2, "B": 3, "C": 4}
"""Of the paper's configurations."""
BATCH = 96
"""Samples of a step where throughput is told, which the paper does not say: the fewest that the
devices of all configurations share out evenly."""


def of_layers(program: Program) -> frozenset[int]:
    """Variables of the layers."""
    inputs = (i for i in program.inputs if i.role is Role.PARAMETER)
    return frozenset(i.node for i in inputs if ".layers." in i.name)


@functools.cache
def server() -> Machine:
    """One of the paper's servers."""
    return load_machine(str(Path(__file__).with_name("v100.yaml")))


def cluster(configuration: str) -> Machine:
    """The machine of a configuration, A to C."""
    return with_nodes(server(), SERVERS[configuration])


def workloads() -> Mapping[str, Workload]:
    """Training steps of all models in single precision, which a V100 trained them in."""
    sys.path.insert(0, str(ROOT / "recipes"))
    try:
        bert, t5, vgg = (import_module(name) for name in ("bert", "t5", "vgg"))
    finally:
        sys.path.pop(0)
    config = bert.Config(num_layers=48, width=1024, num_heads=16, hidden=4096, sequence=512)
    found: dict[str, Workload] = {
        "T5-base": t5.t5_small_biased(batch=BATCH),
        "T5-3B": t5.t5_3b_biased(batch=BATCH),
        "T5-11B": t5.t5_11b_biased(batch=BATCH),
        "VGG-19": vgg.vgg19(batch=BATCH),
        "BERT-48": bert.bert("bert_48", config, batch=BATCH),
    }
    return MappingProxyType({n: replace(w, compute_dtype=None) for n, w in found.items()})


@functools.cache
def program_to_run(name: str) -> Program:
    """The captured step of one of the `workloads`."""
    return capture(workloads()[name])


@functools.cache
def in_single(recipe: str) -> Program:
    """The captured step of a workload of recipes/, computed in single precision."""
    return capture(replace(workload_of(recipe), compute_dtype=None))
