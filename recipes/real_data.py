"""Real data that come with what is installed anyway: English text and handwritten digits.

B batch   T position   C channel   Y row   X column
"""

from __future__ import annotations

import functools
from pydoc_data.topics import topics

import torch
from torch import Tensor

__all__ = ["digits", "digits_batch", "english_text", "text_batch"]


@functools.cache
def english_text() -> Tensor:
    """The help texts that ship with Python, as bytes [N]: about 0.5 MB of English."""
    text = "\n".join(topics[name] for name in sorted(topics))
    return torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8).long()


def text_batch(step: int, batch: int, sequence: int) -> dict[str, Tensor]:
    """Windows of the text: row b reads on through the b-th part of it, step by step.

    Returns:
        `tokens` and `targets` [batch, sequence]: the target of a token is the one after it.
    """
    text = english_text()
    part = len(text) // batch
    start = step * sequence % (part - sequence)
    rows = [text[b * part + start : b * part + start + sequence + 1] for b in range(batch)]
    window_BT = torch.stack(rows)
    return {
        "tokens": window_BT[:, :-1].contiguous(),
        "targets": window_BT[:, 1:].contiguous(),
    }


@functools.cache
def digits() -> tuple[Tensor, Tensor]:
    """1,797 handwritten digits from the UCI collection: images [N,8,8], labels [N].

    Images are shifted and scaled to mean 0 and variance 1 over the collection.
    """
    # Here and not above, so that recipes on text do without scikit-learn.
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    scaled = (images - images.mean()) / images.std()
    return torch.tensor(scaled, dtype=torch.float32).reshape(-1, 8, 8), torch.tensor(
        labels, dtype=torch.long
    )


def digits_batch(step: int, batch: int) -> dict[str, Tensor]:
    """The next `batch` digits of the collection, from the front again at its end.

    Returns:
        `images` [batch, 1, 8, 8] and `labels` [batch].
    """
    images, labels = digits()
    rows = torch.arange(step * batch, (step + 1) * batch) % len(labels)
    return {"images": images[rows][:, None], "labels": labels[rows]}
