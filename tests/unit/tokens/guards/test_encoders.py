import sys
from types import SimpleNamespace

import pytest

from weft.core.errors import InputError
from weft.tokens.guards import TiktokenEncoder, TokenizersEncoder, open_encoder


@pytest.fixture
def tiktoken(monkeypatch):
    """The functions of tiktoken that are used, with an encoding of words."""

    def find(name):
        if name == "lost":
            raise OSError("no network")
        return SimpleNamespace(name="words", encode=lambda text, disallowed_special: text.split())

    own = SimpleNamespace(
        list_encoding_names=lambda: ["words", "lost"],
        get_encoding=find,
        encoding_for_model=lambda model: find("words"),
    )
    monkeypatch.setitem(sys.modules, "tiktoken", own)


def test_encodings_are_found_by_their_names_and_by_models(tiktoken):
    for name in ("words", "gpt-99"):
        encoder = open_encoder(name)
        assert encoder.name == "words" and encoder.count("three words here") == 3


def test_an_encoding_that_cannot_be_had_is_named(tiktoken):
    with pytest.raises(InputError, match="TIKTOKEN_CACHE_DIR"):
        TiktokenEncoder("lost")


def test_the_real_tiktoken_counts_where_it_is_at_hand():
    pytest.importorskip("tiktoken", reason="tiktoken is not installed")
    try:
        encoder = TiktokenEncoder("cl100k_base")
    except InputError as error:
        pytest.skip(f"no encoding at hand: {error.got[:60]}")
    assert encoder.count("hello world") == 2


def test_a_library_that_is_missing_is_said_to_be(monkeypatch):
    monkeypatch.setitem(sys.modules, "tiktoken", None)
    with pytest.raises(InputError, match="pip install tiktoken"):
        TiktokenEncoder("cl100k_base")


def test_files_of_tokenizers_are_read(tmp_path):
    tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")
    own = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "b": 1, "?": 2}, "?"))
    own.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    path = tmp_path / "tokenizer.json"
    own.save(str(path))
    encoder = open_encoder(str(path))
    assert isinstance(encoder, TokenizersEncoder)
    assert (encoder.name, encoder.count("a b c")) == ("tokenizer.json", 3)
    path.write_text("{}")
    with pytest.raises(InputError, match=r"tokenizer\.json"):
        open_encoder(str(path))
