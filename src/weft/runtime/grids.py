"""The grids of a pipeline's groups as torch knows them."""

from __future__ import annotations

import torch
from torch.distributed.device_mesh import DeviceMesh

from weft.parallel.pipeline.plan import PipelinePlan
from weft.parallel.placement import Mesh
from weft.runtime.world import World

__all__ = ["grid_devices"]


def grid_devices(world: World, plan: PipelinePlan) -> dict[Mesh, DeviceMesh]:
    """Torch's device meshes of this rank's group by grid; none in a world of one rank.

    All ranks make the meshes of all groups, in one order, as process groups ask for.
    """
    found: dict[Mesh, DeviceMesh] = {}
    if world.is_alone:
        return found
    for group in range(plan.num_groups):
        ranks = plan.ranks_of(group)
        for mesh in dict.fromkeys(plan.plans[stage].mesh for stage in plan.stages_of(group)):
            made = DeviceMesh(
                world.device.type,
                torch.tensor(ranks).view(mesh.shape),
                mesh_dim_names=tuple(f"axis{axis}" for axis in range(mesh.num_axes)),
            )
            if world.rank in ranks:
                found[mesh] = made
    return found
