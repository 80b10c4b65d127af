"""How much memory tensors take while something runs, counted and not measured."""

from __future__ import annotations

import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten


class Alive(TorchDispatchMode):
    """While active, counts the bytes of CPU storages that operators return.

    Attributes:
        most: most bytes that were alive at one time.
        largest: bytes of the largest storage.
    """

    def __init__(self):
        super().__init__()
        self._sizes = {}
        self.most = self.largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in tree_flatten(made)[0]:
            if isinstance(tensor, torch.Tensor) and tensor.device.type == "cpu":
                self.see(tensor)
        return made

    def see(self, tensor):
        """Count a tensor that is there already."""
        storage = tensor.untyped_storage()
        if storage._cdata not in self._sizes:
            self._sizes[storage._cdata] = storage.nbytes()
            weakref.finalize(storage, self._sizes.pop, storage._cdata, None)
            self.most = max(self.most, sum(self._sizes.values()))
            self.largest = max(self.largest, storage.nbytes())
