"""How named chat templates write tools, their calls and their results."""

import pytest
from jinja2 import TemplateError
from support.conversations import (
    ANSWER,
    CALLS,
    COHERE_END,
    COHERE_OPEN,
    IM,
    LLAMA3_OPEN,
    ONE_CALL,
    RESULTS,
    SYSTEM,
    TOOL,
    TOOL_JSON,
    USER,
)


def test_command_a_tools(render):
    messages = [USER, {**CALLS, "tool_plan": "Look"}, *RESULTS, ANSWER]
    text = render("command_a_tool_use", messages, tools=[TOOL])
    assert (
        '```json\n[\n    {"name": "get", "description": "Gets it", "parameters": {"type": "object", ' in text
    )
    assert '"responses": null}\n]\n```\n\n# Default Preamble\n' in text
    assert text.endswith(
        f"step by step, then answer.{COHERE_END}{COHERE_OPEN.format('USER')} Hi\n{COHERE_END}"
        f"{COHERE_OPEN.format('CHATBOT')}<|START_THINKING|>Look<|END_THINKING|><|START_ACTION|>[\n"
        '    {"tool_call_id": "0", "tool_name": "get", "parameters": {"q": "ü"}},\n'
        '    {"tool_call_id": "1", "tool_name": "get", "parameters": {"q": "b"}}\n'
        f"]<|END_ACTION|>{COHERE_END}{COHERE_OPEN.format('SYSTEM')}<|START_TOOL_RESULT|>[\n"
        '    {\n        "tool_call_id": "0",\n        "results": {\n            "0": "7"\n        },\n'
        '        "is_error": null\n    },\n'
        '    {\n        "tool_call_id": "1",\n        "results": {\n            "0": "8"\n        },\n'
        f'        "is_error": null\n    }}\n]<|END_TOOL_RESULT|>{COHERE_END}'
        f"{COHERE_OPEN.format('CHATBOT')}<|START_RESPONSE|>Done<|END_RESPONSE|>{COHERE_END}"
        f"{COHERE_OPEN.format('CHATBOT')}"
    )
    assert "## Grounding" not in text
    assert "## Grounding\n" in render("command_a_tool_use", messages, tools=[TOOL], enable_citations=True)
    assert "## Tool Use" not in render("command_a_tool_use", [USER, ANSWER])


def test_command_a_documents_are_the_result_of_a_tool(render):
    documents = [{"text": "x"}, {"text": "y"}]
    text = render("command_a_rag", [USER, ANSWER], documents=documents)
    assert text == render("command_a", [USER, ANSWER], documents=documents)
    assert (
        '```json\n[\n    {"name": "direct-injected-document", "description": "This is a special tool' in text
    )
    assert text.endswith(
        f"{COHERE_OPEN.format('USER')} Hi\n{COHERE_END}{COHERE_OPEN.format('CHATBOT')}<|START_THINKING|>I will look "
        "through the document to address the users needs.<|END_THINKING|><|START_ACTION|>[\n"
        '    {"tool_call_id": "0", "tool_name": "direct-injected-document", "parameters": {}}\n'
        f"]<|END_ACTION|>{COHERE_END}{COHERE_OPEN.format('SYSTEM')}<|START_TOOL_RESULT|>[\n"
        '    {\n        "tool_call_id": "0",\n        "results": {\n            "0": {"text": "x"},\n'
        '            "1": {"text": "y"}\n        },\n        "is_error": null\n    }\n'
        f"]<|END_TOOL_RESULT|>{COHERE_END}{COHERE_OPEN.format('CHATBOT')}<|START_RESPONSE|>Done<|END_RESPONSE|>"
        f"{COHERE_END}{COHERE_OPEN.format('CHATBOT')}"
    )


# name: what stands for the conversation USER, CALLS, RESULTS, ANSWER, behind the description of the tools.
TOOLS = {
    "deepseek_v3": (
        "<｜User｜> Hi\n<｜Assistant｜><｜tool▁calls▁begin｜>"
        '<｜tool▁call▁begin｜>function<｜tool▁sep｜>get\n```json\n{"q": "ü"}\n```<｜tool▁call▁end｜>\n'
        '<｜tool▁call▁begin｜>function<｜tool▁sep｜>get\n```json\n{"q": "b"}\n```<｜tool▁call▁end｜>'
        "<｜tool▁calls▁end｜><｜end▁of▁sentence｜><｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>7<｜tool▁output▁end｜>"
        "<｜tool▁output▁begin｜>8<｜tool▁output▁end｜><｜tool▁outputs▁end｜>Done<｜end▁of▁sentence｜>"
    ),
    "exaone4": (
        f"in JSON format within <tool> and </tool> tags:\n<tool>{TOOL_JSON}</tool>\n\nFor each function call",
        (
            "[|endofturn|]\n[|user|]\n Hi\n[|endofturn|]\n[|assistant|]\n<think>\n\n</think>\n\n"
            '<tool_call>{"name": "get", "arguments": {"q": "ü"}}</tool_call>\n'
            '<tool_call>{"name": "get", "arguments": {"q": "b"}}</tool_call>[|endofturn|]\n'
            '[|tool|]\n<tool_result>{"result": "7"}</tool_result>\n<tool_result>{"result": "8"}</tool_result>'
            "[|endofturn|]\n[|assistant|]\n<think>\n\n</think>\n\nDone[|endofturn|]\n"
        ),
    ),
    "gemma4": (
        (
            '<s><|turn>system\n<|tool>declaration:get{description:<|"|>Gets it<|"|>,parameters:{properties:{q:{'
            'description:<|"|>what<|"|>,type:<|"|>STRING<|"|>}},required:[<|"|>q<|"|>],type:<|"|>OBJECT<|"|>}}<tool|>'
            "<turn|>\n"
        ),
        (
            "<|turn>user\nHi<turn|>\n<|turn>model\n"
            '<|tool_call>call:get{q:<|"|>ü<|"|>}<tool_call|><|tool_call>call:get{q:<|"|>b<|"|>}<tool_call|>'
            '<|tool_response>response:get{value:<|"|>7<|"|>}<tool_response|>'
            '<|tool_response>response:get{value:<|"|>8<|"|>}<tool_response|>Done<turn|>\n'
        ),
    ),
    "jamba": (
        '<|startoftext|><|bom|><|system|> <tool_definitions>\n# Tools\n\n## Functions\n\n{\n  "name": "get",',
        (
            "\n</tool_definitions><|eom|><|bom|><|user|>  Hi\n<|eom|><|bom|><|assistant|> <tool_calls>[\n"
            '    {"name": "get", "arguments": {"q": "ü"}},\n    {"name": "get", "arguments": {"q": "b"}}\n'
            "]</tool_calls><|eom|><|bom|><|tool|> 7<|eom|><|bom|><|tool|> 8<|eom|><|bom|><|assistant|> Done<|eom|>"
        ),
    ),
    "llama4": (
        (
            "<s><|header_start|>user<|header_end|>\n\nGiven the following functions, please respond with a JSON for a "
            "function call with its proper arguments that best answers the given prompt.\n\nRespond in the format "
            '{"name": function name, "parameters": dictionary of argument name and its value}.Do not use variables.\n\n'
            '{\n    "type": "function",'
        ),
        (
            "\n\nHi<|eot|><|header_start|>assistant<|header_end|>\n\n<|python_start|><|python_end|>"
            '{"name": "get", "parameters": {"q": "ü"}}{"name": "get", "parameters": {"q": "b"}}<|eot|>'
            '<|header_start|>ipython<|header_end|>\n\n"7"<|eot|><|header_start|>ipython<|header_end|>\n\n"8"<|eot|>'
            "<|header_start|>assistant<|header_end|>\n\nDone<|eot|>"
        ),
    ),
    "mistral_v2v3": (
        f"<s>[AVAILABLE_TOOLS] [{TOOL_JSON}][/AVAILABLE_TOOLS][INST]  Hi\n[/INST]"
        '[TOOL_CALLS] [{"name": "get", "arguments": {"q": "ü"}, "id": "call00001"}, '
        '{"name": "get", "arguments": {"q": "b"}, "id": "call00002"}]</s>'
        '[TOOL_RESULTS] {"content": 7, "call_id": "call00001"}[/TOOL_RESULTS]'
        '[TOOL_RESULTS] {"content": 8, "call_id": "call00002"}[/TOOL_RESULTS] Done</s>'
    ),
    "mistral_v3_tekken": (
        f"<s>[AVAILABLE_TOOLS][{TOOL_JSON}][/AVAILABLE_TOOLS][INST] Hi\n[/INST]"
        '[TOOL_CALLS][{"name": "get", "arguments": {"q": "ü"}, "id": "call00001"}, '
        '{"name": "get", "arguments": {"q": "b"}, "id": "call00002"}]</s>'
        '[TOOL_RESULTS]{"content": 7, "call_id": "call00001"}[/TOOL_RESULTS]'
        '[TOOL_RESULTS]{"content": 8, "call_id": "call00002"}[/TOOL_RESULTS]Done</s>'
    ),
    "qwen_25": (
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.\n\n# Tools\n\n",
        f"<tools>\n{TOOL_JSON}\n</tools>",
        (
            "<args-json-object>}\n</tool_call><|im_end|>\n<|im_start|>user\n Hi\n<|im_end|>\n"
            '<|im_start|>assistant\n<tool_call>\n{"name": '
            '"get", "arguments": {"q": "ü"}}\n</tool_call>\n<tool_call>\n{"name": "get", "arguments": {"q": "b"}}\n'
            "</tool_call><|im_end|>\n<|im_start|>user\n<tool_response>\n7\n</tool_response>\n<tool_response>\n8\n"
            "</tool_response><|im_end|>\n<|im_start|>assistant\nDone<|im_end|>\n"
        ),
    ),
    "qwen3": (
        (
            "<|im_start|>system\n# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
            "You are provided with function signatures within <tools></tools> XML tags:\n"
            f"<tools>\n{TOOL_JSON}\n</tools>"
        ),
        (
            "<args-json-object>}\n</tool_call><|im_end|>\n<|im_start|>user\n Hi\n<|im_end|>\n"
            '<|im_start|>assistant\n<tool_call>\n{"name": '
            '"get", "arguments": {"q": "ü"}}\n</tool_call>\n<tool_call>\n{"name": "get", "arguments": {"q": "b"}}\n'
            "</tool_call><|im_end|>\n<|im_start|>user\n<tool_response>\n7\n</tool_response>\n<tool_response>\n8\n"
            "</tool_response><|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\nDone<|im_end|>\n"
        ),
    ),
}
TOOLS["qwen3_5"] = TOOLS["qwen3"]


@pytest.mark.parametrize("name", TOOLS)
def test_tools(render, name):
    text = render(name, [USER, CALLS, *RESULTS, ANSWER], tools=[TOOL])
    pieces = (TOOLS[name],) if isinstance(TOOLS[name], str) else TOOLS[name]
    assert text.endswith(pieces[-1])
    assert [piece for piece in pieces if piece not in text] == []


def test_llama_vision_takes_one_call_at_a_time(render):
    text = render("llama3_2_vision", [USER, ONE_CALL, RESULTS[0], ANSWER], tools=[TOOL])
    assert text.startswith(f"<s>{LLAMA3_OPEN.format('system')}Environment: ipython\nCutting Knowledge Date: ")
    assert text.endswith(
        f'{LLAMA3_OPEN.format("assistant")}{{"name": "get", "parameters": {{"q": "ü"}}}}<|eot_id|>'
        f'{LLAMA3_OPEN.format("ipython")}"7"<|eot_id|>{LLAMA3_OPEN.format("assistant")}Done<|eot_id|>'
    )
    with pytest.raises(TemplateError, match="single tool-calls at once"):
        render("llama3_2_vision", [USER, CALLS], tools=[TOOL])


def test_falcon_describes_tools(render):
    text = render("falcon_h1", [SYSTEM, USER], tools=[TOOL])
    assert text.startswith("<s><|im_start|>system\nBe brief.\n\nYou are a function calling AI model. ")
    assert f"<tools>\n[{TOOL_JSON}]\n</tools>\n" in text
    assert text.endswith("</tool_call>\n" + IM.format("user", " Hi\n"))


def test_a_tool_message_without_its_call_id(render):
    with pytest.raises(TemplateError, match="length 9"):
        render("mistral_v2v3", [USER, CALLS, {"role": "tool", "content": "7"}], tools=[TOOL])


def test_gemma4_takes_responses_from_the_message_that_called(render):
    message = {
        **ONE_CALL,
        "content": "Done",
        "tool_responses": [{"name": "get", "response": {"b": [1, True]}}],
    }
    assert render("gemma4", [message]).endswith("response:get{b:[1,true]}<tool_response|>Done<turn|>\n")
