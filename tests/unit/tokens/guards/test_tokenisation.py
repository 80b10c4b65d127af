from pydoc_data.topics import topics

import numpy as np
import pytest

from tests.unit.tokens.guards.letters import Letters
from weft.core.errors import FileError, InputError
from weft.tokens import Count, exactly
from weft.tokens.guards import TokenAudit, TokenizersEncoder, hidden_tokens
from weft.tokens.guards.tokenisation import HONEST, bet_logs


@pytest.fixture(scope="module")
def encoding():
    tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")
    own = tokenizers.Tokenizer(tokenizers.models.BPE())
    own.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    own.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=1500,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    own.train_from_iterator(list(topics.values())[:20], trainer)
    return own


def pieces(encoding, ids):
    """Each token in two, where the vocabulary has both halves."""
    found = []
    for own in ids:
        word = encoding.id_to_token(own)
        halves = [encoding.token_to_id(part) for part in (word[:1], word[1:])]
        found += halves if len(word) > 1 and None not in halves else [own]
    return found


def test_a_text_in_more_tokens_than_it_needs_is_found_out(encoding):
    encoder = TokenizersEncoder(encoding, "small")
    honest, cheat = TokenAudit(encoder), TokenAudit(encoder)
    for text in list(topics.values())[20:60]:
        ids = encoding.encode(text).ids
        more = pieces(encoding, ids)
        assert encoding.decode(more) == text and len(more) > 1.2 * len(ids)
        assert encoder.count(encoding.decode(more)) == len(ids)
        fair = honest.observe(text, exactly(len(ids)))
        found = cheat.observe(text, exactly(len(more)))
    assert not fair.tripped and fair.ratio == (1.0, 1.0) and fair.overcharge == 0.0
    assert found.tripped and found.at <= 5
    assert 0.1 < found.overcharge < found.ratio[0] - 1.0 - HONEST


def test_honest_bills_are_seldom_doubted_however_often_they_are_looked_at():
    rng = np.random.default_rng(0)
    runs, calls, sizes = 1000, 400, 300
    noises = {
        "even": rng.binomial(sizes, HONEST, (runs, calls)) / sizes,
        "rare": 3.0 * (rng.random((runs, calls)) < HONEST / 3.0),
        "shrinking": np.where(rng.random((runs, calls)) < 0.5, -0.08, 0.1),
    }
    for noise in noises.values():
        assert noise.mean() == pytest.approx(HONEST, abs=2e-3)
        logs = np.cumsum(bet_logs(1.0 + noise, HONEST), axis=1)
        evidence = np.exp(logs).mean(axis=-1)
        assert (evidence.max(axis=1) >= 20.0).mean() <= 0.05


def test_bets_are_fair_at_the_average_that_is_allowed():
    # Two ratios, with chances such that their mean is 1 + HONEST: each bet is worth 1.
    low, high = 0.95, 1.5
    chance = (1.0 + HONEST - low) / (high - low)
    worth = np.exp(bet_logs(np.array([low, high]), HONEST))
    assert np.allclose(worth.T @ [1.0 - chance, chance], 1.0)


def test_the_bound_on_the_overcharge_holds_at_all_times():
    rng = np.random.default_rng(1)
    over = 0
    for _ in range(60):
        audit = TokenAudit(Letters(), level=0.1, honest=0.0)
        told = [
            audit.observe("x" * 200, exactly(200 + int(own))) for own in rng.binomial(200, 0.1, 80)
        ]
        over += max(own.overcharge for own in told) > 0.1
        assert told[-1].overcharge > 0.05
    assert over <= 6


def test_what_is_hidden_is_no_evidence():
    audit = TokenAudit(Letters())
    for _ in range(50):
        told = audit.observe("abcdef", Count(0, 60))
    assert not told.tripped and told.ratio == (0.0, 10.0)
    assert audit.observe("abc", Count(0, None)).ratio[1] == float("inf")


def test_tokens_that_are_no_text_and_texts_that_are_none():
    audit = TokenAudit(Letters(), overhead=3)
    for _ in range(50):
        told = audit.observe("abcdef", exactly(9))
    assert not told.tripped and told.billed == exactly(300)
    assert audit.observe("", exactly(7)).calls == 50


def test_what_is_spent_after_it_was_enough_is_summed():
    audit = TokenAudit(Letters())
    told = [audit.observe("x" * 50, exactly(100), 0.5) for _ in range(30)]
    at = told[-1].at
    assert told[at - 1].tripped and not told[at - 2].tripped
    assert told[-1].usd_after == pytest.approx(0.5 * (30 - at))


def test_a_restart_changes_nothing():
    one, two = TokenAudit(Letters()), TokenAudit(Letters())
    for size in range(1, 9):
        one.observe("x" * 20, exactly(20 + size))
    two.restore(one.to_json())
    assert one.observe("abc", exactly(5), 1.0) == two.observe("abc", exactly(5), 1.0)
    for text in ("", "{}", TokenAudit(Letters(), honest=0.2).to_json()):
        with pytest.raises(FileError):
            one.restore(text)


@pytest.mark.parametrize("wrong", [{"level": 1.0}, {"honest": -1.0}, {"least": 2.0}])
def test_settings_that_are_none_are_refused(wrong):
    with pytest.raises(InputError):
        TokenAudit(Letters(), **wrong)


def test_hidden_tokens_are_bounded_by_bill_and_time():
    assert hidden_tokens(exactly(500), 100, seconds=1e3, tokens_per_s=50.0) == Count(0, 400)
    assert hidden_tokens(exactly(500), 100, seconds=4.0, tokens_per_s=50.0) == Count(0, 100)
    assert hidden_tokens(Count(0, None), 100, seconds=1.0, tokens_per_s=50.0) == exactly(0)
    with pytest.raises(InputError):
        hidden_tokens(exactly(5), 1, seconds=-1.0, tokens_per_s=50.0)
