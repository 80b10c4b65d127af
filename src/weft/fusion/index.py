"""Which dims of which tensors are walked by the same loops.

Every dim of every value gets a number. Operators relate these: operands of an addition have equal
dims, a view joins or splits some, a slice is a part of one and a concatenation its parts in a row.
Solving the relations leaves each dim as a product and a row of *axes*, the loops of the region:

    view of [B, 3*H*D] as [B, 3, H, D], then select 1 of 3     the dim is (a + b + c) x H x D, of
                                                              which b x H x D is read
    cat((-x[..., 32:], x[..., :32]), -1) * cos                 the dim is a + a: one loop of 32, in
                                                              which x and cos are read twice

so that neither a view nor a slice, a transposition or a concatenation ever moves an element.

Relations that cannot hold at once, such as a view of [6, 4] as [8, 3] between operators that are
done element by element, are a `Misfit`: whoever made the relation has to read the tensor from
memory.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from math import prod

__all__ = ["Box", "Dims", "Misfit", "Part"]


class Misfit(Exception):
    """Dims that cannot be walked by the same loops. Always caught where relations are made."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a dim that loops walk evenly.

    Element number `offset + sum(stride * axis)` of the dim, over all values of the axes.

    Attributes:
        offset: number of its first element.
        axes: its axes with their strides, in elements of the dim, the slowest first.
    """

    offset: int
    axes: tuple[tuple[int, int], ...]


Box = tuple[Part, ...]
"""A part of a tensor: one part of each of its dims."""


@dataclass(frozen=True, slots=True)
class _Form:
    """What a dim consists of: a product of dims, the slowest first, or a row of dims."""

    is_product: bool
    dims: tuple[int, ...]


class Dims:
    """Dims and what is known about them; changes can be taken back."""

    def __init__(self) -> None:
        self._size: list[int] = []
        self._same: dict[int, int] = {}
        self._form: dict[int, _Form] = {}
        self._undo: list[tuple[str, int, object]] = []
        self._parts: dict[int, tuple[Part, ...]] = {}

    def new(self, size: int) -> int:
        """A dim that nothing is known about yet."""
        self._size.append(size)
        number = len(self._size) - 1
        if size == 1:
            self._form[number] = _Form(True, ())
        return number

    def size(self, dim: int) -> int:
        """Elements of a dim."""
        return self._size[dim]

    def product(self, dims: Sequence[int]) -> int:
        """A dim that joins others, the slowest first."""
        return self._made(True, dims)

    def row(self, dims: Sequence[int]) -> int:
        """A dim in which others stand in a row."""
        return self._made(False, [dim for dim in dims if self._size[dim]])

    def _made(self, is_product: bool, dims: Sequence[int]) -> int:
        kept = [dim for dim in dims if not is_product or self._size[dim] > 1]
        if len(kept) == 1:
            return kept[0]
        sizes = [self._size[dim] for dim in kept]
        number = self.new(prod(sizes) if is_product else sum(sizes))
        if self._size[number] > 1:
            self._set_form(number, _Form(is_product, tuple(kept)))
        return number

    @contextmanager
    def attempt(self) -> Generator[None]:
        """Take back all relations made inside if they are a `Misfit`, which is raised on."""
        mark = len(self._undo)
        try:
            yield
        except Misfit:
            while len(self._undo) > mark:
                kind, dim, old = self._undo.pop()
                table = self._same if kind == "same" else self._form
                if old is None:
                    del table[dim]
                else:
                    table[dim] = old  # type: ignore[assignment]
            self._parts.clear()
            raise

    def unify(self, a: int, b: int) -> None:
        """Have two dims walked by the same loops.

        Raises:
            Misfit: that is impossible.
        """
        a, b = self._root(a), self._root(b)
        if a == b:
            return
        if self._size[a] != self._size[b]:
            raise Misfit(f"{self._size[a]} elements against {self._size[b]}")
        if self._size[a] == 1:
            return
        form, other = self._form.get(a), self._form.get(b)
        if form is None:
            self._set_same(a, b)
        elif other is None:
            self._set_same(b, a)
        else:
            if form.is_product != other.is_product:
                self._break_at(*((a, b) if form.is_product else (b, a)))
            self._align(a, b)
            self._set_same(a, b)

    def parts(self, dim: int) -> tuple[Part, ...]:
        """All parts of a dim, in order; final once all relations are made."""
        dim = self._root(dim)
        if dim not in self._parts:
            self._parts[dim] = tuple(self._made_parts(dim))
        return self._parts[dim]

    def boxes(self, dims: Sequence[int]) -> list[Box]:
        """All boxes of a tensor with these dims."""
        return list(product(*map(self.parts, dims)))

    # --- solving ---------------------------------------------------------------------------

    def _root(self, dim: int) -> int:
        while dim in self._same:
            dim = self._same[dim]
        return dim

    def _set_same(self, dim: int, root: int) -> None:
        self._undo.append(("same", dim, None))
        self._same[dim] = root
        self._parts.clear()

    def _set_form(self, dim: int, form: _Form) -> None:
        self._undo.append(("form", dim, self._form.get(dim)))
        self._form[dim] = form
        self._parts.clear()

    def _members(self, dim: int, is_product: bool) -> list[int]:
        """Factors of a dim, or what stands in a row in it; itself if it has no such form."""
        dim = self._root(dim)
        form = self._form.get(dim)
        if form is None or form.is_product != is_product:
            return [dim]
        return [member for inner in form.dims for member in self._members(inner, is_product)]

    def _align(self, a: int, b: int) -> None:
        """Unify the members of two dims of one kind, splitting the larger ones."""
        is_product = self._form[a].is_product
        left, right = self._members(a, is_product), self._members(b, is_product)
        # Products are aligned from the fastest factor on, rows from their beginning.
        if not is_product:
            left.reverse()
            right.reverse()
        while left and right:
            first, second = left.pop(), right.pop()
            small, large = self._size[first], self._size[second]
            if small > large:
                left, right, first, second = right, left, second, first
                small, large = large, small
            if small < large:
                split = self._split_product if is_product else self._split_row
                rest, second = split(second, small)
                right.append(rest)
            self.unify(first, second)
        if any(self._size[dim] != 1 for dim in (*left, *right)):
            raise Misfit("products of different sizes")

    def _split_product(self, dim: int, minor: int) -> tuple[int, int]:
        """A dim as a product whose faster factor has so many elements: the slower, the faster."""
        dim = self._root(dim)
        size = self._size[dim]
        if size == minor:
            return self.new(1), dim
        if size % minor:
            raise Misfit(f"{size} elements in groups of {minor}")
        form = self._form.get(dim)
        if form is None:
            slow, fast = self.new(size // minor), self.new(minor)
            self._set_form(dim, _Form(True, (slow, fast)))
            return slow, fast
        if not form.is_product:
            halves = [self._split_product(part, minor) for part in form.dims]
            slow, fast = self.row([slow for slow, _ in halves]), halves[0][1]
            for _, other in halves[1:]:
                self.unify(fast, other)
            self._set_form(dim, _Form(True, (slow, fast)))
            return slow, fast
        slower, faster = list(self._members(dim, True)), list[int]()
        left = minor
        while left > 1:
            last = slower.pop()
            if self._size[last] <= left:
                if left % self._size[last]:
                    raise Misfit(f"factors of {size} in groups of {minor}")
                faster.insert(0, last)
                left //= self._size[last]
            else:
                rest, last = self._split_product(last, left)
                slower.append(rest)
                faster.insert(0, last)
                left = 1
        return self.product(slower), self.product(faster)

    def _split_row(self, dim: int, first: int) -> tuple[int, int]:
        """A dim as two in a row, of which the first has so many elements: the rest, the first."""
        dim = self._root(dim)
        size, form = self._size[dim], self._form.get(dim)
        if form is None:
            one, rest = self.new(first), self.new(size - first)
            self._set_form(dim, _Form(False, (one, rest)))
            return rest, one
        if form.is_product:
            slow, *others = self._members(dim, True)
            fast = prod(self._size[other] for other in others)
            if first % fast or self._size[slow] == 1:
                raise Misfit(f"{first} of {size} elements in rows of {fast}")
            if not others:  # a product of one: itself
                return self._split_row(slow, first)
            after, before = self._split_row(slow, first // fast)
            one, rest = self.product([before, *others]), self.product([after, *others])
            self._set_form(dim, _Form(False, (one, rest)))
            return rest, one
        members, before = list(form.dims), list[int]()
        left = first
        while left:
            member = members.pop(0)
            if self._size[member] > left:
                rest, member = self._split_row(member, left)
                members.insert(0, rest)
            before.append(member)
            left -= self._size[member]
        return self.row(members), self.row(before)

    def _break_at(self, dim: int, row: int) -> None:
        """Give a product the breaks of a row."""
        sizes = [self._size[member] for member in self._members(row, False)]
        done: list[int] = []
        rest = dim
        for size in sizes[:-1]:
            rest, one = self._split_row(rest, size)
            done.append(one)
        self._set_form(dim, _Form(False, (*done, rest)))

    # --- reading ---------------------------------------------------------------------------

    def _made_parts(self, dim: int) -> list[Part]:
        form = self._form.get(dim)
        if form is None:
            return [Part(0, ((dim, 1),))]
        if not form.is_product:
            found: list[Part] = []
            start = 0
            for member in form.dims:
                found += [Part(start + p.offset, p.axes) for p in self.parts(member)]
                start += self._size[member]
            return found
        found = [Part(0, ())]
        for member in form.dims:
            size = self._size[member]
            found = [
                Part(
                    outer.offset * size + inner.offset,
                    (*((axis, stride * size) for axis, stride in outer.axes), *inner.axes),
                )
                for outer in found
                for inner in self.parts(member)
            ]
        return sorted(found, key=lambda part: part.offset)
