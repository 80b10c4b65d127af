import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.core.errors import InputError, VerifyError
from weft.tokens import Money, usd
from weft.tokens.macro import Bid, Bidder, auction, first_price, vcg, winners

bids = st.builds(
    lambda units, nano: Bid(units=units, worth=Money(nano)),
    st.tuples(st.integers(0, 3), st.integers(0, 3)),
    st.integers(0, 10**9),
)
bidders = st.lists(
    st.lists(bids, min_size=1, max_size=3).map(lambda own: Bidder(name="", bids=tuple(own))),
    min_size=1,
    max_size=4,
)
SUPPLY = (3, 4)


def exhaustive(bidders, supply):
    """The most valuable set, by trying them all."""
    options = [[None, *range(len(own.bids))] for own in bidders]
    best = 0
    for picks in itertools.product(*options):
        won = [own.bids[p] for own, p in zip(bidders, picks, strict=True) if p is not None]
        if all(sum(b.units[s] for b in won) <= supply[s] for s in range(len(supply))):
            best = max(best, sum(b.worth.nano for b in won))
    return best


@settings(max_examples=60, deadline=None)
@given(bidders=bidders)
def test_winners_are_the_best_set_by_both_ways(bidders):
    best = exhaustive(bidders, SUPPLY)
    assert winners(bidders, SUPPLY)[1].nano == best
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(auction, "MANY", 0)
        won, worth = winners(bidders, SUPPLY)
    assert worth.nano == pytest.approx(best, abs=1)
    taken = [own.bids[p].units for own, p in zip(bidders, won, strict=True) if p is not None]
    assert all(sum(own[s] for own in taken) <= SUPPLY[s] for s in range(2))


@settings(max_examples=60, deadline=None)
@given(bidders=bidders, lies=st.lists(st.lists(bids, min_size=1, max_size=3), max_size=8))
def test_nobody_gains_by_a_lie_and_nobody_pays_too_much(bidders, lies):
    honest = vcg(bidders, SUPPLY)
    for own, pick, pays in zip(bidders, honest.won, honest.pays, strict=True):
        assert 0 <= pays.nano <= (0 if pick is None else own.bids[pick].worth.nano)
    truth = bidders[0]

    def gain(sale, said):
        got = None if sale.won[0] is None else said.bids[sale.won[0]].units
        fits = [b.worth.nano for b in truth.bids if got and all(map(int.__le__, b.units, got))]
        return max(fits, default=0) - sale.pays[0].nano

    scaled = [[replace(b, worth=b.worth * f) for b in truth.bids] for f in (0, 2, 50)]
    for told in [*lies, *scaled]:
        said = Bidder(name="", bids=tuple(told))
        assert gain(vcg([said, *bidders[1:]], SUPPLY), said) <= gain(honest, truth)


def test_a_bid_below_the_truth_pays_where_bids_are_paid():
    two = [Bidder(name=n, bids=(Bid(units=(1,), worth=usd(w)),)) for n, w in (("a", 9), ("b", 5))]
    less = [replace(two[0], bids=(Bid(units=(1,), worth=usd(6)),)), two[1]]
    assert first_price(two, [1]).pays[0] == usd(9)
    assert first_price(less, [1]).won[0] == 0 and first_price(less, [1]).pays[0] == usd(6)
    assert vcg(two, [1]).pays[0] == vcg(less, [1]).pays[0] == usd(5)


def test_bundles_of_other_things_and_currencies_are_refused():
    odd = [Bidder(name="a", bids=(Bid(units=(1, 1), worth=usd(1)),))]
    with pytest.raises(InputError, match="bundles of the 1 things"):
        vcg(odd, [3])
    mixed = [Bidder(name="a", bids=(Bid(units=(1,), worth=Money(1, "eur")),)), *vcg_one()]
    with pytest.raises(InputError, match="one currency"):
        vcg(mixed, [3])
    with pytest.raises(InputError, match="at least zero"):
        Bid(units=(-1,), worth=usd(1))


def vcg_one():
    return [Bidder(name="b", bids=(Bid(units=(1,), worth=usd(1)),))]


def test_a_programme_that_is_not_done_says_so(monkeypatch):
    monkeypatch.setattr(auction, "MANY", 0)
    many = [
        Bidder(
            name="",
            bids=tuple(Bid(units=(n % 7 + m, 9 - m), worth=usd(n % 5 + m)) for m in (1, 2, 3)),
        )
        for n in range(60)
    ]
    with pytest.raises(VerifyError, match="the best set of winners"):
        winners(many, [90, 90], seconds=0.0)


def test_nobody_bids():
    assert vcg([], [3]).won == ()
