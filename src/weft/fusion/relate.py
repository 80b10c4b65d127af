"""The relations between the dims of a region's values: its operators as instances.

An instance is one computation of one value. Most values have one. Inputs, and views of them, have
one for each reader: each reads memory in its own way, so `x + x.t()` relates nothing. Where a
relation is a misfit, the operand is written to memory whole, and read again in a way of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from weft.fusion.index import Dims, Misfit
from weft.fusion.region import Region, Strides
from weft.program.graph import Arg, Node, Value
from weft.program.operators import Kind, operator
from weft.program.random import row_major_strides
from weft.program.types import DType

__all__ = ["Instance", "Relations", "Source", "relate"]


@dataclass(frozen=True, slots=True)
class Source:
    """What an instance reads from memory: an input, or a value that is written whole before.

    Attributes:
        value: which.
        strides: of the instance's dims, in elements.
        offset: of its first element.
        is_written: whether it is read from where it was written whole, as an input may be, too.
    """

    value: Value
    strides: Strides
    offset: int = 0
    is_written: bool = False


@dataclass(eq=False, slots=True, kw_only=True)
class Instance:
    """One computation of one value.

    Attributes:
        value: which.
        node: what computes it.
        dims: of the value.
        shape, dtype: of the value.
        operands: instances that it reads, in the order of the node's operands.
        source: set if it is read from memory.
    """

    value: Value
    node: Node
    dims: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: DType
    operands: tuple[Instance, ...] = ()
    source: Source | None = None


@dataclass(frozen=True, kw_only=True)
class Relations:
    """Solved relations.

    Attributes:
        dims: which loops walk which dims.
        outputs: an instance of each output of the region.
        written: values that are written to memory whole in between, with an instance of each.
    """

    dims: Dims
    outputs: tuple[Instance, ...]
    written: Mapping[Value, Instance]


def relate(region: Region) -> Relations:
    """Solve the relations of a region."""
    apart = frozenset[int]()
    while True:
        relator = _Relator(region, apart)
        relator.run()
        if not relator.crosses:
            break
        # Rare: find who made loops cross, and have it read from memory.
        slow = _Relator(region, apart)
        apart |= {slow.run(until_crossed=True)}
    relator.walk_together()
    outputs = tuple(relator.instance(value) for value in region.outputs)
    return Relations(dims=relator.dims, outputs=outputs, written=MappingProxyType(relator.written))


class _Relator:
    """Makes instances node by node.

    Args:
        region: what to relate.
        apart: nodes that read all their operands from memory.
    """

    def __init__(self, region: Region, apart: frozenset[int] = frozenset()) -> None:
        self.dims = Dims()
        self.written: dict[Value, Instance] = {}
        self._region = region
        self._program = region.program
        self._apart = apart
        self._strides = dict(
            zip((i.node for i in self._program.inputs), region.input_strides, strict=True)
        )
        self._known: dict[Value, Instance] = {}
        self._made: list[Instance] = []

    def run(self, until_crossed: bool = False) -> int:
        """Make an instance of every value that is not made anew for each reader.

        Args:
            until_crossed: whether to stop after the first node whose relations make loops cross.

        Returns:
            The last node that was looked at.
        """
        number = -1
        for number, node in enumerate(self._program.nodes):
            value = Value(number)
            if not self._is_remade(value):
                self._known[value] = self._compute(number, node)
                if until_crossed and self.crosses:
                    assert number not in self._apart, "loops that cross in memory"
                    break
        return number

    def walk_together(self) -> None:
        """Have loops be the same where nothing asks for it but fewer passes over memory.

        Readers of one input walk it in the same loops, and so do outputs of equal shape that have
        something in common, as long as no loops cross.
        """
        first: dict[tuple[Value, tuple[int, ...]], Instance] = {}
        for instance in list(self._made):
            if instance.source is not None:
                other = first.setdefault((instance.source.value, instance.shape), instance)
                self._try_same(other, instance)
        outputs: dict[tuple[int, ...], Instance] = {}
        for value in self._region.outputs:
            instance = self._known.get(value)
            if instance is not None:
                other = outputs.setdefault(instance.shape, instance)
                if self._axes(other) & self._axes(instance):
                    self._try_same(other, instance)

    def _axes(self, instance: Instance) -> set[int]:
        parts = (part for dim in instance.dims for part in self.dims.parts(dim))
        return {axis for part in parts for axis, _ in part.axes}

    def _try_same(self, one: Instance, other: Instance) -> None:
        if one is other:
            return
        try:
            with self.dims.attempt():
                for a, b in zip(one.dims, other.dims, strict=True):
                    self.dims.unify(a, b)
                if self.crosses:
                    raise Misfit("loops that cross")
        except Misfit:
            return

    @property
    def crosses(self) -> bool:
        """Whether two dims of a value are walked by the same loop, such as x and x.t() at once."""
        for instance in self._made:
            for box in self.dims.boxes(instance.dims):
                axes = [axis for part in box for axis, _ in part.axes]
                if len(set(axes)) < len(axes):
                    return True
        return False

    def instance(self, value: Value) -> Instance:
        """An instance to read a value from."""
        if value in self._known:
            return self._known[value]
        node = self._program.nodes[value.node]
        return self._load(value) if node.op == "input" else self._compute(value.node, node)

    def _is_remade(self, value: Value) -> bool:
        """Whether each reader has an instance of its own: inputs and views of them."""
        node = self._program.nodes[value.node]
        if node.op == "input":
            return True
        views = operator(node.op).kind is Kind.VIEW or node.op == "slice"
        return views and self._is_remade(self._program.operands(value.node)[0])

    def _new(self, value: Value, shape: Sequence[int], source: Source | None = None) -> Instance:
        made = Instance(
            value=value,
            node=self._program.nodes[value.node],
            dims=tuple(map(self.dims.new, shape)),
            shape=tuple(shape),
            dtype=self._program.type_of(value).dtype,
            source=source,
        )
        self._made.append(made)
        return made

    def _load(self, value: Value) -> Instance:
        shape = self._program.type_of(value).shape
        return self._new(value, shape, Source(value, self._strides[value.node]))

    def _reload(self, value: Value, shape: tuple[int, ...] | None = None) -> Instance:
        """A value read from memory, in a way of its own; as another shape if one is given."""
        own = self._program.type_of(value).shape if shape is None else shape
        node = self._program.nodes[value.node]
        if node.op == "input" and shape is None:
            return self._load(value)
        if node.op == "view":
            operand = self.instance(self._program.operands(value.node)[0])
            source = operand.source
            if source is not None and source.strides == row_major_strides(operand.shape):
                rows = row_major_strides(own)
                return self._new(value, own, replace(source, strides=rows))
        self.written.setdefault(value, self.instance(value))
        return self._new(value, own, Source(value, row_major_strides(own), is_written=True))

    def _compute(self, number: int, node: Node) -> Instance:
        value = Value(number)
        operands = [self.instance(operand) for operand in self._program.operands(number)]
        if number in self._apart and operands:
            operands = [self._reload(operand.value) for operand in operands]
        made = self._new(value, self._program.type_of(value).shape)
        relation = _RELATIONS.get(node.op, _elementwise)
        for position, operand in enumerate(operands):
            try:
                with self.dims.attempt():
                    relation(self.dims, node.args, made, operand, position)
            except Misfit:
                if node.op == "view":
                    return self._as_view(operand, made)
                if node.op == "slice":
                    return self._as_slice(operand, made)
                operands[position] = own = self._reload(operand.value)
                relation(self.dims, node.args, made, own, position)
        if node.op == "cat":
            self._join(made, operands, node.args)
        made.operands = tuple(operands)
        return made

    def _as_view(self, operand: Instance, made: Instance) -> Instance:
        """A view that loops cannot follow: of a tensor in memory it is one for nothing."""
        source = operand.source
        if source is not None and source.strides == row_major_strides(operand.shape):
            rows = row_major_strides(made.shape)
            return self._new(made.value, made.shape, replace(source, strides=rows))
        reloaded = self._reload(operand.value, made.shape)
        reloaded.value = made.value
        return reloaded

    def _as_slice(self, operand: Instance, made: Instance) -> Instance:
        """A slice that loops cannot follow: of a tensor in memory it is an address."""
        own = operand if operand.source is not None else self._reload(operand.value)
        assert own.source is not None
        dim, start, step = slice_arguments(made.node.args)
        strides = own.source.strides
        offset = own.source.offset + start * strides[dim]
        strides = (*strides[:dim], step * strides[dim], *strides[dim + 1 :])
        return self._new(
            made.value, made.shape, replace(own.source, strides=strides, offset=offset)
        )

    def _join(self, made: Instance, operands: list[Instance], args: tuple[Arg, ...]) -> None:
        """Have the joined dim of a concatenation consist of those of its operands."""
        dim = joined_dim(args)
        row = self.dims.row([operand.dims[dim] for operand in operands])
        try:
            with self.dims.attempt():
                self.dims.unify(made.dims[dim], row)
        except Misfit:
            for position, operand in enumerate(operands):
                operands[position] = own = self._reload(operand.value)
                _same_but(self.dims, made, own, dim)
            row = self.dims.row([operand.dims[dim] for operand in operands])
            self.dims.unify(made.dims[dim], row)


_Relation = Callable[[Dims, tuple[Arg, ...], Instance, Instance, int], None]


def _elementwise(
    dims: Dims, args: tuple[Arg, ...], made: Instance, operand: Instance, position: int
) -> None:
    """Equal dims, counted from the right, but for those of size 1."""
    for out, own, size in zip(
        reversed(made.dims), reversed(operand.dims), reversed(operand.shape), strict=False
    ):
        if size != 1:
            dims.unify(out, own)


def _same_but(dims: Dims, made: Instance, operand: Instance, dim: int) -> None:
    for number, (out, own) in enumerate(zip(made.dims, operand.dims, strict=True)):
        if number != dim:
            dims.unify(out, own)


def _view(
    dims: Dims, args: tuple[Arg, ...], made: Instance, operand: Instance, position: int
) -> None:
    for ours, theirs in matching_groups(made.shape, operand.shape):
        dims.unify(
            dims.product([made.dims[d] for d in ours]),
            dims.product([operand.dims[d] for d in theirs]),
        )


def matching_groups(
    first: Sequence[int], second: Sequence[int]
) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Consecutive dims of two shapes of as many elements that have equal products.

    Example:
        >>> matching_groups((2, 12), (2, 3, 4))
        [((0,), (0,)), ((1,), (1, 2))]
    """
    groups: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    i = j = 0
    while i < len(first) or j < len(second):
        ours, theirs = list[int](), list[int]()
        a = b = 1
        while (not ours and not theirs) or a != b:
            if i < len(first) and (a <= b or j == len(second)):
                ours.append(i)
                a *= first[i]
                i += 1
            else:
                theirs.append(j)
                b *= second[j]
                j += 1
        groups.append((tuple(ours), tuple(theirs)))
    return groups


def _permute(
    dims: Dims, args: tuple[Arg, ...], made: Instance, operand: Instance, position: int
) -> None:
    order = args[1]
    assert isinstance(order, tuple)
    for out, source in zip(made.dims, order, strict=True):
        assert isinstance(source, int)
        dims.unify(out, operand.dims[source])


def _slice(
    dims: Dims, args: tuple[Arg, ...], made: Instance, operand: Instance, position: int
) -> None:
    dim, start, step = slice_arguments(args)
    _same_but(dims, made, operand, dim)
    size, own = made.shape[dim], operand.shape[dim]
    if step == 1:
        _cut(dims, operand.dims[dim], start, made.dims[dim], own)
        return
    # Every so many elements: one of the columns of a product.
    first, phase = divmod(start, step)
    if own % step:
        raise Misfit(f"every {step} of {own}")
    column = dims.new(1)
    rows, columns = dims.new(own // step), dims.new(step)
    _cut(dims, columns, phase, column, step)
    _cut(dims, rows, first, made.dims[dim], own // step)
    assert first + size <= own // step
    dims.unify(dims.product([rows, columns]), operand.dims[dim])


def slice_arguments(args: tuple[Arg, ...]) -> tuple[int, int, int]:
    """Dim, start and step of a slice."""
    dim, start, step = args[1], args[2], args[4] if len(args) > 4 else 1
    assert isinstance(dim, int) and isinstance(start, int) and isinstance(step, int)
    return dim, start, step


def _cut(dims: Dims, whole: int, start: int, part: int, size: int) -> None:
    """Have a part of a dim begin at an element of it."""
    length = dims.size(part)
    before, after = dims.new(start), dims.new(size - start - length)
    dims.unify(whole, dims.row([before, part, after]))


def _slice_backward(
    dims: Dims, args: tuple[Arg, ...], made: Instance, operand: Instance, position: int
) -> None:
    dim, start, step = slice_arguments(args[1:])
    _same_but(dims, made, operand, dim)
    whole, part, size = made.dims[dim], operand.dims[dim], made.shape[dim]
    if step == 1:
        _cut(dims, whole, start, part, size)
        return
    # Rows of `step` elements, of which one column is taken from the gradient, and what is left.
    (first, phase), full = divmod(start, step), size // step
    length = operand.shape[dim]
    in_rows = min(length, full - first)
    rows, columns, left = dims.new(full), dims.new(step), dims.new(size - full * step)
    _cut(dims, columns, phase, dims.new(1), step)
    dims.unify(whole, dims.row([dims.product([rows, columns]), left]))
    inside = dims.new(in_rows)
    if in_rows:
        _cut(dims, rows, first, inside, full)
    if length > in_rows:
        _cut(dims, left, phase, dims.new(1), size - full * step)
        part_in_rows = dims.row([inside, dims.new(1)])
        dims.unify(part, part_in_rows)
    else:
        dims.unify(part, inside)


def _cat(
    dims: Dims, args: tuple[Arg, ...], made: Instance, operand: Instance, position: int
) -> None:
    _same_but(dims, made, operand, joined_dim(args))


def joined_dim(args: tuple[Arg, ...]) -> int:
    """The dim of a concatenation."""
    dim = args[1] if len(args) > 1 else 0
    assert isinstance(dim, int)
    return dim


def _reduce(
    dims: Dims, args: tuple[Arg, ...], made: Instance, operand: Instance, position: int
) -> None:
    over = reduced_dims(args)
    kept = [d for d in range(len(operand.dims)) if d not in over]
    outs = kept if len(made.dims) == len(kept) else range(len(operand.dims))
    for out, own in zip(range(len(made.dims)), outs, strict=True):
        if own not in over:
            dims.unify(made.dims[out], operand.dims[own])


def reduced_dims(args: tuple[Arg, ...]) -> tuple[int, ...]:
    """Dims that a reduction sums over."""
    over = args[1]
    assert isinstance(over, tuple)
    return tuple(dim for dim in over if isinstance(dim, int))


def _gather(
    dims: Dims, args: tuple[Arg, ...], made: Instance, operand: Instance, position: int
) -> None:
    """The index has the result's dims; what is read has them but for one, in memory."""
    dim = args[1]
    assert isinstance(dim, int)
    if position == 1:
        for out, own in zip(made.dims, operand.dims, strict=True):
            dims.unify(out, own)
        return
    if operand.source is None:
        raise Misfit("looked up where it was computed")
    for number, (out, own) in enumerate(zip(made.dims, operand.dims, strict=True)):
        if number != dim:
            if made.shape[number] < operand.shape[number]:
                _cut(dims, own, 0, out, operand.shape[number])
            else:
                dims.unify(out, own)


_RELATIONS: Mapping[str, _Relation] = MappingProxyType(
    {
        "view": _view,
        "permute": _permute,
        "expand": _elementwise,
        "slice": _slice,
        "slice_backward": _slice_backward,
        "cat": _cat,
        "sum": _reduce,
        "amax": _reduce,
        "gather.default": _gather,
    }
)
