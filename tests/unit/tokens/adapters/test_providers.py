import pytest

from weft.tokens.adapters.providers import provider_name, provider_of_model


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("openai", "openai"),
        ("Anthropic", "anthropic"),
        ("gcp.gemini", "google"),
        ("vertex_ai", "google-vertex"),
        ("vertex_ai-anthropic_models", "google-vertex"),
        ("aws.bedrock", "aws"),
        ("az.ai.openai", "azure"),
        ("xai", "x-ai"),
        ("someone", "someone"),
        ("", ""),
    ],
)
def test_spellings_of_one_provider_are_one_name(given, name):
    assert provider_name(given) == name


@pytest.mark.parametrize(
    ("model", "name"),
    [("gpt-5", "openai"), ("o3-mini", "openai"), ("Claude-3", "anthropic"), ("llama-3", "")],
)
def test_models_that_one_provider_alone_serves_say_whose_they_are(model, name):
    assert provider_of_model(model) == name
