"""Laws of the data that recipes train on."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from real_data import digits, digits_batch, english_text, text_batch

SIZES = st.tuples(st.integers(0, 10_000), st.integers(1, 64), st.integers(1, 256))


@given(SIZES)
def test_a_target_is_the_token_after_its_token(sizes):
    step, batch, sequence = sizes
    entries = text_batch(step, batch, sequence)
    assert entries["tokens"].shape == entries["targets"].shape == (batch, sequence)
    assert torch.equal(entries["tokens"][:, 1:], entries["targets"][:, :-1])


@given(SIZES)
def test_a_row_of_text_goes_on_where_it_ended_one_step_before(sizes):
    step, batch, sequence = sizes
    before, after = (text_batch(s, batch, sequence) for s in (step, step + 1))
    room = len(english_text()) // batch - sequence
    if (step + 1) * sequence % room >= sequence:  # the row has not begun again
        assert torch.equal(before["targets"][:, -1], after["tokens"][:, 0])


def test_the_text_is_readable_english():
    text = bytes(english_text().tolist()).decode()
    words = text.split()
    assert len(text) > 100_000
    assert words.count("the") > len(words) // 50


@given(st.integers(0, 1000), st.integers(1, 200))
def test_digits_repeat_only_after_all_of_them_have_been_seen(step, batch):
    images, labels = digits()
    entries = digits_batch(step, batch)
    assert entries["images"].shape == (batch, 1, 8, 8)
    for row in range(batch):
        number = (step * batch + row) % len(labels)
        assert torch.equal(entries["images"][row, 0], images[number])
        assert entries["labels"][row] == labels[number]


def test_digits_have_mean_0_and_variance_1_and_ten_classes():
    images, labels = digits()
    torch.testing.assert_close(images.mean(), torch.tensor(0.0), atol=1e-5, rtol=0)
    torch.testing.assert_close(images.var(), torch.tensor(1.0), atol=1e-4, rtol=0)
    assert labels.unique().tolist() == list(range(10))
