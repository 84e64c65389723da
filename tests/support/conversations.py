"""Conversations that chat templates are tried on, and the words of some families of models."""

SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": " Hi\n"}
ASSISTANT = {"role": "assistant", "content": " Ho ü "}
AGAIN = {"role": "user", "content": "Bye"}
IMAGE = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}

TOOL = {
    "type": "function",
    "function": {
        "name": "get",
        "description": "Gets it",
        "parameters": {
            "type": "object",
            "properties": {"q": {"type": "string", "description": "what"}},
            "required": ["q"],
        },
    },
}
TOOL_JSON = (
    '{"type": "function", "function": {"name": "get", "description": "Gets it", "parameters": {"type": "object", '
    '"properties": {"q": {"type": "string", "description": "what"}}, "required": ["q"]}}}'
)


def call(number, **arguments):
    return {
        "id": f"call0000{number}",
        "type": "function",
        "function": {"name": "get", "arguments": arguments},
    }


CALLS = {"role": "assistant", "tool_calls": [call(1, q="ü"), call(2, q="b")]}
ONE_CALL = {"role": "assistant", "tool_calls": [call(1, q="ü")]}
RESULTS = [
    {"role": "tool", "content": "7", "tool_call_id": "call00001"},
    {"role": "tool", "content": "8", "tool_call_id": "call00002"},
]
ANSWER = {"role": "assistant", "content": "Done"}

LLAMA3_OPEN = "<|start_header_id|>{}<|end_header_id|>\n\n"
COHERE_OPEN = "<|START_OF_TURN_TOKEN|><|{}_TOKEN|>"
COHERE_END = "<|END_OF_TURN_TOKEN|>"
IM = "<|im_start|>{}\n{}<|im_end|>\n"
CHATML = IM.format("system", "Be brief.") + IM.format("user", " Hi\n") + IM.format("assistant", " Ho ü ")
