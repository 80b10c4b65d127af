"""One rank of a model that is split in some way; prints decisions and weights of all runs.

Imported, it does the same in one process, for tests to compare.
"""

from __future__ import annotations

import copy
import json
import sys

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from tests.unit.rl.known import batch, make_model
from weft.rl import GAC, Applied, DelayCompensation, Ema, Previous, Versions
from weft.runtime.world import joined

STEPS = 7

RUNS = {
    "ema": {},
    "on the device": {"synchronise": False},
    "compiled": {"compiled": True},
    "compiled, on the device": {"compiled": True, "synchronise": False, "per": "parameter"},
    "applied": {"reference": Applied(count=3)},
    "per parameter": {"per": "parameter", "mode": "cap", "cosine_low": 0.2},
    "previous, skips": {"reference": Previous(), "cosine_low": 0.1, "cosine_high": 0.6},
    "compensated": {"reference": Ema(decay=0.7)},
}


def split(model, how):
    """Split a model in place."""
    size = dist.get_world_size()
    if how == "fsdp":
        fully_shard(model[0])
        fully_shard(model)
    elif how == "hsdp":
        mesh = init_device_mesh("cpu", (2, size // 2), mesh_dim_names=("copies", "shards"))
        fully_shard(model, mesh=mesh)
    elif how == "tp":
        _tensor_parallel(model, init_device_mesh("cpu", (size,)))
    elif how == "tp and fsdp":
        mesh = init_device_mesh("cpu", (2, size // 2), mesh_dim_names=("data", "tensor"))
        _tensor_parallel(model, mesh["tensor"])
        fully_shard(model, mesh=mesh["data"])
    return model


def _tensor_parallel(model, mesh):
    first = ColwiseParallel(output_layouts=Replicate())
    last = RowwiseParallel(input_layouts=Replicate())
    parallelize_module(model, mesh, {"0": first, "3": last})


def run(model, options, rank, data_size, *, compensated=False):
    """Train on this rank's share of the data; what was decided, and the weights."""
    inner = torch.optim.AdamW(model.parameters(), lr=0.02, foreach=False)
    if compensated:
        inner = DelayCompensation(inner, Versions(keep=3), strength=5.0)
    gac, found = GAC(inner, **options), []
    for step in range(STEPS):
        gac.zero_grad()
        inputs, targets = (part.chunk(data_size)[rank] for part in batch(step))
        (model(inputs) - targets).square().mean().backward()
        if compensated:
            inner.staleness = min(step, 2)
        gac.step()
        last = gac.last
        found.append([last.regime.name, last.cosine_raw, last.cosine_applied, last.norm_raw])
    return {"decisions": found, "weights": [_whole(p).tolist() for p in model.parameters()]}


def _whole(parameter):
    value = parameter.detach()
    return value.full_tensor() if isinstance(value, DTensor) else value


def spoiled(model, rank):
    """What each of three steps was, where one process meets NaN in the last but one."""
    gac, found = GAC(torch.optim.SGD(model.parameters(), lr=0.02, foreach=False)), []
    for step in range(5):
        gac.zero_grad()
        inputs, targets = batch(step)
        (model(inputs) - targets).square().mean().backward()
        if step == 3 and rank == 0:
            next(model.parameters()).grad.to_local().fill_(float("nan"))
        saved = [p.detach().clone() for p in model.parameters()]
        gac.step()
        if step == 3:
            with torch.no_grad():
                for parameter, value in zip(model.parameters(), saved, strict=True):
                    parameter.copy_(value)
        found.append(gac.last.regime.name)
    return found


def lagging(model, rank):
    """What was done where only the first process has stale samples, and where none has."""
    gac, found = GAC(torch.optim.SGD(model.parameters(), lr=0.0, foreach=False)), []
    for lag in (None, 3.0 if rank == 0 else 0.0, 0.0):
        gac.zero_grad()
        inputs, targets = batch(0)
        (model(inputs) - targets).square().mean().backward()
        gac.staleness = lag
        gac.step()
        found.append(gac.last.regime.name)
    return found


def resumed(how):
    """Whether a run that goes on from its checkpoint is the run that was not interrupted."""
    inputs, targets = batch(0)
    ends, saved = [], None
    for first, last in ((0, 5), (3, 5)):
        model = split(make_model(), how)
        inner = torch.optim.AdamW(model.parameters(), lr=0.02, foreach=False)
        gac = GAC(inner, reference=Ema(dtype=torch.bfloat16))
        if saved is not None:
            set_state_dict(model, gac, model_state_dict=saved[0], optim_state_dict=saved[1])
        for step in range(first, last):
            if step == 3 and saved is None:
                saved = copy.deepcopy(get_state_dict(model, gac))
            gac.zero_grad()
            (model(inputs) - targets).square().mean().backward()
            gac.step()
        ends.append([_whole(parameter) for parameter in model.parameters()])
    kept = saved[1]["state"]["0.weight"]["gac_reference_0"]
    assert isinstance(kept, DTensor) and kept.dtype is torch.bfloat16
    assert gac.last.regime.name == "PROJECT"
    return all(torch.equal(one, other) for one, other in zip(*ends, strict=True))


def main(ways: list[str]) -> None:
    with joined(timeout_s=60) as world:
        found = {}
        for how in ways:
            data_size = {"tp": 1, "tp and fsdp": 2}.get(how, world.size)
            rank = {"tp": 0, "tp and fsdp": world.rank * 2 // world.size}.get(how, world.rank)
            for name, options in RUNS.items():
                model = split(make_model(width=8 if "tp" in how else 7), how)
                is_compensated = name == "compensated"
                done = run(model, options, rank, data_size, compensated=is_compensated)
                found[f"{how}: {name}"] = done
        found["spoiled"] = spoiled(split(make_model(), "fsdp"), world.rank)
        found["lagging"] = lagging(split(make_model(), "fsdp"), world.rank)
        found["resumed"] = resumed("fsdp")
        everyone = [None] * world.size
        dist.all_gather_object(everyone, found)
        if world.is_first:
            print(json.dumps(everyone))


if __name__ == "__main__":
    main(sys.argv[1:])
