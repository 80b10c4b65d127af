"""Regions whose sizes are not known when a graph is compiled: a kernel for each set of sizes.

In the graph such a region is a call of `weft::stitched_for(inputs, sizes, key)`. The key names its
recipe, in this process or in the cache folder. At run time the kernel for the sizes at hand is
looked up, or compiled, which takes a fraction of a second and is kept for other processes.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, fx

from weft.capture.region import Like, program_of_nodes
from weft.core.errors import InputError
from weft.fusion.cache import explained, folder
from weft.fusion.calibrate import calibrated
from weft.fusion.compile import put
from weft.fusion.kernel import compile_region
from weft.fusion.recipe import Recipe, graph_of
from weft.fusion.region import Region
from weft.fusion.sizes import evaluate

__all__ = ["MOST_KERNELS", "Flexible", "keep_recipe"]

_log = logging.getLogger("weft.fusion")

_regions: dict[str, Flexible] = {}

_library = torch.library.Library("weft", "FRAGMENT")
_library.define(
    "stitched_for(Tensor[] inputs, SymInt[] sizes, str key) -> Tensor[]",
    tags=(torch.Tag.needs_exact_strides,),
)

MOST_KERNELS = 16
"""Sets of sizes for which a region is compiled in a process. Derived: each takes about as long as
half a second of running it; for more of them Inductor's one kernel for all sizes is the better."""

Run: TypeAlias = Callable[[Sequence[Tensor]], list[Tensor]]


class Flexible:
    """A region that runs at all sizes.

    Args:
        recipe: its operators.
        kept_in: the folder of kernels.
    """

    def __init__(self, recipe: Recipe, kept_in: Path) -> None:
        self.recipe = recipe
        self._folder = kept_in
        self._ready: dict[Hashable, Run] = {}
        self._num_compiled = 0
        self._lock = threading.RLock()
        self._general: Callable[..., Sequence[Tensor]] | None = None

    def __call__(self, inputs: Sequence[Tensor], sizes: Sequence[int]) -> list[Tensor]:
        """The outputs of the region.

        Args:
            inputs: tensors of any sizes.
            sizes: that the recipe wants to be told.

        Raises:
            WeftError: it cannot be compiled for these sizes, and strictness was asked for.
            IndexError: an index was outside of what it looks up.
        """
        lie = (*sizes, *((t.shape, t.stride()) for t in inputs))
        run = self._ready.get(lie)
        return (self._prepared(lie, inputs, sizes) if run is None else run)(inputs)

    def layouts(self, sizes: Sequence[Any]) -> list[tuple[tuple[Any, ...], tuple[Any, ...]]]:
        """Shapes and strides of outputs; symbols if the sizes are symbols."""
        return [
            (
                tuple(evaluate(size, sizes) for size in made.shape),
                tuple(evaluate(size, sizes) for size in made.strides),
            )
            for made in self.recipe.outputs
        ]

    def _prepared(self, lie: Hashable, inputs: Sequence[Tensor], sizes: Sequence[int]) -> Run:
        """What runs the region at these sizes."""
        with self._lock:  # others want the same kernel, most likely
            if lie in self._ready:
                return self._ready[lie]
            if any(tensor.numel() == 0 for tensor in inputs):
                self._ready[lie] = self._eager(sizes)
                return self._ready[lie]
            if self._num_compiled >= MOST_KERNELS:
                return partial(self._generally, sizes=sizes)
            self._num_compiled += 1
            self._ready[lie] = self._compiled(inputs, sizes)
            return self._ready[lie]

    def _compiled(self, inputs: Sequence[Tensor], sizes: Sequence[int]) -> Run:
        try:
            region = self._region(inputs, sizes)
            if any(node.outputs[0].num_elements == 0 for node in region.program.nodes):
                return self._eager(sizes)
            host = calibrated(self.recipe.threads, self._folder)
            return compile_region(region, host, self._folder)
        except Exception as error:  # whatever went wrong, torch can do without
            return self._refused(explained(error), inputs, sizes)

    def _refused(self, why: Exception, inputs: Sequence[Tensor], sizes: Sequence[int]) -> Run:
        if self.recipe.strict:
            raise why
        _log.warning(
            "weft: run by torch, operator by operator: %d operators from %s on, for inputs of "
            "shape %s: %s",
            len(self.recipe.steps),
            self.recipe.steps[0].target,
            ", ".join(str(tuple(tensor.shape)) for tensor in inputs),
            why,
        )
        return self._eager(sizes)

    def _region(self, inputs: Sequence[Tensor], sizes: Sequence[int]) -> Region:
        graph = graph_of(self.recipe, sizes)
        given = [node for node in graph.nodes if node.op == "placeholder"]
        nodes = [node for node in graph.nodes if node.op == "call_function"]
        results = cast("tuple[fx.Node, ...]", graph.output_node().args[0])
        likes = {
            node: Like(shape=tuple(t.shape), strides=t.stride(), dtype=t.dtype)
            for node, t in zip(given, inputs, strict=True)
        }
        program, values = program_of_nodes(nodes, likes, results, "region")
        return Region(
            program=program,
            outputs=values,
            input_strides=tuple(like.strides for like in likes.values()),
            output_strides=tuple(strides for _, strides in self.layouts(sizes)),
        )

    def _eager(self, sizes: Sequence[int]) -> Run:
        """Runs operator by operator: for sizes at which there is no kernel."""
        module = _module(graph_of(self.recipe, sizes))

        def run(inputs: Sequence[Tensor]) -> list[Tensor]:
            with torch.no_grad():
                return self._laid_out(module(*inputs), inputs, sizes)

        return run

    def _generally(self, inputs: Sequence[Tensor], sizes: Sequence[int]) -> list[Tensor]:
        """By Inductor, one kernel for all sizes: where there are too many sets of them."""
        if self._general is None:
            _log.warning(
                "weft: a region of %d operators from %s on was compiled for %d sets of sizes; from "
                "now on Inductor runs it at all others",
                len(self.recipe.steps),
                self.recipe.steps[0].target,
                MOST_KERNELS,
            )
            self._general = torch.compile(_module(graph_of(self.recipe)), dynamic=True)
        with torch.no_grad():
            return self._laid_out(self._general(*inputs, *sizes), inputs, sizes)

    def _laid_out(
        self, made: Sequence[Tensor], inputs: Sequence[Tensor], sizes: Sequence[int]
    ) -> list[Tensor]:
        """Outputs as the graph expects them: each in memory of its own, with its strides."""
        taken = {tensor.untyped_storage().data_ptr() for tensor in inputs}
        found: list[Tensor] = []
        for tensor, (shape, strides) in zip(made, self.layouts(sizes), strict=True):
            own = tensor.untyped_storage().data_ptr()
            if tensor.stride() != strides or own in taken:
                tensor = torch.empty_strided(shape, strides, dtype=tensor.dtype).copy_(tensor)
            taken.add(own)
            found.append(tensor)
        return found


def _stitched_for(inputs: Sequence[Tensor], sizes: Sequence[int], key: str) -> list[Tensor]:
    return _region(key)(inputs, sizes)


def _stitched_for_fake(inputs: Sequence[Tensor], sizes: Sequence[Any], key: str) -> list[Tensor]:
    region = _region(key)
    return [
        inputs[0].new_empty_strided(shape, strides, dtype=getattr(torch, made.dtype))
        for made, (shape, strides) in zip(region.recipe.outputs, region.layouts(sizes), strict=True)
    ]


_library.impl("stitched_for", _stitched_for, "CPU")
torch.library.register_fake("weft::stitched_for", _stitched_for_fake, lib=_library)


def _region(key: str) -> Flexible:
    """A region by its key: the name of its recipe in the cache folder."""
    if key not in _regions:
        _regions[key] = Flexible(_read(folder() / f"{key}.json"), folder())
    return _regions[key]


def _module(graph: fx.Graph) -> fx.GraphModule:
    return fx.GraphModule(torch.nn.Module(), graph)


def keep_recipe(recipe: Recipe) -> str:
    """Write a recipe where other processes find it; returns its key."""
    key = f"recipe_{recipe.digest}"
    path = folder() / f"{key}.json"
    if not path.exists():
        put(path, recipe.to_json())
    return key


def _read(path: Path) -> Recipe:
    try:
        return Recipe.from_json(path.read_text())
    except OSError as error:
        raise InputError(
            need="the recipe of a region",
            got=f"{path}: {error}",
            hint="delete Inductor's cache, and the function is compiled anew",
        ) from error
