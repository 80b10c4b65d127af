import pytest

from tests.unit.rl.small import make_model, prompts, task
from weft.core.errors import InputError


@pytest.mark.parametrize(
    ("field", "value", "got"),
    [
        ("make_model", make_model(), "Qwen2ForCausalLM"),
        ("make_tokenizer", None, "NoneType"),
        ("prompts", prompts(0, 3), "list"),
        ("reward", 1.0, "float"),
    ],
)
def test_a_value_where_a_function_is_wanted_is_refused_with_what_it_is(field, value, got):
    with pytest.raises(InputError) as caught:
        task(**{field: value})
    assert (caught.value.need, caught.value.got) == (f"{field}: a function", got)
    assert caught.value.hint.startswith(f"{field}=lambda")


@pytest.mark.parametrize(
    "changes",
    [
        {"new_tokens": 0},
        {"groups_per_step": 0},
        {"group": 1},
        {"learning_rate": 0.0},
        {"temperature": float("inf")},
        {"clip_norm": 0.0},
    ],
)
def test_numbers_out_of_range_are_refused(changes):
    (name,) = changes
    with pytest.raises(InputError, match=name):
        task(**changes)


def test_an_object_that_can_be_called_is_a_function():
    class Reward:
        def __call__(self, prompt, text):
            return 1.0

    assert task(reward=Reward()).reward(prompts(0, 1)[0], "") == 1.0
