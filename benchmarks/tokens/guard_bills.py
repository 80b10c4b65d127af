"""Bills for text: honest ones, and ones with tokens that were never needed.

A byte-pair encoding is trained on the spot on what Python says of itself; that of tiktoken is asked
of the rivals' Python, where it has one. Planted tokens are real ones: a token is cut in two that
the vocabulary has, so the text stays as it is and only its count is larger.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from pydoc_data.topics import topics
from typing import Any

import numpy as np

from weft.tokens.guards.odds import Floats
from weft.tokens.guards.tokenisation import HONEST, bet_logs

__all__ = ["NOISE", "first_call", "passages", "planted", "real_encoding", "split_tokens", "trained"]


def passages(words: int = 200) -> list[str]:
    """Texts of about so many words."""
    found: list[str] = []
    for _, text in sorted(topics.items()):
        own = text.split(" ")
        found += [" ".join(own[n : n + words]) for n in range(0, len(own) - words, words)]
    return found


def trained(size: int = 4096) -> Any:  # noqa: ANN401 - of a library that need not be there
    """A byte-level encoding; None where tokenizers is not installed."""
    try:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    except ImportError:
        return None
    own = Tokenizer(models.BPE())
    own.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    own.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    own.train_from_iterator(list(topics.values()), trainer)
    return own


def split_tokens(
    encoding: Any,  # noqa: ANN401 - as above
    ids: list[int],
    share: float,
    rng: np.random.Generator,
) -> list[int]:
    """The same text in more tokens: a share of them, drawn, cut in two."""
    found: list[int] = []
    for own in ids:
        word = encoding.id_to_token(own)
        cuts = [
            (left, right)
            for n in range(1, len(word))
            if (left := encoding.token_to_id(word[:n])) is not None
            and (right := encoding.token_to_id(word[n:])) is not None
        ]
        if cuts and rng.random() < share:
            found += cuts[int(rng.integers(len(cuts)))]
        else:
            found.append(own)
    return found


def _none(rng: np.random.Generator, counts: Floats) -> Floats:
    return np.zeros_like(counts)


def _even(rng: np.random.Generator, counts: Floats) -> Floats:
    """Each token is another than the canonical one as often as is allowed."""
    return rng.binomial(counts.astype(np.int64), HONEST).astype(np.float64)


def _clumped(rng: np.random.Generator, counts: Floats) -> Floats:
    """One call in twenty has one token in five too many, as where something is spelt out."""
    some = rng.random(counts.shape) < HONEST / 0.2
    return np.where(some, rng.binomial(counts.astype(np.int64), 0.2), 0).astype(np.float64)


def _rare(rng: np.random.Generator, counts: Floats) -> Floats:
    """One call in two hundred is spelt out letter by letter, at three times the tokens."""
    return np.where(rng.random(counts.shape) < HONEST / 2.0, 2.0 * counts, 0.0)


NOISE: Mapping[str, Callable[[np.random.Generator, Floats], Floats]] = {
    "none": _none,
    "spread evenly": _even,
    "in one call of twenty": _clumped,
    "in one call of two hundred": _rare,
}
"""Tokens beyond the canonical ones that honest models need: none, or as many as are allowed on
average [calls]."""


def planted(rng: np.random.Generator, counts: Floats, share: float) -> Floats:
    """Tokens that were never needed [calls]."""
    return rng.binomial(counts.astype(np.int64), share).astype(np.float64)


def first_call(ratios: Floats, level: float) -> Floats:
    """Number of the call at which an audit trips, from 1; infinite if it does not [runs].

    Args:
        ratios: billed over canonical [runs, calls].
        level: chance of a false alarm.
    """
    logs = np.cumsum(bet_logs(ratios, HONEST), axis=1)
    top = logs.max(axis=-1)
    evidence = top + np.log(np.exp(logs - top[..., None]).mean(axis=-1))
    enough = evidence >= -np.log(level)
    return np.where(enough.any(axis=1), enough.argmax(axis=1) + 1.0, np.inf)


def first_z(ratios: Floats, level: float, fewest: int = 10) -> Floats:
    """Likewise of a test of Student's that is looked at after each call, as people do [runs]."""
    z = 2.326 if level == 0.01 else 1.645  # quantiles of the normal distribution
    number = np.arange(1.0, ratios.shape[1] + 1.0)
    mean = np.cumsum(ratios, axis=1) / number
    spread = np.sqrt(np.maximum(np.cumsum(ratios**2, axis=1) / number - mean**2, 1e-12))
    enough = (mean - 1.0 - HONEST) / spread * np.sqrt(number) > z
    enough[:, : fewest - 1] = False
    return np.where(enough.any(axis=1), enough.argmax(axis=1) + 1.0, np.inf)


_ASK = """
import importlib.util, json, os, pathlib, random
spec = importlib.util.find_spec("litellm")
folder = pathlib.Path(spec.submodule_search_locations[0]) / "litellm_core_utils" / "tokenizers"
os.environ.setdefault("TIKTOKEN_CACHE_DIR", str(folder))
import tiktoken
from pydoc_data.topics import topics
own = tiktoken.get_encoding("cl100k_base")
rng, lost, before, after = random.Random(0), 0, 0, 0
for text in topics.values():
    ids, more = own.encode(text, disallowed_special=()), []
    for token in ids:
        word = own.decode_single_token_bytes(token)
        cut = rng.randrange(1, len(word)) if len(word) > 1 and rng.random() < 0.1 else 0
        try:
            halves = (word[:cut], word[cut:])
            more += [own.encode_single_token(half) for half in halves] if cut else [token]
        except KeyError:
            more.append(token)
    again = own.decode(more)
    lost += again != text or own.encode(again, disallowed_special=()) != ids
    before, after = before + len(ids), after + len(more)
print(json.dumps([int(lost), after / before]))
"""


def real_encoding(python: str) -> tuple[int, float] | None:
    """Texts that are not recovered from their cut tokens, and how many more tokens those were.

    Args:
        python: whose tiktoken is asked, with the encodings that litellm brings along.

    Returns:
        None where it has no tiktoken, or no encodings.
    """
    if not python:
        return None
    done = subprocess.run(
        [python, "-c", _ASK], capture_output=True, text=True, check=False, timeout=120
    )
    if done.returncode != 0:
        return None
    lost, more = json.loads(done.stdout)
    return int(lost), float(more)
