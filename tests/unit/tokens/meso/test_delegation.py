import numpy as np
import pytest

from weft.core.errors import InputError
from weft.tokens.meso import Handover, delegation


def tried(gains, sent=4000):
    return [Handover(sent=sent, read=500, gain=float(g)) for g in gains]


def test_it_pays_until_talk_costs_what_it_brings():
    gains = np.random.default_rng(0).normal(0.05, 0.005, 50)
    cheap = delegation(tried(gains), sent_usd=3e-6, read_usd=3e-6)
    assert cheap.usd.value == pytest.approx(gains.mean() - 4500 * 3e-6)
    assert cheap.usd.low > 0.0 and cheap.is_decided
    dear = delegation(tried(gains, sent=40_000), sent_usd=3e-6, read_usd=3e-6)
    assert dear.usd.high < 0.0
    assert "does not pay" in dear.explain()
    assert cheap.communication_usd == pytest.approx(0.0135)


def test_doubt_is_said():
    told = delegation(tried([0.5, -0.4, 0.1]), sent_usd=3e-6, read_usd=3e-6)
    assert not told.is_decided and "not told from nothing" in told.explain()


def test_coordination_and_risk_are_taken_off():
    plain, more = (
        delegation(tried([0.5, 0.6]), sent_usd=0, read_usd=0, coordination_usd=c, risk_usd=c)
        for c in (0.0, 0.1)
    )
    assert plain.usd.value - more.usd.value == pytest.approx(0.2)
    with pytest.raises(InputError, match="two handovers"):
        delegation(tried([0.5]), sent_usd=0, read_usd=0)
