"""`torch.compile(f, backend="weft")` makes what eager makes, forward and backward."""

from __future__ import annotations

import logging

import pytest
import torch
import torch.nn.functional as F

from tests.unit.fusion.compared import assert_alike, copies, normal, trained
from weft.core.errors import RunError

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # what Dynamo and Inductor warn of themselves
    pytest.mark.usefixtures("apart"),
]

BACKEND = "weft.fusion.backend"


def compiled(f, **options):
    return torch.compile(
        f, backend="weft", options={"strict": True, "every_region": True, **options}
    )


# --- inference and training ------------------------------------------------------------------


def rope(x, cos, sin):
    half = x.shape[-1] // 2
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), -1) * sin


def cross_entropy(x, target):
    return F.cross_entropy(x * 2.0, target, ignore_index=3, label_smoothing=0.1)


def masked(x, mask):
    return x.masked_fill(mask, -torch.inf).softmax(-1)


def mlp(x, first, second):
    return F.gelu(x @ first, approximate="tanh").mul(2.0) @ second + x.softmax(-1)


FUNCTIONS = {
    "layer norm": (
        lambda x, w, b: F.layer_norm(x, (33,), w, b),
        lambda: (normal(4, 17, 33), normal(33), normal(33)),
    ),
    "rms norm": (lambda x, w: F.rms_norm(x, (33,), w), lambda: (normal(17, 33), normal(33))),
    "softmax of columns": (lambda x: x.softmax(0), lambda: (normal(17, 33),)),
    "masked softmax": (masked, lambda: (normal(5, 17), normal(5, 17, grad=False) > 1.0)),
    "cross entropy": (cross_entropy, lambda: (normal(17, 9), torch.randint(0, 9, (17,)))),
    "group norm": (
        lambda x, w, b: F.group_norm(x, 3, w, b),
        lambda: (normal(2, 6, 5, 3), normal(6), normal(6)),
    ),
    "gelu": (lambda x: F.gelu(x * 3.0), lambda: (normal(257),)),
    "gelu by tanh": (lambda x: F.gelu(x * 3.0, approximate="tanh"), lambda: (normal(257),)),
    "silu times": (lambda x, y: F.silu(x) * y, lambda: (normal(3, 65), normal(3, 65))),
    "rotary embedding": (
        rope,
        lambda: (normal(2, 3, 7, 32), normal(7, 32, grad=False), normal(7, 32, grad=False)),
    ),
    "between matmuls": (mlp, lambda: (normal(5, 8), normal(8, 33), normal(33, 8))),
    "every second": (
        lambda x: x[:, ::2].exp() * x[:, 1::2] + (x * 2.0)[:, 4::5].sum(),
        lambda: (normal(3, 34),),
    ),
    "every third of odd": (lambda x: (x * 2.0)[::3].exp(), lambda: (normal(17, 3),)),
    "both ways": (lambda x: (x.exp() + x.t()) * x.exp().t(), lambda: (normal(17, 17),)),
    "rolled": (lambda x: torch.roll(x.exp(), 5, 0) + x.exp(), lambda: (normal(8, 3),)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_make_what_eager_makes_in_training(name, calls):
    f, make = FUNCTIONS[name]
    values = make()
    wanted = trained(f, copies(values))
    assert_alike(trained(compiled(f), copies(values)), wanted)
    assert calls


@pytest.mark.parametrize("name", ["layer norm", "masked softmax", "between matmuls"])
def test_functions_make_what_eager_makes_in_inference(name, calls):
    f, make = FUNCTIONS[name]
    values = make()
    with torch.no_grad():
        assert_alike(compiled(f)(*values), f(*values))
    assert calls


def test_batch_norm_in_training_moves_its_statistics(calls):
    models = [torch.nn.BatchNorm2d(6) for _ in range(2)]
    x = normal(3, 6, 5, 3)
    wanted = trained(lambda x: models[0](x).relu(), copies([x]))
    assert_alike(trained(compiled(lambda x: models[1](x).relu()), copies([x])), wanted)
    assert_alike(dict(models[1].named_buffers()), dict(models[0].named_buffers()))
    assert calls


def test_dropout_is_inductors_and_what_is_around_it_ours(calls):
    def f(x):
        return F.dropout(x.exp(), 0.5, training=True).softmax(-1)

    x = normal(5, 33)
    torch.manual_seed(1)
    wanted = trained(f, copies([x]))
    torch.manual_seed(1)
    assert_alike(trained(compiled(f, fallback_random=True), copies([x])), wanted)
    assert calls


def test_autocast_to_bf16_rounds_as_eager_does(calls):
    def f(x, first, second):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return F.gelu(F.layer_norm(x, (16,)) @ first) @ second

    values = [normal(7, 16), normal(16, 33), normal(33, 5)]
    wanted = trained(f, copies(values))
    got = trained(compiled(f), copies(values))
    assert_alike(got, wanted, rtol=4e-2, atol=4e-2)
    assert got[0].dtype is torch.bfloat16
    assert calls


# --- outputs ---------------------------------------------------------------------------------


def test_operators_in_place_change_their_inputs(calls):
    def f(x, y):
        x.mul_(2.0).add_(y)
        y[1:3] = x[0]
        return x.exp_().sum(1)

    values = [normal(5, 7, grad=False), normal(5, 7, grad=False)]
    ours, theirs = copies(values), copies(values)
    wanted = f(*theirs)
    assert_alike(compiled(f)(*ours), wanted)
    assert_alike(ours, theirs)
    assert calls


def test_outputs_may_be_views_of_one_another_and_of_inputs(calls):
    def f(x):
        y = (x * 2.0).exp() + 1.0
        return y, y.t(), y[1:, ::2], x.t(), x, y.view(-1), y

    x = normal(5, 6, grad=False)
    got = compiled(f)(x)
    assert_alike(got, f(x))
    assert got[3].data_ptr() == got[4].data_ptr() == x.data_ptr()
    assert got[1].data_ptr() == got[0].data_ptr() == got[6].data_ptr()
    assert calls


def test_inputs_may_lie_in_any_way_and_on_one_another(calls):
    def f(x, y, z):
        return (x * 2.0 + y.t()).amax(0), z.exp() + x

    x = normal(5, 5, grad=False)
    z = normal(1, 5, grad=False).expand(5, 5)
    assert_alike(compiled(f)(x, x, z), f(x, x, z))
    assert_alike(compiled(f)(x.t(), x[:, :], z), f(x.t(), x[:, :], z))
    assert calls


def test_channels_that_lie_last_stay_there(calls):
    def f(x, w):
        return x.mul(w[:, None, None]).relu(), x.sum((2, 3))

    x = normal(2, 6, 5, 3, grad=False).to(memory_format=torch.channels_last)
    w = normal(6, grad=False)
    assert_alike(compiled(f)(x, w), f(x, w))
    assert calls


def test_tensors_without_dims_and_plain_numbers_are_tensors_too(calls):
    def f(x, number):
        return x * number + 1, x.exp() - number, number

    x = torch.tensor(0.3)
    for number in (2, 0.5):
        assert_alike(compiled(f)(x, number), f(x, number))
    assert calls


def test_whole_numbers_are_exact(calls):
    def f(i, j, k):
        far = i * 3 - j.abs() + (i // 2).clamp(-2, 5)
        return far, far.amax(0), i.sum(), k.sum(1), i / j, (i > j) & (i != 2), k.float().mean()

    i, j = torch.randint(-9, 9, (5, 17)), torch.randint(1, 9, (17,))
    k = torch.full((5, 17), 2**30, dtype=torch.int32)
    assert_alike(compiled(f)(i, j, k), f(i, j, k))
    assert calls


def test_masks_are_added_multiplied_ordered_counted_and_looked_up(calls):
    def f(a, b, index):
        return a + b, a * b, a < b, a ^ b, a.sum(0), a.any(1), b.all(0), a.gather(1, index)

    a, b = (normal(5, 17, grad=False) > 0 for _ in range(2))
    index = torch.randint(0, 17, (5, 4))
    assert_alike(compiled(f)(a, b, index), f(a, b, index))


def test_bytes_wrap_around(calls):
    def f(x):
        return (x + x).float(), ~x > 100, (-x).float(), (x * 3).to(torch.int64), x - 7

    x = torch.arange(256, dtype=torch.uint8)
    assert_alike(compiled(f)(x), f(x))
    assert calls


def test_powers_of_whole_numbers_are_exact(calls):
    i = torch.randint(-4, 5, (33,))
    assert_alike(compiled(lambda i: i**5 + i**3)(i), i**5 + i**3)


def test_no_number_stays_none(calls):
    def f(x):
        y = x * 2.0
        return y.sign(), y.relu(), y.clamp(-1.0, 1.0), y.amax(), y.maximum(x), y.exp(), y.tanh()

    x = torch.tensor([torch.nan, torch.inf, -torch.inf, -0.0, 0.0, 1e30, -1e30, 1e-40])
    assert_alike(compiled(f)(x), f(x))
    assert calls


def test_a_comparison_of_two_constants_is_one_of_numbers(calls):
    def f(x):
        rows, columns = torch.arange(3)[:, None], torch.arange(2, 5)
        return x.masked_fill((rows + 1 >= columns)[1:2], 0.0), x.masked_fill((rows >= columns), 1.0)

    x = normal(1, 3, grad=False)
    assert_alike(compiled(f)(x), f(x))


def test_tensors_without_elements_are_left_to_inductor():
    def f(x, y):
        return x.exp().sum(), x * 2.0, torch.cat((x, y)).exp()

    x, y = torch.zeros(0, 3), normal(2, 3, grad=False)
    assert_alike(compiled(f)(x, y), f(x, y))


def test_operators_around_what_is_not_ours_are_compiled_all_the_same(calls):
    def f(x):
        return (x * 5).round() + (x * 5).trunc() + (x * 5).ceil(), (x * 2.0).sort(1)[0].exp()

    x = normal(17, 33, grad=False)
    assert_alike(compiled(f)(x), f(x))
    assert calls


def test_a_function_is_compiled_again_for_another_shape(calls):
    ours = compiled(lambda x: x.exp().sum(0))
    for shape in ((3, 5), (4, 5), (5, 7)):
        x = normal(*shape, grad=False)
        assert_alike(ours(x), x.exp().sum(0))
    assert calls


def test_an_index_that_is_outside_is_an_error():
    def f(x, index):
        return x.gather(0, index) * 2.0

    ours = compiled(f)
    x = normal(5, grad=False)
    assert_alike(ours(x, torch.tensor([0, 4])), f(x, torch.tensor([0, 4])))
    with pytest.raises((IndexError, RuntimeError)):
        ours(x, torch.tensor([0, 5]))


# --- regions that cannot be compiled ---------------------------------------------------------


def refuse(monkeypatch):
    def compile_region(*given):
        raise RunError(need="code that compiles", got="some that does not", hint="none")

    monkeypatch.setattr(f"{BACKEND}.compile_region", compile_region)


def f_of_two(x):
    return x.exp().sum(1)


def test_strictly_a_region_that_cannot_be_compiled_is_an_error(monkeypatch):
    refuse(monkeypatch)
    with pytest.raises(Exception, match="some that does not"):
        compiled(f_of_two)(normal(5, 37, grad=False))


def test_else_it_is_left_to_inductor_with_a_warning_that_names_operators(monkeypatch, caplog):
    refuse(monkeypatch)
    x = normal(5, 37, grad=False)
    with caplog.at_level(logging.WARNING, logger="weft.fusion"):
        got = torch.compile(f_of_two, backend="weft")(x)
    assert_alike(got, f_of_two(x))
    said = [record.getMessage() for record in caplog.records if record.name == "weft.fusion"]
    assert said
    assert all("exp" in line and "some that does not" in line for line in said)


# --- regions that gain nothing ---------------------------------------------------------------


def chain(x, w):
    return ((x @ w) * 2.0).neg() @ w


def test_a_region_that_gains_nothing_is_left_to_inductor_and_explain_says_why(calls):
    from weft.fusion import explain

    values = [normal(64, 33, grad=False), normal(33, 33, grad=False)]
    assert_alike(torch.compile(chain, backend="weft")(*values), chain(*values))
    assert not calls
    (region,) = explain(chain, *values).regions
    assert "for the call, against" in region.left


def test_a_graph_that_is_one_loop_is_left_to_inductor_and_explain_says_why(calls):
    from weft.fusion import explain

    def loop(x):
        return (x * 2.0).neg() + 1.0

    x = normal(64, 33, grad=False)
    assert_alike(torch.compile(loop, backend="weft")(x), loop(x))
    assert not calls
    (region, *_) = explain(loop, x).regions
    assert region.left.startswith("one loop, ")


def test_every_region_is_taken_where_that_is_asked_for(calls):
    values = [normal(64, 33, grad=False), normal(33, 33, grad=False)]
    assert_alike(compiled(chain)(*values), chain(*values))
    assert calls


def test_strides_of_dims_with_one_index_mean_nothing(calls):
    from weft.core.errors import InputError

    values = [normal(5, 1, 7, grad=False), normal(7, grad=False)]
    ours = compiled(lambda x, w: (x * w).exp())
    wanted = ours(*values)
    (kernel,) = set(calls)
    lies_elsewhere = values[0].as_strided((5, 1, 7), (7, 1, 1))
    (got,) = kernel([lies_elsewhere, values[1]])
    assert_alike(got, wanted)
    with pytest.raises(InputError, match="strides"):
        kernel([values[0].as_strided((5, 1, 7), (1, 7, 1)), values[1]])


def test_parts_of_a_split_that_others_read_too_are_inputs(calls):
    def f(x, w):
        first, second, third = (x @ w).split(11, 1)
        return first.exp() + second, second @ w[:11], third.exp().sum(1)

    values = [normal(17, 33, grad=False), normal(33, 33, grad=False)]
    assert_alike(compiled(f)(*values), f(*values))
    assert calls


def test_inputs_that_inductor_would_put_in_a_concatenation_lie_as_they_should(calls):
    def f(x, w):
        first = (x * 5.0).round()
        made = torch.cat([first, (x * 3.0).round()], 1) @ w
        return (first.sin() + made).exp().sum(1)

    values = [normal(17, 33, grad=False) / 50, normal(66, 33, grad=False) / 50]
    assert_alike(compiled(f)(*values), f(*values))
    assert calls
