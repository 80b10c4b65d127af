# pyright: standard
"""What is used of PyTorch Geometric, which is an extra, imported without its warnings."""

from __future__ import annotations

import warnings

from weft.core.errors import InputError

__all__ = [
    "Batch",
    "HeteroConv",
    "HeteroData",
    "MessagePassing",
    "scatter",
    "softmax",
    "to_dense_batch",
]

try:
    with warnings.catch_warnings():
        # Its pooling layers, which are not used here, script two classes as they are imported.
        warnings.filterwarnings("ignore", r"`torch\.jit\.script` is deprecated", DeprecationWarning)
        from torch_geometric.data import Batch, HeteroData
        from torch_geometric.nn import HeteroConv, MessagePassing
        from torch_geometric.utils import scatter, softmax, to_dense_batch
except ImportError:
    raise InputError(
        need="torch_geometric, on which the network of tree search is built",
        got="it is not installed",
        hint="pip install 'weft[mcts]'",
    ) from None
