"""Blocks that pin, in a model that is captured, run by hand and compiled."""

import pytest
import torch
from torch import nn

from weft.capture import SGD, Workload, capture, make_step, pinned
from weft.capture.position import here
from weft.core.errors import CaptureError, InputError
from weft.program.graph import Phase


def workload(model, shape=(4, 6, 8), **more):
    return Workload(
        name="toy",
        model=model,
        loss=lambda model, batch: model(batch["x"]).square().mean(),
        batch=lambda step: {"x": torch.linspace(0.0, 1.0, 192).reshape(shape)},
        optimizer=SGD(lr=0.1),
        **more,
    )


def pins_of(program):
    """What is pinned: (operator, wish) in execution order."""
    return [(node.op, str(pin.wish)) for node in program.nodes for pin in node.pins]


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x):
        with pinned(split=-1, ways=2):
            wide = torch.relu(self.up(x))
        return x + self.down(wide)


def test_what_operators_of_a_block_return_is_pinned():
    program = capture(workload(Mlp))
    assert pins_of(program) == [("add.Tensor", "S(-1)x2"), ("relu.default", "S(-1)x2")]
    source = next(pin.source for node in program.nodes for pin in node.pins)
    assert source.startswith("test_block.py:")
    assert all(node.phase is Phase.FORWARD for node in program.nodes if node.pins)


def test_a_pin_changes_nothing_else():
    class Plain(Mlp):
        def forward(self, x):
            return x + self.down(torch.relu(self.up(x)))

    with_pins, without = capture(workload(Mlp)), capture(workload(Plain))
    assert [node.op for node in with_pins.nodes] == [node.op for node in without.nodes]
    assert with_pins.digest != without.digest


def test_inner_blocks_replace_a_placement_and_keep_a_stage():
    class Nested(Mlp):
        def forward(self, x):
            with pinned(stage=1), pinned(split=1):
                wide = self.up(x)
                with pinned(replicated=True):
                    wide = torch.relu(wide)
            return self.down(wide)

    assert pins_of(capture(workload(Nested))) == [
        ("einsum", "stage 1"),
        ("add.Tensor", "stage 1"),
        ("add.Tensor", "S(1)"),
        ("relu.default", "stage 1"),
        ("relu.default", "R"),
    ]


def test_a_pinned_product_that_is_wanted_transposed_keeps_its_dims():
    class Turned(nn.Module):
        def __init__(self):
            super().__init__()
            self.up = nn.Linear(8, 16, bias=False)

        def forward(self, x):
            with pinned(split=1):
                wide = self.up(x)
            return torch.relu(wide.transpose(1, 2))

    (product,) = (node for node in capture(workload(Turned)).nodes if node.pins)
    assert product.op == "einsum"
    assert [str(size) for size in product.outputs] == ["f32[4,16,6]"]
    assert str(product.pins[0].wish) == "S(2)"


def test_a_block_of_which_nothing_is_left_is_refused():
    class Views(nn.Module):
        def __init__(self):
            super().__init__()
            self.up = nn.Linear(8, 16)

        def forward(self, x):
            with pinned(split=0):
                rows = x.reshape(24, 8)
            return self.up(rows)

    with pytest.raises(CaptureError, match=r"S\(0\) at test_block.py:\d+"):
        capture(workload(Views))


class Layer(nn.Module):
    def __init__(self, wish):
        super().__init__()
        self.up, self.wish = nn.Linear(8, 8), wish

    def forward(self, x):
        with pinned(**self.wish):
            return x + torch.relu(self.up(x))


class Deep(nn.Module):
    def __init__(self, wish):
        super().__init__()
        self.layers = nn.ModuleList(Layer(wish(index)) for index in range(20))

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


def test_a_deep_model_keeps_the_pins_of_each_layer():
    alike = capture(workload(lambda: Deep(lambda index: {"split": 1})))
    layer = [("add.Tensor", "S(1)"), ("relu.default", "S(1)"), ("add.Tensor", "S(1)")]
    assert pins_of(alike) == layer * 20
    different = capture(workload(lambda: Deep(lambda index: {"split": int(index == 11)})))
    layers = {
        node.scope.split(".")[1] for node in different.nodes for p in node.pins if p.wish.split == 1
    }
    assert layers == {"11"}


def test_nothing_happens_outside_of_capture():
    torch.manual_seed(0)
    model, x = Mlp(), torch.randn(2, 3, 8)
    plain = x + model.down(torch.relu(model.up(x)))
    assert torch.equal(model(x), plain)
    assert here().pins == ()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert torch.equal(compiled(x), plain)


def test_a_step_on_real_tensors_runs_through_blocks():
    step = make_step(workload(Mlp))
    made = workload(Mlp).model()
    state = {name: t.detach() for name, t in made.named_parameters()}
    state["optimizer.step"] = torch.zeros((), dtype=torch.int64)
    loss, _ = step(state, workload(Mlp).batch(0), torch.tensor(0))
    assert loss.isfinite()


def test_an_error_in_a_block_leaves_it():
    with pytest.raises(ZeroDivisionError), pinned(split=0):
        _ = 1 / 0
    assert here().pins == ()


def test_a_block_pins_one_thing():
    with pytest.raises(InputError, match="one of split="):
        pinned()
