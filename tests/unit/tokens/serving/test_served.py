"""Steps of a served model, against the cost model and against themselves."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from weft.core.errors import FileError, InfeasibleError, InputError
from weft.machine import preset
from weft.tokens.serving import (
    Decoder,
    Request,
    ServedPlan,
    StepLoad,
    break_even,
    list_usd,
    load_decoder,
    load_requests,
    load_served_plan,
    priced_steps,
    save_served_plan,
    served_prices,
    step_seconds,
)
from weft.tokens.serving.demand import peak_rate
from weft.tokens.serving.layers import Batch, kv_bytes, weight_bytes
from weft.tokens.serving.served import step_load

SMALL = Decoder(
    name="8b",
    layers=32,
    hidden=4096,
    heads=32,
    kv_heads=8,
    head=128,
    feed_forward=14336,
    vocabulary=128256,
)
LARGE = replace(SMALL, name="70b", layers=80, hidden=8192, heads=64, feed_forward=28672)


def plan(decoder: Decoder = SMALL, degree: int = 1, machine: str = "dgx-h100x1") -> ServedPlan:
    return ServedPlan(
        decoder=decoder,
        machine=preset(machine),
        degree=degree,
        usd_per_device_hour=2.5,
        source="a test",
    )


def told(steps, batch: Batch) -> float:
    load = StepLoad(batch.tokens, batch.sequences, batch.pairs, batch.context_tokens)
    return steps.times.seconds(load)


@pytest.mark.parametrize(
    ("decoder", "degree", "machine"),
    [(SMALL, 1, "dgx-h100x1"), (SMALL, 2, "dgx-a100x1"), (LARGE, 4, "dgx-h100x1")],
)
def test_lines_follow_the_cost_model_where_they_were_not_fitted(decoder, degree, machine):
    own = plan(decoder, degree, machine)
    steps = priced_steps(own)
    assert steps.farthest < 0.08
    for batch in (
        *(Batch(0, 0, 16, 600), Batch(0, 0, 90, 3_000), Batch(1_500, 500, 0, 0)),
        *(Batch(700, 0, 48, 1_500), Batch(2_048, 1_000, 200, 500), Batch(16, 16_000, 4, 200)),
        *(Batch(2_048, 16_000, 128, 8_000), Batch(512, 9_000, 100, 2_500)),
    ):
        # A step that makes no word does not read the words' weights, which lines do not know.
        limit = 0.04 if batch.sequences else 0.08
        assert told(steps, batch) == pytest.approx(step_seconds(own, batch), rel=limit)


def test_stages_share_layers_and_keys_and_take_turns():
    whole, parts = plan(LARGE, 4), replace(plan(LARGE, 4), stages=2)
    assert (parts.devices, parts.stage.layers) == (8, 40)
    one, two = priced_steps(whole), priced_steps(parts)
    # Half of the layers leaves more than twice the room for keys.
    assert two.kv_bytes == one.kv_bytes / 2
    assert two.times.cache_tokens > 2 * one.times.cache_tokens
    # A step is one batch in each stage: as long as one of all layers, with twice as much in it.
    batch = Batch(512, 0, 64, 1_000)
    took = step_seconds(parts, batch)
    words = step_seconds(replace(whole, decoder=replace(LARGE, layers=1)), batch)
    assert step_seconds(whole, batch) < took < step_seconds(whole, batch) + words
    assert two.times.seconds(step_load(parts, batch)) == pytest.approx(took, rel=0.03)
    assert two.farthest < 0.03


def test_a_model_too_large_for_a_node_is_told_how_many_stages():
    huge = replace(LARGE, name="405b", layers=126, hidden=16384, heads=128, feed_forward=53248)
    with pytest.raises(InfeasibleError, match="16 devices for a server, as 2 stages"):
        priced_steps(plan(huge, 8))
    fits = replace(plan(huge, 8, "dgx-h100x2"), stages=2)
    assert priced_steps(fits).times.cache_tokens > 100_000


def test_weights_and_keys_are_those_of_the_published_models():
    # Llama 3.1: 8.03 and 70.6 thousand million parameters (arXiv 2407.21783, table 3), norms apart.
    assert weight_bytes(SMALL, 1) == pytest.approx(2 * 8.03e9, rel=2e-3)
    assert weight_bytes(LARGE, 1) == pytest.approx(2 * 70.6e9, rel=2e-3)
    assert kv_bytes(SMALL, 1) == 2 * 32 * 8 * 128 * 2
    assert weight_bytes(LARGE, 4) == pytest.approx(weight_bytes(LARGE, 1) / 4, rel=1e-6)


def test_an_answer_alone_waits_for_weights_and_a_prompt_for_arithmetic():
    own = plan()
    device = own.machine.groups[0].device
    alone = step_seconds(own, Batch(0, 0, 1, 1))
    assert alone > weight_bytes(SMALL, 1) * 0.9 / device.memory_bytes_per_s.value
    prompt = step_seconds(own, Batch(2048, 0, 0, 0))
    rate = device.matmul_flops_per_s["bf16"].value
    assert prompt > 2 * 2048 * (weight_bytes(SMALL, 1) / 2 - 2 * SMALL.vocabulary * 4096) / rate


def test_half_as_fast_a_machine_costs_twice_as_much():
    # There is no figure of hardware but the machine's: all of it scales.
    own = plan()
    group = own.machine.groups[0]

    def slower(quantity, by=0.5):
        return replace(quantity, value=quantity.value * by)

    device = replace(
        group.device,
        matmul_flops_per_s={k: slower(q) for k, q in group.device.matmul_flops_per_s.items()},
        vector_flops_per_s=slower(group.device.vector_flops_per_s),
        memory_bytes_per_s=slower(group.device.memory_bytes_per_s),
        launch_s=slower(group.device.launch_s, 2.0),
    )
    half = replace(own, machine=replace(own.machine, groups=(replace(group, device=device),)))
    asked = [Request(arrival_s=t, input_tokens=800, output_tokens=200) for t in range(100)]
    fast, slow = served_prices(own, asked), served_prices(half, asked)
    # Pace is bounded by what a token may take, which does not scale; far from it all does.
    for name in ("server_s",):
        assert getattr(slow.full, name) == pytest.approx(2 * getattr(fast.full, name), rel=0.03)


def test_what_does_not_fit_is_refused_with_what_would():
    with pytest.raises(InfeasibleError, match=r"131\.4 GiB[\s\S]*2 devices for a server"):
        priced_steps(plan(LARGE))


def test_utilisation_is_load_over_what_the_busiest_minute_needs():
    # A minute with ten requests a second, then nine with one.
    busy = [Request(arrival_s=n / 10, input_tokens=1000, output_tokens=200) for n in range(600)]
    calm = [Request(arrival_s=60.0 + n, input_tokens=1000, output_tokens=200) for n in range(540)]
    found = served_prices(plan(), [*busy, *calm])
    assert found.peak == pytest.approx(10.0)
    assert found.rate == pytest.approx(1139 / 599)
    assert found.servers == 1
    assert found.utilisation == pytest.approx(found.rate * found.full.server_s)
    full = found.usd_per_million(found.full.output_s, full=True)
    assert found.usd_per_million(found.full.output_s) == pytest.approx(full / found.utilisation)
    assert found.usd_per_request == pytest.approx(2.5 / 3600 / found.rate)


def test_break_even_is_where_an_hour_costs_what_the_list_asks():
    asked = [Request(arrival_s=t, input_tokens=1000, output_tokens=200) for t in range(60)]
    found = served_prices(plan(), asked)
    at_full = found.full.server_s * 2.5 / 3600
    even = break_even(found, 4 * at_full, 0.2)
    assert even.utilisation == pytest.approx((0.2, 0.25, 0.3))
    assert even.is_certain
    assert even.requests_per_s == pytest.approx(0.25 / found.full.server_s)
    assert not break_even(found, at_full, 0.2).is_certain
    for wrong in (0.0, float("nan")):
        with pytest.raises(InputError, match="list price above 0"):
            break_even(found, wrong, 0.2)


def test_a_list_price_is_that_of_each_request(tmp_path):
    from weft.tokens.prices import FileBook

    path = tmp_path / "prices.yaml"
    path.write_text(
        "prices:\n  - {provider: own, model: m, usd: {fresh: 2, cache_read: 0.2, text: 8}}\n"
    )
    asked = [
        Request(arrival_s=0, input_tokens=150, cached_tokens=50, output_tokens=10),
        Request(arrival_s=1, input_tokens=300, output_tokens=30),
    ]
    usd = (400 * 2 + 50 * 0.2 + 40 * 8) / 2 / 1e6
    assert list_usd("own/m", FileBook(path), asked, 1.8e9) == pytest.approx(usd)
    with pytest.raises(InputError, match="own/n"):
        list_usd("own/n", FileBook(path), asked, 1.8e9)


def test_a_plan_survives_its_file(tmp_path):
    own = plan(LARGE, 4)
    save_served_plan(own, tmp_path / "plan.json")
    again = load_served_plan(tmp_path / "plan.json")
    assert (again.decoder, again.degree, again.source) == (own.decoder, 4, "a test")
    assert again.machine.digest == own.machine.digest
    text = json.loads((tmp_path / "plan.json").read_text())
    for wrong in ({"degree": "4"}, {"version": 2}, {"usd_per_device_hour": -1}, {"decoder": 1}):
        (tmp_path / "bad.json").write_text(json.dumps(text | wrong))
        with pytest.raises(FileError):
            load_served_plan(tmp_path / "bad.json")


CONFIG = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "torch_dtype": "bfloat16",
    "vocab_size": 128256,
}


def test_a_config_is_read_as_its_publisher_writes_it(tmp_path):
    path = tmp_path / "8b" / "config.json"
    path.parent.mkdir()
    path.write_text(json.dumps(CONFIG))
    assert load_decoder(path) == SMALL
    alone = {key: value for key, value in CONFIG.items() if key != "num_key_value_heads"}
    path.write_text(json.dumps(alone))
    assert load_decoder(path).kv_heads == 32
    path.write_text(json.dumps(CONFIG | {"sliding_window": 4096, "use_sliding_window": False}))
    assert load_decoder(path) == SMALL


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ("{", "no JSON"),
        ("[]", "a list"),
        (json.dumps(CONFIG | {"model_type": "mamba"}), "mamba"),
        (json.dumps(CONFIG | {"hidden_size": "wide"}), "hidden_size: 'wide'"),
        (json.dumps(CONFIG | {"torch_dtype": "int4"}), "int4"),
        (json.dumps(CONFIG | {"quantization_config": {}}), "fewer bytes"),
        (json.dumps(CONFIG | {"sliding_window": 4096}), "sliding_window 4096"),
    ],
)
def test_a_config_of_something_else_is_refused(tmp_path, wrong, named):
    (tmp_path / "config.json").write_text(wrong)
    with pytest.raises(FileError, match=named):
        load_decoder(tmp_path / "config.json")


def test_traces_are_read_in_order_from_their_first_request(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens,CachedTokens\n"
        "2023-11-16 18:15:48.5,300,20,100\n2023-11-16 18:15:46.5,10,2,\n"
    )
    assert load_requests(path) == (
        Request(arrival_s=0.0, input_tokens=10, output_tokens=2),
        Request(arrival_s=2.0, input_tokens=300, cached_tokens=100, output_tokens=20),
    )


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("a,b\n1,2\n", "no column"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n", "no requests"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n1,2\n", "line 2"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n1,5,1\nnow,2,3\n", "line 3"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n1,-2,3\n", "line 2"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\nnan,2,3\n", "line 2"),
    ],
)
def test_a_trace_that_is_none_is_refused(tmp_path, text, named):
    (tmp_path / "trace.csv").write_text(text)
    with pytest.raises(FileError, match=named):
        load_requests(tmp_path / "trace.csv")


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"degree": 9}, "1 to 8 devices"),
        ({"degree": 8, "stages": 2}, "1 to 8 devices"),
        ({"stages": 0}, "0 stages of 1"),
        ({"machine": preset("mixed-v100-p100-1080ti")}, "alike devices"),
        ({"degree": 0}, "1 to 8 devices"),
        ({"usd_per_device_hour": 0.0}, "dollars for an hour"),
        ({"source": " "}, "where the price is from"),
    ],
)
def test_a_plan_that_nobody_can_serve_is_refused(wrong, named):
    with pytest.raises(InputError, match=named):
        replace(plan(), **wrong)


def test_a_trace_without_length_has_no_rate():
    with pytest.raises(InputError, match="a trace of some time"):
        served_prices(plan(), [Request(arrival_s=1, input_tokens=1, output_tokens=1)])


@pytest.mark.parametrize("times", [("1700158546680", "1700158547680"), ("5e9", "5000000001")])
def test_times_of_a_trace_may_be_in_other_units(tmp_path, times):
    path = tmp_path / "trace.csv"
    path.write_text("arrival_s,input_tokens,output_tokens\n" + "".join(f"{t},5,5\n" for t in times))
    assert [own.arrival_s for own in load_requests(path)] == [0.0, 1.0]


def test_a_gap_of_years_takes_no_memory():
    assert peak_rate([0.0, 1.0, 1e15], 60.0, 0.99) == 0.0
    assert peak_rate([0.0, 1.0, 1e15], 60.0, 1.0) == 2 / 60.0
    rng = np.random.default_rng(1)
    times = np.cumsum(rng.exponential(9.0, 400))
    counts = np.sort(np.bincount((times // 60.0).astype(int)))
    for share in (0.3, 0.5, 0.9, 0.99, 1.0):
        place = math.ceil(share * len(counts)) - 1
        assert peak_rate(times, 60.0, share) == counts[place] / 60.0
