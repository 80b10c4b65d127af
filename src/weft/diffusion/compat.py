"""The one door to diffusers: hooks on denoisers and on their blocks.

diffusers has no public interface for caches of others' making; what is used of its private one is
here and nowhere else, and was read in 0.42.1.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from weft.core.errors import InputError

try:
    from diffusers.hooks import HookRegistry, ModelHook
    from diffusers.hooks._common import _ALL_TRANSFORMER_BLOCK_IDENTIFIERS
    from diffusers.hooks._helpers import TransformerBlockMetadata, TransformerBlockRegistry
    from diffusers.hooks.group_offloading import _is_group_offload_enabled
    from diffusers.hooks.hooks import BaseState, CacheContext, StateManager
except ImportError as error:
    raise InputError(
        need="diffusers 0.42 or a later one with the same hooks",
        got=str(error),
        hint="pip install 'weft[diffusion]'",
    ) from error

__all__ = [
    "Block",
    "BlockCall",
    "Call",
    "attach",
    "blocks_of",
    "detach",
    "is_attached",
    "is_offloaded",
    "owner_of",
]

ROOT, BLOCK = "weft_denoise", "weft_denoise_block"
Function = Callable[..., Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call of a denoiser by its pipeline.

    Attributes:
        branch: name of the pipeline's context: "cond", "uncond" or "cond_uncond".
        step: number of the step, where the pipeline tells it.
        run: computes.
        args, kwargs: of the denoiser.
    """

    branch: str
    step: int | None
    run: Function
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class BlockCall:
    """A call of a block: what it takes and how it answers.

    Args:
        layout: where its streams are.
        run: computes.
        args, kwargs: of the block.
    """

    def __init__(
        self,
        layout: TransformerBlockMetadata,
        run: Function,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        self._layout, self._run, self._args, self._kwargs = layout, run, args, kwargs

    def run(self) -> Any:
        """Compute."""
        return self._run(*self._args, **self._kwargs)

    @property
    def given(self) -> tuple[Tensor, ...]:
        """The streams that a block reads and writes: of the video, and of the text if it does."""
        layout = self._layout
        names = [layout.hidden_states_argument_name]
        if layout.return_encoder_hidden_states_index is not None:
            names.append(layout.encoder_hidden_states_argument_name)
        return tuple(
            layout._get_parameter_from_args_kwargs(name, self._args, self._kwargs) for name in names
        )

    def streams(self, made: Any) -> tuple[Tensor, ...]:
        """The same of what a block returned."""
        if isinstance(made, Tensor):
            return (made,)
        layout = self._layout
        indices = (layout.return_hidden_states_index, layout.return_encoder_hidden_states_index)
        return tuple(made[index] for index in indices if index is not None)

    def answer(self, streams: tuple[Tensor, ...]) -> Any:
        """What a block returns, of streams."""
        if len(streams) == 1:
            return streams[0]
        video, text = (
            self._layout.return_hidden_states_index,
            self._layout.return_encoder_hidden_states_index,
        )
        return tuple(streams[0] if n == video else streams[1] for n in sorted((video, text)))


class Block(Protocol):
    """What is asked at each block of a denoiser."""

    def __call__(self, number: int, call: BlockCall) -> Any:
        """What the block answers."""
        ...


def blocks_of(denoiser: nn.Module) -> list[nn.Module]:
    """The blocks of a denoiser, over all lists of them, in order."""
    return [
        block
        for name, part in denoiser.named_children()
        if name in _ALL_TRANSFORMER_BLOCK_IDENTIFIERS and isinstance(part, nn.ModuleList)
        for block in part
    ]


def attach(
    denoiser: nn.Module,
    *,
    call: Callable[[Call], Any] | None,
    block: Block,
    finish: Callable[[], None],
    owner: object,
    compiler: Callable[[Function], Function] | None = None,
) -> None:
    """Put hooks on a denoiser and its blocks.

    Args:
        denoiser: a transformer of diffusers'.
        call: asked at each call by a pipeline; None for a model that no pipeline calls.
        block: asked at each block.
        finish: told when a pipeline has come to its end.
        owner: what `owner_of` finds.
        compiler: of what a block computes, below the hooks, so that they are not traced; None to
            leave blocks as they are.

    Raises:
        InputError: it cannot have hooks as it is, or has others that they would get in the way of.
    """
    _require_plain(denoiser)
    layouts = [_layout(block_module) for block_module in blocks_of(denoiser)]
    registry = HookRegistry.check_if_exists_or_initialize(denoiser)
    if call is not None:
        with _below_offloading(denoiser):
            registry.register_hook(_Root(call, finish, owner), ROOT)
    for number, (module, layout) in enumerate(zip(blocks_of(denoiser), layouts, strict=True)):
        own = HookRegistry.check_if_exists_or_initialize(module)
        with _below_offloading(module):
            own.register_hook(_Block(number, layout, block, compiler), BLOCK)
    registry.invalidate_child_registries_cache()


def detach(denoiser: nn.Module) -> None:
    """Take the hooks away again."""
    registry = HookRegistry.check_if_exists_or_initialize(denoiser)
    for module in _parts(denoiser):
        own = HookRegistry.check_if_exists_or_initialize(module)
        with _below_offloading(module):
            own.remove_hook(BLOCK, recurse=False)
            own.remove_hook(ROOT, recurse=False)
    registry.invalidate_child_registries_cache()
    for module in _parts(denoiser):
        if not module._diffusers_hook.hooks:
            del module._diffusers_hook
            # Only where it is the class's own: others may have put one there, too.
            if getattr(module.__dict__.get("forward"), "__func__", None) is type(module).forward:
                del module.forward


@contextmanager
def _below_offloading(module: Any) -> Generator[None]:
    """Change a module's forward below the one that offloading by accelerate put in front of it.

    Offloading takes its own away after each run, which is what was there when it came, and puts it
    in front of that again: what was put in front of it would be lost.
    """
    if not hasattr(module, "_hf_hook") or "_old_forward" not in vars(module):
        yield
        return
    outer, module.forward = module.forward, module._old_forward
    try:
        yield
    finally:
        module._old_forward, module.forward = module.forward, outer


def is_offloaded(denoiser: nn.Module) -> bool:
    """Whether diffusers moves a denoiser, or parts of it, between devices on its own."""
    return hasattr(denoiser, "_hf_hook") or _is_group_offload_enabled(denoiser)


def is_attached(denoiser: nn.Module) -> bool:
    """Whether hooks of ours are on a denoiser."""
    registries = [getattr(module, "_diffusers_hook", None) for module in _parts(denoiser)]
    return any(r is not None and (ROOT in r.hooks or BLOCK in r.hooks) for r in registries)


def owner_of(denoiser: nn.Module) -> object:
    """Who the hooks on a denoiser that pipelines call belong to; None without any."""
    registry = getattr(denoiser, "_diffusers_hook", None)
    hook = registry.get_hook(ROOT) if isinstance(registry, HookRegistry) else None
    return hook.owner if isinstance(hook, _Root) else None


def _parts(denoiser: nn.Module) -> list[Any]:
    return [denoiser, *blocks_of(denoiser)]


def _require_plain(denoiser: nn.Module) -> None:
    name = type(denoiser).__name__
    if not hasattr(denoiser, "cache_context"):
        raise InputError(
            need="a denoiser of diffusers' with cache_context, which tells its outputs apart",
            got=name,
            hint="compile the blocks instead of the whole denoiser:"
            " weft.diffusion.accelerate(pipe, compile_blocks=True)"
            if isinstance(denoiser, torch._dynamo.OptimizedModule)
            else "see weft.diffusion.FAMILIES for pipelines whose denoisers have it",
        )
    if getattr(denoiser, "_compiled_call_impl", None) is not None:
        raise InputError(
            need="a denoiser that is not compiled as a whole, so that steps can be left out of it",
            got=f"{name}, compiled",
            hint="build the pipeline anew and let weft compile the blocks:"
            " weft.diffusion.accelerate(pipe, compile_blocks=True)",
        )
    if getattr(denoiser, "is_cache_enabled", False):
        raise InputError(
            need="a denoiser without another cache",
            got=f"{name} with {type(denoiser._cache_config).__name__}",
            hint="call disable_cache() on it first",
        )


def _layout(block: nn.Module) -> TransformerBlockMetadata:
    try:
        return TransformerBlockRegistry.get(type(block))
    except ValueError as error:
        raise InputError(
            need="blocks of which diffusers knows what they take and return",
            got=type(block).__name__,
            hint="register them with diffusers.hooks._helpers.TransformerBlockRegistry",
        ) from error


class _NoState(BaseState):
    def reset(self, *args: object, **kwargs: object) -> None: ...


def _below(hook: ModelHook) -> Function:
    """What a hook is put in front of."""
    run = hook.fn_ref.original_forward
    assert run is not None, "set when a hook with new_forward is registered"
    return run


class _Root(ModelHook):
    """Hands each call to whoever decides."""

    _is_stateful = True

    def __init__(
        self, call: Callable[[Call], Any], finish: Callable[[], None], owner: object
    ) -> None:
        super().__init__()
        self._call, self._finish, self.owner = call, finish, owner
        # diffusers sets the context on such attributes. It declares a state where it takes a class.
        self.states = StateManager(cast("Any", _NoState))

    @torch.compiler.disable
    def new_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        run, context = _below(self), self.states._context
        if not isinstance(context, CacheContext):  # not called by a pipeline's loop
            return run(*args, **kwargs)
        return self._call(
            Call(branch=context.name, step=context.step_index, run=run, args=args, kwargs=kwargs)
        )

    def reset_state(self, module: nn.Module) -> nn.Module:
        self.states.reset()
        self._finish()
        return module


class _Block(ModelHook):
    """Hands each call of a block to whoever decides."""

    def __init__(
        self,
        number: int,
        layout: TransformerBlockMetadata,
        block: Block,
        compiler: Callable[[Function], Function] | None,
    ) -> None:
        super().__init__()
        self._number, self._layout, self._block = number, layout, block
        self._compiler = compiler
        self._compiled: Function | None = None

    @torch.compiler.disable
    def new_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        run = _below(self)
        if self._compiler is not None:
            self._compiled = self._compiled or self._compiler(run)
            run = self._compiled
        return self._block(self._number, BlockCall(self._layout, run, args, kwargs))
