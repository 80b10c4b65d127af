# pyright: standard
"""Networks that were trained once and are shipped as data of the package."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from typing import TypeVar

import torch

from weft.core.errors import InputError

__all__ = ["read_network"]

N = TypeVar("N", bound=torch.nn.Module)


def read_network(make: Callable[..., N], package: str, name: str, trained_by: str) -> N:
    """A network with its weights, which are not trained further.

    Args:
        make: the network's class; its sizes lie beside the weights.
        package: in which the file lies.
        name: of the file.
        trained_by: what makes the file in a clone.

    Raises:
        InputError: the file is missing from the installation.
    """
    try:
        with files(package).joinpath(name).open("rb") as file:
            kept = torch.load(file, weights_only=True)
    except OSError as error:
        raise InputError(
            need=f"the weights of a trained network, {name} of {package}",
            got=str(error),
            hint=f"install weft again; in a clone, {trained_by} makes them",
        ) from error
    network = make(**kept["sizes"])
    network.load_state_dict({key: value.float() for key, value in kept["weights"].items()})
    return network.eval().requires_grad_(requires_grad=False)
