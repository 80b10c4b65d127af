"""Names of providers: many spellings, one name each."""

from __future__ import annotations

from types import MappingProxyType

__all__ = ["provider_name", "provider_of_model"]

_SPELLINGS = MappingProxyType(
    {
        "anthropic": "claude",
        "aws": "bedrock aws.bedrock aws_bedrock amazon bedrock_converse sagemaker",
        "azure": "azure_ai azure.ai.openai azure.ai.inference az.ai.openai az.ai.inference"
        " azure_openai azure-openai azure_text",
        "cohere": "cohere_chat",
        "deepseek": "",
        "fireworks": "fireworks_ai",
        "google": "gemini google_ai gcp.gemini gcp.gen_ai google_genai google-genai google-gla",
        "google-vertex": "vertex_ai vertexai vertex gcp.vertex_ai google-vertex",
        "groq": "",
        "mistral": "mistral_ai mistralai",
        "openai": "text-completion-openai openai_chat openai.chat",
        "openrouter": "",
        "perplexity": "",
        "together": "together_ai togetherai",
        "x-ai": "xai x_ai grok",
    }
)
"""Canonical names are those of genai-prices, but for Vertex AI, whose prices LiteLLM keeps apart.
Source: OpenTelemetry's gen_ai.provider.name and gen_ai.system, OpenInference's llm.provider and
LiteLLM's litellm_provider."""

_CANONICAL = MappingProxyType(
    {
        spelling: name
        for name, spellings in _SPELLINGS.items()
        for spelling in (name, *spellings.split())
    }
)

_MODELS = (
    ("anthropic", ("claude",)),
    ("google", ("gemini", "models/gemini")),
    ("openai", ("gpt-", "chatgpt", "o1", "o3", "o4", "text-embedding-", "ft:gpt", "codex")),
    ("x-ai", ("grok",)),
    ("mistral", ("mistral", "ministral", "codestral", "magistral")),
    ("deepseek", ("deepseek-chat", "deepseek-reasoner")),
)
"""How names of models start that one provider alone gives. Open weights have no provider here."""


def provider_name(given: str) -> str:
    """The one name of a provider; what is not known stays as it is, in lower case.

    Example:
        >>> provider_name("gcp.gemini"), provider_name("vertex_ai-anthropic_models")
        ('google', 'google-vertex')
        >>> provider_name("My-Host")
        'my-host'
    """
    plain = given.strip().lower()
    if plain.startswith("vertex_ai-"):  # LiteLLM's, by whose models they are
        return "google-vertex"
    return _CANONICAL.get(plain, plain)


def provider_of_model(model: str) -> str:
    """The provider whose models are named so; empty where several serve them.

    Example:
        >>> provider_of_model("claude-opus-4-5"), provider_of_model("llama-3.1-70b")
        ('anthropic', '')
    """
    plain = model.lower()
    return next((name for name, starts in _MODELS if plain.startswith(starts)), "")
