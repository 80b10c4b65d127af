"""The tensors of a module by name, and running a module with other tensors in their place.

A module holds tensors in three ways: parameters, registered buffers, and plain attributes
(a table of angles, say). All three can be read by a forward, so all three are inputs of a
step. A tensor that is reachable under several names (tied weights) is one input, under the
name that comes first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

__all__ = ["ModuleTensors", "module_tensors"]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a module holds a tensor: a dictionary of the module, its key, the tensor's name."""

    holder: dict[str, Any]
    key: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleTensors:
    """Tensors of a module.

    Attributes:
        trainable: parameters that require a gradient, by name, in the module's order.
        fixed: everything else, by name: buffers, frozen parameters, plain attributes.
        places: where they are held; tied tensors have several places.
    """

    trainable: dict[str, Tensor]
    fixed: dict[str, Tensor]
    places: tuple[_Place, ...]

    @contextmanager
    def replaced(self, values: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
        """Run with other tensors in the module's places.

        Yields:
            A dictionary that holds, after the block, the tensors that the block put into the
            module's places instead of the given ones, by name.
        """
        assigned: dict[str, Tensor] = {}
        originals = [place.holder[place.key] for place in self.places]
        for place in self.places:
            place.holder[place.key] = values[place.name]
        try:
            yield assigned
        finally:
            for place, original in zip(self.places, originals, strict=True):
                now = place.holder.get(place.key)
                if isinstance(now, Tensor) and now is not values[place.name]:
                    assigned.setdefault(place.name, now)
                place.holder[place.key] = original


def module_tensors(model: nn.Module) -> ModuleTensors:
    """Find the tensors of a module: parameters first, then buffers, then plain attributes."""
    names: dict[int, str] = {}
    trainable: dict[str, Tensor] = {}
    fixed: dict[str, Tensor] = {}
    places: list[_Place] = []
    for holder, key, name in _walk(model):
        tensor: Tensor = holder[key]
        if id(tensor) not in names:
            names[id(tensor)] = name
            trains = isinstance(tensor, nn.Parameter) and tensor.requires_grad
            (trainable if trains else fixed)[name] = tensor
        places.append(_Place(holder, key, names[id(tensor)]))
    return ModuleTensors(trainable=trainable, fixed=fixed, places=tuple(places))


def _walk(model: nn.Module) -> Iterator[tuple[dict[str, Any], str, str]]:
    modules = tuple(model.named_modules())
    for kind in ("_parameters", "_buffers", ""):
        for path, module in modules:
            # A plain attribute lies in the module's own dictionary, next to the two registries.
            holder: dict[str, Any] = getattr(module, kind) if kind else module.__dict__
            for key, value in tuple(holder.items()):
                if isinstance(value, Tensor):
                    yield holder, key, f"{path}.{key}" if path else key
