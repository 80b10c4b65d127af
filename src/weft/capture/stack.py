"""Stacks of like layers in a module, and cutting them to a smaller depth."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from torch import nn

__all__ = ["Stack", "cut", "find_stack"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """A list of layers: its module path and how many there are."""

    path: str
    depth: int


def find_stack(model: nn.Module, min_depth: int) -> Stack | None:
    """The deepest list of at least `min_depth` layers with equal classes and parameters.

    Whether the layers do the same is for the trace to say.
    """
    found: Stack | None = None
    for path, module in model.named_modules():
        if isinstance(module, nn.ModuleList | nn.Sequential) and len(module) >= min_depth:
            alike = len({_kind(layer) for layer in module}) == 1
            if alike and (found is None or len(module) > found.depth):
                found = Stack(path=path, depth=len(module))
    return found


def _kind(layer: nn.Module) -> Hashable:
    tensors = (*layer.named_parameters(), *layer.named_buffers())
    return type(layer), tuple((name, t.shape, t.dtype, t.requires_grad) for name, t in tensors)


def cut(model: nn.Module, stack: Stack, depth: int) -> None:
    """Drop the layers of a stack from number `depth` on, in place."""
    layers = model.get_submodule(stack.path)
    assert isinstance(layers, nn.ModuleList | nn.Sequential)
    del layers[depth:]
