"""The shape of a decoder that is served, as its publisher's config.json tells it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from weft.core.errors import FileError, InputError
from weft.core.files import read_text
from weft.program.types import DType

__all__ = ["Decoder", "load_decoder"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoder:
    """A dense decoder: attention with grouped keys, a gated or plain feed-forward layer.

    Attributes:
        name: for people.
        layers, hidden: how many, and how wide.
        heads, kv_heads, head: heads of queries, heads of keys and values, and their width.
        feed_forward: width of the layer between.
        gated: whether it has a gate beside it.
        vocabulary: words.
        tied: whether the last product has the weights of the embedding.
        dtype: of weights, keys and values.

    Raises:
        InputError: a size below 1, or heads that keys and values cannot be shared out to.
    """

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head: int
    feed_forward: int
    vocabulary: int
    gated: bool = True
    tied: bool = False
    dtype: DType = DType.BF16

    def __post_init__(self) -> None:
        sizes = (self.layers, self.hidden, self.heads, self.kv_heads, self.head)
        sizes += (self.feed_forward, self.vocabulary)
        if min(sizes) < 1 or self.heads % self.kv_heads:
            raise InputError(
                need="sizes of at least 1, and heads that are a multiple of those of keys",
                got=f"{self.name}: {self.heads} heads, {self.kv_heads} of keys, sizes {sizes}",
                hint="take them from the model's config.json",
            )


_FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma", "granite", "olmo2", "phi3")
"""`model_type` of decoders of this shape."""


def load_decoder(path: Path) -> Decoder:
    """The decoder that a config.json describes.

    Raises:
        FileError: the file cannot be read, or describes a model of another shape.
    """
    text = read_text(path, "a config.json", "it lies beside the weights of a model")
    try:
        raw: object = json.loads(text)
    except ValueError as error:
        raise _bad(path, f"no JSON: {error}") from error
    if not isinstance(raw, dict):
        raise _bad(path, f"a {type(raw).__name__}")
    return decoder_of({str(key): value for key, value in raw.items()}, path)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]: JSON


def decoder_of(config: Mapping[str, object], path: Path) -> Decoder:
    """The decoder that the keys of a config.json describe; `path` is for errors."""
    kind = config.get("model_type")
    if kind not in _FAMILIES:
        raise _bad(path, f"model_type {kind!r}")
    if config.get("quantization_config") is not None:
        raise _bad(path, "quantization_config: weights of fewer bytes are not priced")
    window = config.get("sliding_window")
    if window is not None and config.get("use_sliding_window") is not False:
        raise _bad(path, f"sliding_window {window}: attention to a part is not priced")
    heads = _whole(config, "num_attention_heads", path)
    hidden = _whole(config, "hidden_size", path)
    head = config.get("head_dim")
    return Decoder(
        name=str(config.get("_name_or_path") or path.parent.name or kind),
        layers=_whole(config, "num_hidden_layers", path),
        hidden=hidden,
        heads=heads,
        kv_heads=(
            heads
            if config.get("num_key_value_heads") is None
            else _whole(config, "num_key_value_heads", path)
        ),
        head=hidden // heads if head is None else _whole(config, "head_dim", path),
        feed_forward=_whole(config, "intermediate_size", path),
        vocabulary=_whole(config, "vocab_size", path),
        tied=config.get("tie_word_embeddings") is True,
        dtype=_dtype(config, path),
    )


_DTYPES = {"bfloat16": DType.BF16, "float16": DType.F16, "float32": DType.F32}


def _dtype(config: Mapping[str, object], path: Path) -> DType:
    named = config.get("dtype", config.get("torch_dtype", "bfloat16"))
    if named not in _DTYPES:
        raise _bad(path, f"dtype {named!r}, not one of {', '.join(_DTYPES)}")
    return _DTYPES[str(named)]


def _whole(config: Mapping[str, object], key: str, path: Path) -> int:
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise _bad(path, f"{key}: {value!r}")
    return value


def _bad(path: Path, got: str) -> FileError:
    return FileError(
        need=f"the config.json of a dense decoder ({', '.join(_FAMILIES)})",
        got=f"{path}: {got}",
        hint="it lies beside the weights; experts and state spaces have other costs",
    )
