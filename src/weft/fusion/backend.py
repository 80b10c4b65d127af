"""`torch.compile(model, backend="weft")`: Inductor, with regions of the graph compiled by weft.

A pass over the graph that Inductor is about to lower replaces regions by calls of one operator,
`weft::stitched(inputs, key)`, which finds the compiled kernel by its key, in this process or in the
cache folder. Inductor does the rest. A graph that is one region as a whole is run without the
wrapper that Inductor puts around it.
"""

from __future__ import annotations

import logging
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, cast

import torch
from sympy import Symbol
from torch import Tensor, fx
from torch._inductor import config, list_mode_options
from torch._inductor.compile_fx import compile_fx, compile_fx_inner
from torch._inductor.custom_graph_pass import CustomGraphPass
from torch._inductor.fx_passes.post_grad import stable_topological_sort
from torch._ops import OpOverload
from torch.fx.node import map_arg

from weft.core.errors import InputError
from weft.fusion.cache import explained, folder, identity
from weft.fusion.calibrate import calibrated
from weft.fusion.compile import generation
from weft.fusion.cost import Host
from weft.fusion.dynamic import keep_recipe
from weft.fusion.gpu import TritonKernel, compile_for, device_of, key_of, read_triton_kernel
from weft.fusion.kernel import Kernel, compile_region, read_kernel
from weft.fusion.measure import fastest, slower_than_inductor
from weft.fusion.partition import Candidate, candidates, is_view
from weft.fusion.plan import FusionPlan
from weft.fusion.recipe import recipe_of
from weft.fusion.region import Region
from weft.fusion.sizes import at_hand, is_size, sources, unknown
from weft.fusion.surroundings import surroundings
from weft.fusion.tune import tuned, tuned_key
from weft.fusion.worth import Worth, weigh

__all__ = ["Observed", "compile_graph"]

_log = logging.getLogger("weft.fusion")

_kernels: dict[str, Kernel | TritonKernel] = {}

_library = torch.library.Library("weft", "FRAGMENT")
_library.define(
    "stitched(Tensor[] inputs, str key) -> Tensor[]", tags=(torch.Tag.needs_exact_strides,)
)


def _stitched(inputs: Sequence[Tensor], key: str) -> list[Tensor]:
    return _kernel(key)(inputs)


def _stitched_fake(inputs: Sequence[Tensor], key: str) -> list[Tensor]:
    like = inputs[0] if inputs else torch.empty(0)
    return [
        like.new_empty_strided(shape, strides, dtype=dtype)
        for shape, strides, dtype in _kernel(key).made
    ]


for _device in ("CPU", "CUDA"):
    _library.impl("stitched", _stitched, _device)
torch.library.register_fake("weft::stitched", _stitched_fake, lib=_library)


def _kernel(key: str) -> Kernel | TritonKernel:
    """A kernel by its key: the name of its description in the cache folder."""
    if key not in _kernels:
        read = read_triton_kernel if "_sm" in key else read_kernel
        _kernels[key] = read(folder() / f"{key}.json")
    return _kernels[key]


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What the pass saw: a graph, or one of its regions, which follow it in order.

    Attributes:
        order: of a graph, names of operators that are in no region, and numbers of regions where
            they begin.
        region: a region.
        left: why Inductor compiles it; empty if weft does.
        inductor_s: what Inductor was predicted to take, or took; None where nobody asked [s].
    """

    order: tuple[str | int, ...] = ()
    region: Region | None = None
    left: str = ""
    inductor_s: float | None = None


def compile_graph(
    module: fx.GraphModule,
    example_inputs: Sequence[Any],
    *,
    observer: Callable[[Observed], None] = lambda _: None,
    **options: object,
) -> object:
    """The back end, as torch.compile calls it.

    Args:
        module: what Dynamo captured.
        example_inputs: what it was called with.
        observer: told of each region and of what is in none.
        **options: `options={"strict": True}` of torch.compile makes an error of a region that
            cannot be compiled; `{"measure": True}`, as by default on GPUs, times the best plans of
            each region and what Inductor makes of it, and takes the fastest; `{"every_region":
            True}` takes regions as well that gain nothing; the others are Inductor's, as is `mode`.

    Raises:
        InputError: an option that neither has, or of weft's one that is neither True nor False.
    """
    given = _asked(options)
    measure = given.pop("measure", None)
    stitch = Stitch(
        strict=given.pop("strict", False),
        measure=measure,
        every_region=given.pop("every_region", False),
        observer=observer,
    )
    return compile_fx(
        module,
        list(example_inputs),
        inner_compile=_Inner(stitch),
        config_patches={**given, PASS: stitch},
    )


OPTIONS = ("strict", "measure", "every_region")
"""Of weft itself."""


def _asked(options: Mapping[str, object]) -> dict[str, Any]:
    """Options of weft and of Inductor, those that a mode stands for included."""
    asked, mode = options.get("options") or {}, str(options.get("mode") or "default")
    strange = sorted(options.keys() - {"options", "mode"})
    if strange or not isinstance(asked, Mapping) or mode not in list_mode_options():
        raise InputError(
            need=f"a mode ({', '.join(list_mode_options())}) and options by name",
            got=", ".join(strange) or f"mode={mode!r}, options={asked!r}",
            hint='torch.compile(model, backend="weft", options={"strict": True})',
        )
    known = config.get_config_copy()
    named = cast("Mapping[str, object]", asked)
    for name, value in named.items():
        is_own = name in OPTIONS
        if (
            (is_own and not isinstance(value, bool))
            or not (is_own or name in known)
            or name == PASS
        ):
            near = get_close_matches(name, OPTIONS, 1)
            raise InputError(
                need=f"options of weft, True or False ({', '.join(OPTIONS)}), or of"
                f" torch._inductor.config but for {PASS}, which weft is",
                got=f"{name!r}: {value!r}",
                hint=f"did you mean {near[0]!r}?" if near else "see torch.compile's own options",
            )
    return {**list_mode_options(mode), **named}


PASS = "post_grad_custom_pre_pass"


class _Inner:
    """Compiles a graph of forward or backward: whole if it is one region, else by Inductor."""

    def __init__(self, stitch: Stitch) -> None:
        self._stitch = stitch

    def __call__(self, module: fx.GraphModule, inputs: Sequence[Any], **named: Any) -> Any:  # noqa: ANN401
        whole = self._stitch.whole(module)
        return compile_fx_inner(module, inputs, **named) if whole is None else whole


class Stitch(CustomGraphPass):
    """The pass.

    Args:
        strict: whether a region that cannot be compiled is an error.
        measure: whether plans and Inductor's kernels are timed, and the fastest is taken; by
            default on GPUs.
        every_region: whether regions are taken that are predicted to gain nothing.
        observer: told of each region and of what is in none.
    """

    def __init__(
        self,
        *,
        strict: bool,
        measure: bool | None = None,
        every_region: bool = False,
        observer: Callable[[Observed], None] = lambda _: None,
    ) -> None:
        self._strict = strict
        self._measure = measure
        self._every_region = every_region
        self._observer = observer
        self._slower = dict[frozenset[str], Observed]()
        self._warned = set[frozenset[str]]()

    def uuid(self) -> str:
        """Tells versions of the pass apart, for Inductor's caches."""
        options = f"{self._strict} {self._measure} {self._every_region}"
        return f"weft stitch {generation()} {identity()} {options} {torch.get_num_threads()}"

    def __call__(self, graph: fx.Graph) -> None:
        """Replace regions of a graph."""
        module = graph.owning_module
        assert module is not None
        replaced: dict[fx.Node, fx.Node] = {}
        sizes = sources(graph)
        at_hand(graph, sizes)
        found = candidates(module)
        self._observer(Observed(order=_order(graph, found)))
        for candidate in found:
            known = self._slower.get(_names(candidate))
            if known is not None:  # timed before, as a whole graph or in another one of its names
                self._observer(known)
                continue
            inputs = tuple(replaced.get(node, node) for node in candidate.inputs)
            candidate = replace(candidate, inputs=inputs)
            key = self._compiled(candidate)
            call = None if key is None else self._call(candidate, key, sizes)
            if call is not None:
                replaced |= _replace(graph, candidate, call)
        stable_topological_sort(graph)
        graph.eliminate_dead_code()

    def whole(self, module: fx.GraphModule) -> Callable[..., Any] | None:
        """The graph as one kernel, if it is one region."""
        nodes = [node for node in module.graph.nodes if node.op not in ("placeholder", "output")]
        found = [] if unknown(module.graph) else candidates(module)
        if len(found) != 1 or set(found[0].nodes) != set(nodes):
            return None
        self._observer(Observed(order=(0,)))
        key = self._compiled(found[0], is_whole=True)
        return None if key is None else _Whole(module, found[0], _kernel(key))

    def _call(
        self, candidate: Candidate, key: str, sizes: Mapping[Symbol, fx.Node]
    ) -> Callable[[list[fx.Node]], tuple[OpOverload, tuple[Any, ...]]] | None:
        """What is called in place of a region, with which arguments, given its inputs."""
        if not candidate.is_symbolic:
            return lambda inputs: (torch.ops.weft.stitched.default, (inputs, key))
        try:
            recipe, symbols = recipe_of(
                candidate.nodes,
                candidate.inputs,
                candidate.outputs,
                threads=torch.get_num_threads(),
                strict=self._strict,
            )
            told, name = [sizes[symbol] for symbol in symbols], keep_recipe(recipe)
        except Exception as error:  # whatever went wrong, Inductor can do without
            return self._left(candidate, error)
        return lambda inputs: (torch.ops.weft.stitched_for.default, (inputs, told, name))

    def _compiled(self, candidate: Candidate, *, is_whole: bool = False) -> str | None:
        """Key of a region's kernel; None if it has none."""
        try:
            plan: FusionPlan | None = None
            inductor_s: float | None = None
            if candidate.device.type == "cpu" and not self._every_region:
                worth = _worth(candidate, calibrated(torch.get_num_threads(), folder()))
                loss = worth.likeness if is_whole else worth.loss
                plan, inductor_s = worth.plan, worth.inductor_s
                if loss and not self._measures(candidate):
                    self._observer(
                        Observed(region=candidate.region, left=loss, inductor_s=inductor_s)
                    )
                    return None
            key = self._key_of(candidate, plan)
        except Exception as error:  # whatever went wrong, Inductor can do without
            return self._left(candidate, error)
        measured, slower = _kernels[key].description.measured, ""
        if measured:
            is_queued = is_whole or candidate.device.type == "cuda"
            call_s = 0.0 if is_queued else _call_seconds(candidate)
            slower = slower_than_inductor(measured, call_s)
        observed = Observed(region=candidate.region, left=slower, inductor_s=inductor_s)
        if slower:
            self._slower[_names(candidate)] = observed
        self._observer(observed)
        return None if slower else key

    def _measures(self, candidate: Candidate) -> bool:
        """Whether a region is timed; where sizes vary, that would hold at one of them only."""
        by_default = candidate.device.type == "cuda" and not self._every_region
        wanted = by_default if self._measure is None else self._measure
        return wanted and not candidate.is_symbolic

    def _key_of(self, candidate: Candidate, plan: FusionPlan | None) -> str:
        """Key of a region's kernel, for the device that its tensors are on."""
        region, measure = candidate.region, self._measures(candidate)
        if candidate.device.type == "cuda":
            device = device_of(candidate.device)
            key = tuned_key(region, device) if measure else key_of(region, device)
            if key not in _kernels:
                _kernels[key] = (
                    tuned(candidate, device, folder())
                    if measure
                    else compile_for(region, device, folder())
                )
            return key
        threads = torch.get_num_threads()
        key = f"region_{region.digest}_{threads}" + "_measured" * measure
        if key not in _kernels:
            host = calibrated(threads, folder())
            _kernels[key] = (
                fastest(candidate, host, folder())
                if measure
                else compile_region(region, host, folder(), plan)
            )
        return key

    def _left(self, candidate: Candidate, error: Exception) -> None:
        """Say that a region is left to Inductor, and why; strictly, that is an error."""
        why = explained(error)
        what = f"{len(candidate.nodes)} operators from {candidate.nodes[0]} on"
        if self._strict:
            why.add_note(f"weft: strictly, Inductor may not compile {what}")
            raise why
        self._observer(Observed(region=candidate.region, left=str(why)))
        if _names(candidate) not in self._warned:  # tried as a whole graph and as a part of one
            self._warned.add(_names(candidate))
            _log.warning("weft: left to Inductor: %s: %s", what, why)


def _call_seconds(candidate: Candidate) -> float:
    """What it takes to call a region's kernel from Inductor's code [s]."""
    host = calibrated(torch.get_num_threads(), folder())
    tensors, is_hot = candidate.region.num_tensors, surroundings(candidate).is_hot
    return host.calling_ns(tensors, is_hot=is_hot) * 1e-9


_worths: dict[tuple[object, ...], Worth] = {}


def _worth(candidate: Candidate, host: Host) -> Worth:
    """What a region gains; of equal ones once."""
    around = surroundings(candidate)
    key = (candidate.region.digest, around, host)
    if key not in _worths:
        _worths[key] = weigh(candidate.region, host, around)
    return _worths[key]


def _names(candidate: Candidate) -> frozenset[str]:
    """Tells a region from others of a graph, also after Inductor has put its nodes in order."""
    return frozenset(node.name for node in candidate.nodes)


def _order(graph: fx.Graph, found: Sequence[Candidate]) -> tuple[str | int, ...]:
    """Operators outside of regions, and regions where they begin."""
    region_of = {node: n for n, candidate in enumerate(found) for node in candidate.nodes}
    order: dict[str | int, None] = {}
    names: list[str | int] = []
    for node in graph.nodes:
        number = region_of.get(node)
        if number is not None:
            if number not in order:
                order[number] = None
                names.append(number)
        elif node.op == "call_function" and not is_view(node) and not is_size(node):
            names.append(str(node.target))
    return tuple(names)


def _replace(
    graph: fx.Graph,
    candidate: Candidate,
    call_on: Callable[[list[fx.Node]], tuple[OpOverload, tuple[Any, ...]]],
) -> dict[fx.Node, fx.Node]:
    """Put the call of a kernel in place of a region.

    Args:
        graph: which holds it.
        candidate: the region.
        call_on: operator and arguments of the call, given the region's inputs.

    Returns:
        Its outputs, with what has taken their place.
    """
    target, args = call_on(list(candidate.inputs))
    with graph.inserting_after(candidate.nodes[-1]):
        call = graph.call_function(target, args)
    call.meta["val"] = [output.meta["val"] for output in candidate.outputs]
    # What Inductor makes the strides of inputs by; without it, it only keeps their order.
    call.meta["eager_input_vals"] = (map_arg(args, lambda node: node.meta["val"]), {})
    made: dict[fx.Node, fx.Node] = {}
    after = call
    for number, output in enumerate(candidate.outputs):
        with graph.inserting_after(after):
            after = graph.call_function(operator.getitem, (call, number))
        after.meta.update(output.meta)
        output.replace_all_uses_with(after)
        made[output] = after
    for node in reversed(candidate.nodes):
        graph.erase_node(node)
    return made


class _Whole:
    """A graph that is one kernel.

    Args:
        module: the graph.
        candidate: the region that it is.
        kernel: of the region.
    """

    def __init__(
        self, module: fx.GraphModule, candidate: Candidate, kernel: Kernel | TritonKernel
    ) -> None:
        # Of the instance, not of the class: what wraps it copies the instance's attributes.
        self._boxed_call = True
        nodes = list(module.graph.nodes)
        given = {n: at for at, n in enumerate(n for n in nodes if n.op == "placeholder")}
        self._kernel = kernel
        self._taken = [given[node] for node in candidate.inputs]
        made = {node: at for at, node in enumerate(candidate.outputs)}
        (results,) = nodes[-1].args
        self._results: list[tuple[str, Any]] = [
            ("made", made[r]) if r in made else ("given", given[r]) if r in given else ("plain", r)
            for r in results
        ]
        self._is_all = tuple(results) == candidate.outputs

    def __call__(self, inputs: list[Any]) -> list[Any]:
        """Run on inputs, which are taken from the list."""
        made = self._kernel([inputs[at] for at in self._taken])
        if self._is_all:
            inputs.clear()
            return made
        found = [
            made[at] if kind == "made" else inputs[at] if kind == "given" else at
            for kind, at in self._results
        ]
        inputs.clear()
        return found
