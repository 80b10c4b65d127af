"""An encoder for tests, and replies as logs keep them."""


class Letters:
    """A token for each letter."""

    name = "letters"

    def count(self, text):
        return len(text)


def reply(number, text="", *, tool=None, arguments="{}", tokens=None, results=(), **more):
    """A chat completion, with the results of tools that were sent along."""
    message = {"role": "assistant", "content": text or None}
    if tool:
        function = {"name": tool, "arguments": arguments}
        message["tool_calls"] = [{"id": f"call{number}", "type": "function", "function": function}]
    return {
        "session": "s1",
        "request": {
            "messages": [
                {"role": "tool", "tool_call_id": name, "content": said} for name, said in results
            ]
        },
        "response": {
            "id": f"chatcmpl-{number}",
            "object": "chat.completion",
            "created": 1_793_534_400 + number,
            "model": "gpt-5",
            "choices": [{"message": message, "finish_reason": "stop"}],
            "usage": {
                "prompt_tokens": 100,
                "completion_tokens": len(text) if tokens is None else tokens,
                "completion_tokens_details": {"reasoning_tokens": 0},
            },
        },
        **more,
    }
