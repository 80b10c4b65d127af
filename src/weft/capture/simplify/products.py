"""Rules for products: einsum takes in the views around it.

torch computes a linear layer on [B,T,D] as a matrix product of [B*T,D] between views, and
batched products with all batch dims merged into one. Here every dim gets its letter back:
"abc,dc->abd" for the layer, "abcd,abed->abce" for attention scores.
"""

from __future__ import annotations

from collections.abc import Mapping

from weft.capture.simplify.dims import leading_parts_of, parts_of
from weft.capture.simplify.rewriter import Results, Rewriter, Rule, Shape
from weft.capture.simplify.unmerge import is_free
from weft.program.graph import Arg, Value

__all__ = ["PRODUCTS"]

_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def _einsum(r: Rewriter, args: tuple[Arg, ...]) -> Results | None:
    equation, a, b = args
    assert isinstance(equation, str) and isinstance(a, Value) and isinstance(b, Value)
    terms = _terms(equation)
    for step in (_split_letters, _absorb_permutes, _absorb_expansions):
        found = step(r, terms, (a, b))
        if found is not None:
            return found
    plain = _renamed(terms)
    return None if plain == equation else r.add_all("einsum", plain, a, b)


def _terms(equation: str) -> tuple[str, str, str]:
    left, _, out = equation.partition("->")
    first, _, second = left.partition(",")
    return first, second, out


def _equation(terms: tuple[str, ...]) -> str:
    return f"{terms[0]},{terms[1]}->{terms[2]}"


def _renamed(terms: tuple[str, str, str]) -> str:
    """The equation with letters in the order of their first use."""
    order = dict.fromkeys("".join(terms))
    table = str.maketrans(dict(zip(order, _LETTERS, strict=False)))
    return _equation(tuple(term.translate(table) for term in terms))


def _split_letters(
    r: Rewriter, terms: tuple[str, str, str], operands: tuple[Value, Value]
) -> Results | None:
    """Give each dim that a view merged its own letter, where no operand has to pay for it."""
    parts: dict[str, Shape] = {}
    sizes: dict[str, int] = {}
    shared = set(terms[0]) & set(terms[1])
    for term, value in zip(terms, operands, strict=False):
        found = zip(term, parts_of(r, value), leading_parts_of(r, value), strict=True)
        sizes |= dict(zip(term, r.shape(value), strict=True))
        for letter, part, leading in found:
            if len(part if letter in shared else leading) > 1:
                parts.setdefault(letter, part)
    holders = [
        (letter, value, dim)
        for term, value in zip(terms, operands, strict=False)
        for dim, letter in enumerate(term)
    ]
    for letter, value, dim in holders:
        if letter in parts and not is_free(r, value, dim, parts[letter]):
            del parts[letter]
    if not parts:
        return None
    unused = (letter for letter in _LETTERS if letter not in sizes)
    names = {
        letter: "".join(next(unused) for _ in parts[letter]) if letter in parts else letter
        for letter in sizes
    }
    fine = [
        r.add("view", value, tuple(m for c in term for m in parts.get(c, (sizes[c],))))
        for term, value in zip(terms, operands, strict=False)
    ]
    spelled = tuple("".join(names[c] for c in term) for term in terms)
    made = r.add("einsum", _equation(spelled), *fine)
    return r.add_all("view", made, tuple(sizes[c] for c in terms[2]))


def _absorb_permutes(
    r: Rewriter, terms: tuple[str, str, str], operands: tuple[Value, Value]
) -> Results | None:
    spelled, values = list(terms), list(operands)
    for position, value in enumerate(operands):
        inner = r.made_by(value, "permute")
        if inner is not None:
            source, dims = inner
            assert isinstance(source, Value) and isinstance(dims, tuple)
            letters = dict(zip(dims, terms[position], strict=True))
            spelled[position] = "".join(letters[d] for d in range(len(dims)))
            values[position] = source
    if tuple(spelled) == terms:
        return None
    return r.add_all("einsum", _equation(tuple(spelled)), *values)


def _absorb_expansions(
    r: Rewriter, terms: tuple[str, str, str], operands: tuple[Value, Value]
) -> Results | None:
    """Leave a repeated batch dim out of the operand that repeats it."""
    for position, value in enumerate(operands):
        inner = r.made_by(value, "expand")
        if inner is None or not isinstance(inner[0], Value):
            continue
        shape, source = r.shape(value), r.shape(inner[0])
        source = (1,) * (len(shape) - len(source)) + source
        batch = set(terms[1 - position]) & set(terms[2])
        kept = [
            d
            for d, letter in enumerate(terms[position])
            if not (letter in batch and source[d] == 1 and shape[d] != 1)
        ]
        if len(kept) == len(shape):
            continue
        spelled, values = list(terms), list(operands)
        spelled[position] = "".join(terms[position][d] for d in kept)
        narrow = r.add("view", inner[0], tuple(source[d] for d in kept))
        values[position] = r.add("expand", narrow, tuple(shape[d] for d in kept))
        return r.add_all("einsum", _equation(tuple(spelled)), *values)
    return None


PRODUCTS: Mapping[str, tuple[Rule, ...]] = {"einsum": (_einsum,)}
