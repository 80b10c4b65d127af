"""The paper's models, as far as it says what they are.

T5 of three sizes with layer norms and biases in the MLPs, as its first implementations have, and
VGG-19. In a T5 the paper cuts four matrices of each attention, both of each MLP and the first bias:
7 variables in a layer of the encoder and 11 in one of the decoder.

Source: Auto-MAP (Wang et al. 2020, arXiv 2007.04069), tables 3 to 5; sizes of T5 from Raffel et al.
2019, arXiv 1910.10683, section 3.7. What the paper calls T5-base has 51 M parameters and targets of
6 layers on each side, which is T5-small.
"""

from __future__ import annotations

from weft.program.graph import Program, Role

__all__ = ["DEVICES", "RECIPES", "TARGETS", "of_layers"]

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


def of_layers(program: Program) -> frozenset[int]:
    """Variables of the layers."""
    inputs = (i for i in program.inputs if i.role is Role.PARAMETER)
    return frozenset(i.node for i in inputs if ".layers." in i.name)
