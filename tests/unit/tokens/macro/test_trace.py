import numpy as np
import pytest

from tests.unit.tokens.macro.test_batching import SIZES, TIMES
from weft.core.errors import FileError, InputError
from weft.tokens.macro import BatchServer
from weft.tokens.macro.trace import Trace, read_trace, server_seconds, size_kinds


def drawn(count, seed=0, rate=5.0):
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 3, count)
    columns = [[int(getattr(own, name)) for own in SIZES] for name in ("fresh", "cached", "output")]
    fresh, cached, output = (np.array(column)[kind] for column in columns)
    arrivals = np.cumsum(rng.exponential(1.0 / rate, count))
    return Trace(arrival_s=arrivals, fresh=fresh, cached=cached, output=output)


def test_tables_of_dates_and_of_seconds_are_read(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:15:50.9951690,396,109\n2023-11-16 18:15:46.6805900,374,44\n"
    )
    found = read_trace(path)
    assert found.arrival_s == pytest.approx([0.0, 4.314579])
    assert (found.fresh.tolist(), found.output.tolist()) == ([374, 396], [44, 109])
    path.write_text("arrival_s,input_tokens,cached_tokens,output_tokens\n1.5,10,,2\n3,25,5,4\n")
    found = read_trace(path)
    assert (found.arrival_s.tolist(), found.cached.tolist()) == ([0.0, 1.5], [0, 5])
    assert found.fresh.tolist() == [10, 20]


def test_other_tables_are_refused(tmp_path):
    with pytest.raises(FileError, match=r"none\.csv"):
        read_trace(tmp_path / "none.csv")
    none, some = np.zeros(0, dtype=np.int64), np.ones(2, dtype=np.int64)
    with pytest.raises(InputError, match="0 arrivals"):
        Trace(arrival_s=np.zeros(0), fresh=none, cached=none, output=none)
    with pytest.raises(InputError, match="arrivals in order"):
        Trace(arrival_s=np.array([1.0, 0.0]), fresh=some, cached=some, output=some)


def test_work_is_what_a_full_server_does_in_a_second():
    # As the server's load has it, but for prompts that come one by one.
    trace = drawn(3000)
    kinds, which = size_kinds(trace, 3)
    rates = np.bincount(which) / trace.seconds
    work = server_seconds(trace, TIMES, 256).sum() / trace.seconds
    assert work == pytest.approx(BatchServer(TIMES, kinds, 256).load(rates), rel=0.2)
    stretched = trace.at_load(0.5, TIMES, 256)
    assert server_seconds(stretched, TIMES, 256).sum() / stretched.seconds == pytest.approx(0.5)


def test_kinds_hold_all_tokens():
    trace = drawn(500)
    kinds, which = size_kinds(trace, 3)
    for name in ("fresh", "cached", "output"):
        held = sum(getattr(kinds[number], name) for number in which.tolist())
        assert held == pytest.approx(float(getattr(trace, name).sum()))
    assert len(trace.first(10)) == 10
