"""Recording what a model factory does to its tensors, without memory for them.

While `Recorder` is active, tensors are made on the meta device and say that they are on the CPU.
Each operator runs there for its shapes, and what it would do to memory is written down: which
storages it reads, writes and makes. So tied parameters, views and replaced data need no rules
of their own. Tensors that hold data from elsewhere (NumPy, a file) stay as they are, and the
record refers to them. `weft.capture.replay` runs the record for real.

A factory may seed generators itself, or keep and restore their states. As recorded draws do not
advance a generator, each leaves a state of its own in it, by which the next draw shows where in
the sequence it stands.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

__all__ = ["Call", "Deferred", "Draw", "Known", "Layout", "Recorder", "Unable", "checksum"]

aten = torch.ops.aten


class Unable(BaseException):
    """The factory does what cannot be put off; the message says what.

    No `Exception`, so that a factory which handles those does not take another way than usual.
    """


@dataclass(frozen=True, slots=True)
class Layout:
    """A tensor as it lies in a recorded storage: `offset` and strides in elements."""

    storage: int
    dtype: torch.dtype
    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int


@dataclass(frozen=True, slots=True)
class Known:
    """A tensor that holds data already, and the checksum that it had when it was read."""

    tensor: Tensor
    checksum: int


@dataclass(frozen=True, slots=True)
class Draw:
    """Random numbers: from which generator, and in which state it is then.

    `state` is the state that the factory set; None where the generator goes on as draw number
    `after` left it.
    """

    generator: torch.Generator
    state: Tensor | None
    after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One operator: `args` hold `Layout` and `Known` in place of tensors.

    Attributes:
        outputs: tensors that it returns, in order.
        reads: storages whose contents it needs.
        writes: storages that it changes or makes.
        draw: None where it draws no random numbers.
        default_dtype: torch's default element type when it was called.
    """

    func: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    outputs: tuple[Layout, ...]
    reads: frozenset[int]
    writes: frozenset[int]
    draw: Draw | None
    default_dtype: torch.dtype


class Deferred(Tensor):
    """A tensor whose values are still to come; it has a shape, and no memory."""

    __torch_function__ = torch._C._disabled_torch_function_impl  # pyright: ignore[reportAssignmentType]

    @staticmethod
    def of(meta: Tensor) -> Tensor:
        """A tensor with the storage and the shape of one on the meta device."""
        return Tensor._make_subclass(
            Deferred, meta, False, dispatch_device=True, device_for_backend_keys=_CPU
        )

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.prim.device.default:
            return _CPU
        raise Unable(f"{func} is called on a tensor without values outside the model factory")

    @property
    def device(self) -> torch.device:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Where it will be."""
        return _CPU

    def data_ptr(self) -> int:
        """There is none, and equal ones would say that tensors are tied."""
        raise Unable("the model factory asks for the address of a tensor")

    def untyped_storage(self) -> torch.UntypedStorage:
        """As for its address: that of the storage would be the same for all."""
        raise Unable("the model factory asks for the memory of a tensor")

    def tolist(self) -> Any:
        """Its values, if they need no random numbers."""
        return [part.tolist() for part in self] if self.dim() else self.item()

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if id(self) not in memo:
            copied = self.detach().clone().requires_grad_(self.requires_grad)
            vars(copied).update(vars(self))
            memo[id(self)] = copied
        return memo[id(self)]

    def __repr__(self) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]
        return f"Deferred({tuple(self.shape)}, {self.dtype})"


_CPU = torch.device("cpu")


_storage_of = Tensor.untyped_storage


class Recorder(TorchDispatchMode):
    """While active, operators are recorded in place of being run.

    Attributes:
        calls: what would have been run, in order.
        sizes: bytes of each storage.
    """

    def __init__(self, evaluate: Callable[[Recorder, Layout], Tensor]) -> None:
        """`evaluate` computes a tensor from the record; it raises `Unable` if it cannot."""
        super().__init__()
        self.calls: list[Call] = []
        self.sizes: list[int] = []
        self.generators = _Generators()
        self._evaluate = evaluate
        self._numbers: dict[int, int] = {}
        # Kept, so that no later storage gets the address of one that is known.
        self._kept: list[torch.UntypedStorage] = []

    def layout(self, tensor: Tensor) -> Layout:
        """How a deferred tensor lies in its storage.

        Raises:
            Unable: no recorded operator made it.
        """
        number = self._numbers.get(_storage_of(tensor)._cdata)
        if number is None:
            raise Unable("a tensor without values comes from elsewhere")
        return Layout(
            number, tensor.dtype, tuple(tensor.shape), tensor.stride(), int(tensor.storage_offset())
        )

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        if func is torch.ops.prim.device.default:
            return _CPU if isinstance(args[0], Deferred) else args[0].device
        tensors = [x for x in tree_flatten((args, given))[0] if isinstance(x, Tensor)]
        draws = torch.Tag.nondeterministic_seeded in func.tags
        known = bool(tensors) and not any(isinstance(t, Deferred) for t in tensors)
        if known and not draws and func.overloadpacket not in _SHAPES_ONLY:
            return func(*args, **given)
        _require_plain(func, tensors, given)
        try:
            return self._recorded(func, args, given, draws=draws)
        except (NotImplementedError, RuntimeError) as error:
            if draws or not tensors or func._schema.is_mutable:
                raise Unable(f"{func} has no shape before it has values: {error}") from error
        try:
            real_args, real_given = tree_map(self._real, (args, given))
        except Unable as error:
            raise Unable(f"{func}: {error}") from error
        return func(*real_args, **real_given)

    def _recorded(self, func: Any, args: Any, kwargs: dict[str, Any], *, draws: bool) -> Any:
        shapes: dict[int, Tensor] = {}
        made = func(*tree_map(_shape_in(shapes), args), **_on_meta(kwargs, shapes, func))
        if not isinstance(made, Tensor | tuple | list):
            raise NotImplementedError(f"it returns {type(made).__name__}")
        if not shapes and not draws and not any(_elements(made)):
            return func(*args, **kwargs)
        changed = _changed(func, args, kwargs)
        if any(not isinstance(tensor, Deferred) for tensor in changed):
            raise Unable(f"{func} changes a tensor that holds data from elsewhere")
        written = {self.layout(tensor) for tensor in changed}
        outputs = tree_map(_wrapped_as({id(v): k for k, v in shapes.items()}, args, kwargs), made)
        fresh = self._number([t for t in tree_flatten(outputs)[0] if isinstance(t, Tensor)])
        if (fresh or written) and func.overloadpacket not in _ALLOCATIONS:
            self._append(func, (args, kwargs), outputs, written, fresh, draws=draws)
        return outputs

    def _append(
        self,
        func: Any,
        given: tuple[Any, dict[str, Any]],
        outputs: Any,
        written: set[Layout],
        fresh: set[int],
        *,
        draws: bool,
    ) -> None:
        args, kwargs = tree_map(self._operand, given)
        operands = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Layout)]
        replaced = func.overloadpacket in _FILLS and all(self._is_whole(w) for w in written)
        sources = operands[1:] if replaced and written else operands
        reads = () if func.overloadpacket in _SHAPES_ONLY else [s.storage for s in sources]
        self.calls.append(
            Call(
                func=func,
                args=args,
                kwargs=kwargs,
                outputs=tuple(
                    self.layout(t) for t in tree_flatten(outputs)[0] if isinstance(t, Tensor)
                ),
                reads=frozenset(reads),
                writes=frozenset({w.storage for w in written} | fresh),
                draw=self.generators.draw(kwargs, len(self.calls)) if draws else None,
                default_dtype=torch.get_default_dtype(),
            )
        )

    def _operand(self, value: Any) -> Any:
        if isinstance(value, Deferred):
            return self.layout(value)
        if isinstance(value, Tensor):
            known = value.detach()
            return Known(known, checksum(known))
        return value

    def _number(self, tensors: list[Tensor]) -> set[int]:
        """Give each storage that is seen for the first time a number; returns those."""
        fresh: set[int] = set()
        for tensor in tensors:
            storage = _storage_of(tensor)
            if storage._cdata not in self._numbers:
                self._numbers[storage._cdata] = len(self.sizes)
                fresh.add(len(self.sizes))
                self.sizes.append(storage.nbytes())
                self._kept.append(storage)
        return fresh

    def _is_whole(self, layout: Layout) -> bool:
        """True if a tensor covers its storage, each byte once."""
        expected, dense = 1, True
        for size, stride in sorted(
            zip(layout.size, layout.stride, strict=True), key=lambda pair: pair[1]
        ):
            dense = dense and (size == 1 or stride == expected)
            expected *= size
        return dense and expected * layout.dtype.itemsize == self.sizes[layout.storage]

    def _real(self, value: Any) -> Any:
        return self._evaluate(self, self.layout(value)) if isinstance(value, Deferred) else value


class _Generators:
    """Where in its sequence of random numbers each draw stands."""

    def __init__(self) -> None:
        self._marks: dict[tuple[int, bytes], int] = {}
        self._found: dict[int, tuple[torch.Generator, Tensor]] = {}

    def draw(self, kwargs: Mapping[str, Any], number: int) -> Draw:
        """Note a draw, call number `number`, and leave its mark in the generator."""
        generator = kwargs.get("generator") or torch.default_generator
        if generator.device.type != "cpu":
            raise Unable(f"random numbers are drawn on {generator.device}")
        state = generator.get_state()
        self._found.setdefault(id(generator), (generator, state))
        after = self._marks.get((id(generator), _content(state)))
        mark = state.clone()
        words = mark[_STATE_WORDS : _STATE_WORDS + 24].view(torch.int64)
        words.copy_(torch.tensor([number + 1, _MARK, _MARK]))
        generator.set_state(mark)
        self._marks[id(generator), _content(mark)] = number
        if after is None:
            return Draw(generator, state, -1)
        return Draw(generator, None, after)

    def restore(self) -> None:
        """Put the generators back into the states in which the first draws found them."""
        for generator, state in self._found.values():
            generator.set_state(state)


_STATE_WORDS = 24
"""Source: CPUGeneratorImplStateLegacy of torch's CPUGeneratorImpl.cpp: the seed, three counters,
then the words of the Mersenne twister, of 32 bits in 64 each."""

_MARK = 0x77656674


def checksum(tensor: Tensor) -> int:
    """CRC-32 of a tensor's values in row-major order."""
    return zlib.crc32(_flat(tensor).numpy().data)


def _content(state: Tensor) -> bytes:
    return state.numpy().tobytes()


def _flat(tensor: Tensor) -> Tensor:
    """The bytes of a tensor."""
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def _elements(made: Any) -> list[int]:
    return [x.numel() for x in tree_flatten(made)[0] if isinstance(x, Tensor)]


def _require_plain(func: Any, tensors: list[Tensor], kwargs: Mapping[str, Any]) -> None:
    """Check that the record can say what an operator does."""
    device = kwargs.get("device")
    if device is not None and torch.device(device).type != "cpu":
        raise Unable(f"the model factory makes tensors on {device}")
    if torch.Tag.inplace_view in func.tags or func.overloadpacket in _REHANGING:
        raise Unable(f"{func} changes what a tensor refers to")
    for tensor in tensors:
        plain = type(tensor) in (Tensor, torch.nn.Parameter, Deferred)
        dense = tensor.layout is torch.strided and not tensor.is_quantized
        if not plain or not dense or tensor.is_conj() or tensor.is_neg():
            raise Unable(f"{func} is called on a tensor of a special kind")
        if tensor.device.type != "cpu":
            raise Unable(f"{func} is called on a tensor on {tensor.device}")


def _shape_in(shapes: dict[int, Tensor]) -> Callable[[Any], Any]:
    """What puts tensors on the meta device in place of tensors; the same for the same one."""

    def shape(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        if id(value) not in shapes:
            if isinstance(value, Deferred):
                empty = torch.empty(0, dtype=value.dtype, device="meta")
                shapes[id(value)] = empty.set_(
                    _storage_of(value), value.storage_offset(), value.shape, value.stride()
                )
            else:
                shapes[id(value)] = torch.empty_strided(
                    value.shape, value.stride(), dtype=value.dtype, device="meta"
                )
        return shapes[id(value)]

    return shape


def _on_meta(kwargs: dict[str, Any], shapes: dict[int, Tensor], func: Any) -> dict[str, Any]:
    given = {key: tree_map(_shape_in(shapes), value) for key, value in kwargs.items()}
    known = {argument.name for argument in func._schema.arguments}
    if "device" in known and (given.get("device") is not None or not shapes):
        given["device"] = torch.device("meta")
    if "pin_memory" in known:
        given["pin_memory"] = False
    return {k: None if isinstance(v, torch.Generator) else v for k, v in given.items()}


def _wrapped_as(given: Mapping[int, int], args: Any, kwargs: Any) -> Callable[[Any], Any]:
    """What turns results on the meta device into deferred tensors; operands stay themselves."""
    operands = {id(x): x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)}

    def wrapped(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return operands[given[id(value)]] if id(value) in given else Deferred.of(value)

    return wrapped


def _changed(func: Any, args: Any, kwargs: Mapping[str, Any]) -> list[Tensor]:
    """Operands that an operator writes into."""
    found: list[Tensor] = []
    for position, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[position] if position < len(args) else kwargs.get(argument.name)
            found += [x for x in tree_flatten(value)[0] if isinstance(x, Tensor)]
    return found


_ALLOCATIONS = frozenset(
    {
        *(aten.empty, aten.empty_like, aten.empty_strided, aten.empty_permuted),
        *(aten.new_empty, aten.new_empty_strided),
    }
)
"""What makes a tensor without saying what is in it."""

_FILLS = frozenset(
    {
        *(aten.normal_, aten.uniform_, aten.random_, aten.exponential_, aten.log_normal_),
        *(aten.cauchy_, aten.geometric_, aten.bernoulli_, aten.zero_, aten.fill_, aten.copy_),
    }
)
"""What replaces all values of its first operand without reading them."""

_SHAPES_ONLY = frozenset(
    {
        *(aten.zeros_like, aten.ones_like, aten.full_like, aten.new_zeros, aten.new_ones),
        *(aten.new_full, aten.rand_like, aten.randn_like, aten.randint_like),
    }
)
"""What reads the shape of its operand and nothing else."""

_REHANGING = frozenset({aten.set_, aten.resize_, aten.resize_as_})
