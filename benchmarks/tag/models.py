"""The models of TAG's experiments, in groups and as sketches.

Source: TAG (arXiv 2302.06126), its experiments: VGG-19, ResNet-101 and Inception-v3 at 224 x 224
with 120 images, a Transformer with 600 lines of 10 words, BERT with 32 texts of 128 words. The
vocabulary of its BERT is 305,220, ten times the usual one; both are here.
"""

from __future__ import annotations

from functools import cache

from benchmarks.job import program_of
from weft.parallel.mcts.groups import Grouping, grouped
from weft.parallel.mcts.sketch import Sketch
from weft.parallel.mcts.sketching import sketched
from weft.parallel.mcts.topologies import KINDS

__all__ = ["RECIPES", "SEEN", "UNSEEN", "grouping_of", "sketch_of"]

RECIPES = {
    "VGG-19": "vgg.py:vgg19_of_120",
    "ResNet-101": "resnet101.py:resnet101",
    "Inception-v3": "inception.py:inception_v3",
    "Transformer": "translator.py:transformer_base",
    "BERT-small": "bert.py:bert_small",
    "BERT-small, 305,220 words": "bert.py:bert_small_wide",
    "BERT-large": "bert.py:bert_large",
    "BERT-large, 305,220 words": "bert.py:bert_large_wide",
}
UNSEEN = ("Inception-v3", "BERT-large")
"""Models that the shipped prior was not trained on."""
SEEN = ("VGG-19", "ResNet-101", "Transformer", "BERT-small", "BERT-small, 305,220 words")
"""Models that it was trained on."""


@cache
def grouping_of(model: str) -> Grouping:
    """A model's step in groups."""
    return grouped(program_of(RECIPES[model]), KINDS)


@cache
def sketch_of(model: str) -> Sketch:
    """A model's step as a sketch."""
    return sketched(grouping_of(model), KINDS)
