"""DTensor's own sharding rules for one mesh axis, in weft's words.

The one place that touches private registries of torch.distributed.tensor (torch 2.13). They
come in two forms: tables of single-axis rules, and strategy functions that answer for given
placements of the operands, which are asked for every combination.
"""

import itertools
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard
from torch.distributed.tensor._dtensor_spec import DTensorSpec, TensorMeta
from torch.distributed.tensor._op_schema import OpSchema, OpSpec, OpStrategy, TupleStrategy
from torch.distributed.tensor._ops._matrix_ops import gen_single_dim_einsum_strategies
from torch.testing._internal.distributed.fake_pg import FakeStore

from weft.parallel.placement import PARTIAL, PARTIAL_MAX, REPLICATED
from weft.program.graph import Value

_TORCH_TYPES = {
    "f64": torch.float64, "f32": torch.float32, "i64": torch.int64, "bool": torch.bool,
}  # fmt: skip


@contextmanager
def pretended_mesh(num_devices):
    """A mesh of devices that do not exist."""
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=num_devices)
    try:
        yield init_device_mesh("cpu", (num_devices,))
    finally:
        dist.destroy_process_group()


def dtensor_rules(mesh, aten, args, operands, num_outputs, kwargs=None):
    """DTensor's rules of one call.

    Args:
        mesh: one axis.
        aten: the ATen overload.
        args: weft's arguments, in the overload's schema order.
        operands: type of each value among the arguments.
        num_outputs: how many outputs weft's operator has; the overload may have more.
        kwargs: keyword arguments of the overload.

    Returns:
        Pairs (outputs, operands) of placements: rules that speak of replicas, shards, sums and
        maxima only, with outputs that are not made replicated.

    Raises:
        LookupError: DTensor has no rules for the overload.
    """
    propagator = DTensor._op_dispatcher.sharding_propagator
    metas = [_meta(tensor) for tensor in operands]
    if aten in propagator.op_single_dim_strategy_funcs:
        table = propagator.op_single_dim_strategy_funcs[aten]
        rows = table.func(aten, _bind(args, iter(metas)), kwargs or {})
        return _split(rows, num_outputs)
    if aten in propagator.op_strategy_funcs:
        asked = _asked(propagator, mesh, aten, args, metas, kwargs or {})
        return {(outputs[:num_outputs], inputs) for outputs, inputs in asked}
    raise LookupError(str(aten))


def dtensor_einsum_rules(equation):
    """DTensor's rules of a product of two tensors, as `dtensor_rules`."""
    return _split(gen_single_dim_einsum_strategies(equation), num_outputs=1)


def _split(rows, num_outputs):
    """Rows of a table as pairs, without those that speak of other reductions."""
    found = set()
    for row in rows:
        outputs = tuple(map(_code, row[:num_outputs]))
        # An index "operand" of a masked lookup is a replica that carries the mask.
        inputs = tuple(REPLICATED if _is_masked(p) else _code(p) for p in row[num_outputs:])
        if _OTHER not in outputs + inputs:
            found.add((outputs, inputs))
    return found


def _asked(propagator, mesh, aten, args, metas, kwargs):
    """Answers of a strategy function for every combination of the operands' placements."""
    function = propagator.op_strategy_funcs[aten]
    info = propagator.op_to_schema_info.get(aten)
    # Attention lists all its strategies whatever it is given, so asking once is enough.
    listed = "scaled_dot_product" in str(aten)
    choices = [(Replicate(),) if listed else _placements(meta, mesh.size()) for meta in metas]
    for combination in itertools.product(*choices):
        given = [
            OpStrategy([OpSpec(DTensorSpec(mesh, (place,), tensor_meta=meta))])
            for place, meta in zip(combination, metas, strict=True)
        ]
        bound = _bind(args, iter(given), group=TupleStrategy)
        for spec in _strategies(function, OpSchema(aten, bound, kwargs, info)):
            made = spec.output_specs
            made = made if isinstance(made, (tuple, list)) else (made,)
            # Where a strategy does not say how it reads its operands, they lie as the output.
            read = spec.input_specs or made * len(metas)
            outputs = tuple(_code(s and s.placements[0]) for s in made)
            inputs = tuple(
                REPLICATED if _is_masked(s.placements[0]) else _code(s.placements[0]) for s in read
            )
            if _OTHER not in outputs + inputs:
                yield outputs, inputs


def _strategies(function, schema):
    try:
        return function(schema).strategies
    except RuntimeError as error:
        if "unevenly sharded" not in str(error):
            raise
        return ()  # a view whose result would not divide


def _placements(meta, num_devices):
    shards = (Shard(d) for d, size in enumerate(meta.shape) if size and size % num_devices == 0)
    return (Replicate(), *shards, Partial(), Partial("max"))


def _meta(tensor):
    shape = torch.Size(tensor.shape)
    strides = torch.empty(shape, device="meta").stride()
    return TensorMeta(shape, strides, _TORCH_TYPES[tensor.dtype.value])


def _bind(args, operands, group=tuple):
    def bound(arg):
        if isinstance(arg, Value):
            return next(operands)
        if isinstance(arg, tuple) and any(isinstance(a, Value) for a in arg):
            return group([bound(a) for a in arg])
        return list(arg) if isinstance(arg, tuple) else arg

    return tuple(bound(arg) for arg in args)


_OTHER = "other"
_REDUCTIONS = {"sum": PARTIAL, "max": PARTIAL_MAX}


def _is_masked(placement):
    return type(placement).__name__ == "_MaskPartial"


def _code(placement):
    if placement is None or isinstance(placement, Replicate):
        return REPLICATED
    if _is_masked(placement):  # a sum of rows that other devices have masked to zero
        return PARTIAL
    if type(placement) is Partial:
        return _REDUCTIONS.get(placement.reduce_op, _OTHER)
    is_shard = type(placement).__name__ in ("Shard", "_ShardingPlaceholder")
    return placement.dim if is_shard else _OTHER
