"""A mesh of pretended devices: NumPy arrays laid out by placements, operators run on the parts.

`distribute` and `collect` are what placements mean. `run_locally` is what the lowering promises:
sizes become local ones, iota and uniform know their offset, tables cut by rows mask ids.
"""

import itertools

import numpy as np

from weft.parallel.placement import PARTIAL, PARTIAL_MAX, REPLICATED, Mesh, local_type
from weft.program.evaluate import apply_operator
from weft.program.graph import Value
from weft.program.infer import infer_types
from weft.program.random import row_major_strides, uniform
from weft.program.types import DType, TensorType


def distribute(array, sharding, mesh_shape, rng):
    """Parts by device coordinate; the outermost axis acts first."""
    if not mesh_shape:
        return {(): array}
    n, placement = mesh_shape[0], sharding[0]
    if placement == REPLICATED:
        pieces = [array] * n
    elif placement == PARTIAL:
        pieces = summands(array, n, rng)
    elif placement == PARTIAL_MAX:
        pieces = candidates(array, n, rng)
    else:
        pieces = np.split(array, n, axis=placement)
    return {
        (i, *rest): part
        for i, piece in enumerate(pieces)
        for rest, part in distribute(piece, sharding[1:], mesh_shape[1:], rng).items()
    }


def summands(array, n, rng):
    if np.issubdtype(array.dtype, np.floating):
        parts = [rng.normal(scale=3.0, size=array.shape) for _ in range(n - 1)]
    else:
        parts = [rng.integers(-5, 6, size=array.shape) for _ in range(n - 1)]
    return [*parts, array - sum(parts)]


def candidates(array, n, rng):
    """Arrays whose maximum is `array`, each element of it on one random device."""
    owner = rng.integers(0, n, size=array.shape)
    lower = (array - rng.uniform(0.5, 3.0, size=array.shape) for _ in range(n))
    return [np.where(owner == i, array, less) for i, less in enumerate(lower)]


def collect(parts, sharding, mesh_shape):
    """Inverse of `distribute`; replicas have to agree."""
    if not mesh_shape:
        return parts[()]
    pieces = [
        collect({c[1:]: p for c, p in parts.items() if c[0] == i}, sharding[1:], mesh_shape[1:])
        for i in range(mesh_shape[0])
    ]
    placement = sharding[0]
    if placement == REPLICATED:
        for piece in pieces[1:]:
            np.testing.assert_allclose(piece, pieces[0], rtol=1e-8, atol=1e-8)
        return pieces[0]
    if placement == PARTIAL:
        return sum(pieces)
    if placement == PARTIAL_MAX:
        return np.maximum.reduce(pieces)
    return np.concatenate(pieces, axis=placement)


def offsets(sharding, mesh_shape, coordinate, shape):
    """First index of a device's part along each dim."""
    start, length = [0] * len(shape), list(shape)
    for placement, n, i in zip(sharding, mesh_shape, coordinate, strict=True):
        if placement >= 0:
            length[placement] //= n
            start[placement] += i * length[placement]
    return tuple(start)


def run_locally(sample, strategy, mesh_shape, coordinate, arrays):
    """One device's outputs: the same operator on its own parts, with localised arguments."""
    made = strategy.outputs[0]
    start = offsets(made, mesh_shape, coordinate, sample.outputs[0].shape)
    local = local_type(Mesh(mesh_shape), made, sample.outputs[0]).shape
    args = sample.args
    match sample.op:
        case "uniform":
            strides = row_major_strides(sample.outputs[0].shape)
            return (uniform(int(arrays[0]), args[1], local, start, strides),)
        case "uniform_part":
            part, dim, pieces = sample.outputs[0].shape, args[4], args[5]
            whole = tuple(n * pieces if d == dim else n for d, n in enumerate(part))
            first = tuple(
                n + int(arrays[1]) * part[dim] if d == dim else n for d, n in enumerate(start)
            )
            return (uniform(int(arrays[0]), args[2], local, first, row_major_strides(whole)),)
        case "view" | "expand" | "slice_backward":
            args = (args[0], local, *args[2:])
        case "full":
            args = (local, *args[1:])
        case "iota":
            args = (local[0], args[1] + start[0] * args[2], *args[2:])
        case "embedding.default":
            rows = offsets(strategy.operands[0], mesh_shape, coordinate, sample.operands[0].shape)
            return masked_lookup(sample, arrays, rows[0])
        case "embedding_dense_backward.default":
            return masked_backward(sample, arrays, start[0], local[0])
        case "attention" | "attention_backward" if sample.args[-2]:
            at = 0 if sample.op == "attention" else 1
            whole = sample.operands[at].shape[2]
            first = offsets(
                strategy.operands[at], mesh_shape, coordinate, sample.operands[at].shape
            )
            return causal_rows(sample.op, args, arrays, first[2], whole)
        case "convolution_backward.default" if args[3] is not None:
            channels = arrays[0].shape[1]
            args = (*args[:3], (channels,), *args[4:])
    if sample.op in ("slice", "slice_backward"):
        args = whole_slice(sample, args, arrays[0].shape, local)
    return apply(sample.op, args, arrays)


def whole_slice(sample, args, operand, made):
    """A slice that keeps a whole dim keeps all of a device's part of it."""
    at = 1 if sample.op == "slice" else 2
    dim = args[at]
    if sample.outputs[0].shape[dim] == sample.operands[0].shape[dim]:
        assert operand[dim] == made[dim]
        return (*args[: at + 1], 0, made[dim], 1)
    return args


def causal_rows(op, args, arrays, first, whole):
    """Attention of rows from `first` on: of all rows, those that are not there zero."""
    rows = range(1) if op == "attention" else (0, 1, 4, 5)
    last = first + arrays[rows[-1]].shape[2]
    padded = [
        np.pad(array, [(first, whole - last) if d == 2 else (0, 0) for d in range(array.ndim)])
        if position in rows
        else array
        for position, array in enumerate(arrays)
    ]
    made = apply(op, args, tuple(padded))
    of_rows = range(2) if op == "attention" else range(1)
    return tuple(x[:, :, first:last] if n in of_rows else x for n, x in enumerate(made))


def masked_lookup(sample, arrays, first):
    """Rows of the device's part of the table; zeros for ids of other parts."""
    table, ids = arrays
    mine = (ids >= first) & (ids < first + len(table))
    shifted = np.where(mine, ids - first, 0)
    (out,) = apply(sample.op, (*sample.args[:2], -1, False, False), (table, shifted))
    return (np.where(mine[..., None], out, 0.0),)


def masked_backward(sample, arrays, first, num_rows):
    """Gradient of the device's part of the table; ids of other parts and padding add nothing."""
    grad, ids = arrays
    mine = (ids >= first) & (ids < first + num_rows) & (ids != sample.args[3])
    shifted = np.where(mine, ids - first, 0)
    kept = np.where(mine[..., None], grad, 0.0)
    return apply(sample.op, (*sample.args[:2], num_rows, -1, False), (kept, shifted))


def run_split(sample, strategy, mesh_shape, arrays, rng):
    """Outputs of the operator, computed by all devices of the mesh and put together."""
    shards = [
        distribute(array, sharding, mesh_shape, rng)
        for array, sharding in zip(arrays, strategy.operands, strict=True)
    ]
    devices = list(itertools.product(*map(range, mesh_shape)))
    made = {
        device: run_locally(sample, strategy, mesh_shape, device, tuple(s[device] for s in shards))
        for device in devices
    }
    return tuple(
        collect({device: made[device][output] for device in devices}, sharding, mesh_shape)
        for output, sharding in enumerate(strategy.outputs)
    )


def apply(op, args, arrays):
    """The reference operator on arrays, which stand for the values in the order of reading."""
    types = tuple(TensorType(DTYPES[array.dtype.kind], array.shape) for array in arrays)
    given = iter(arrays)
    return apply_operator(op, filled(args, given), infer_types(op, args, types))


DTYPES = {"f": DType.F64, "i": DType.I64, "b": DType.BOOL}


def filled(args, given):
    return tuple(
        next(given) if isinstance(a, Value) else filled(a, given) if isinstance(a, tuple) else a
        for a in args
    )
