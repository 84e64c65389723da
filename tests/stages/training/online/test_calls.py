"""How chat templates write calls and what they give, and that it is read as it was meant; beside TRL's tokens."""

import re
from types import SimpleNamespace

import pytest
from support.environments import ANSWER, TEMPLATE
from support.tiny_tokenizer import make_tokenizer

from tunemill.stages.artifacts import Tokenizer
from tunemill.stages.data.conversations.chat_template import choose_template
from tunemill.stages.errors import SettingError, UserError
from tunemill.stages.models.words_body import load_words
from tunemill.stages.training.online.calls_body import Talk

TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add.",
        "parameters": {
            "type": "object",
            "properties": {
                "n": {"type": "integer", "description": "how much"},
                "unit": {"type": "string", "description": "of what"},
            },
            "required": ["n"],
        },
    },
}
ASKED = [{"role": "user", "content": "How much?"}]
TOLD = [{"role": "tool", "name": "add", "content": "5"}, {"role": "tool", "name": "add", "content": "6 m"}]
JSON = '<tool_call>\n{"name": "add", "arguments": {"n": 3, "unit": "7"}}\n</tool_call>'
TAGS = (
    "<tool_call>\n<function=add>\n<parameter=n>\n3\n</parameter>\n<parameter=unit>\n7\n</parameter>\n</function>\n"
    "</tool_call>"
)
CALLED = [{"type": "function", "function": {"name": "add", "arguments": {"n": 3, "unit": "7"}}}]


def talk_of(folder, template):
    make_tokenizer(folder)
    (folder / "chat_template.jinja").write_text(template)
    words = load_words(folder)
    return words, Talk(Tokenizer(folder), {}, frozenset({words.eos_token_id}), [TOOL])


@pytest.mark.parametrize(
    ("name", "said"), [("qwen_25", JSON), ("qwen3", JSON), ("qwen3_5", f"I see.\n</think>\n\n{JSON}")]
)
def test_a_call_is_read_as_its_template_writes_it(tmp_path, name, said):
    words, talk = talk_of(tmp_path / "words", choose_template(name, None, None))
    before = talk.prompt_ids(ASKED)
    assert all(text in words.decode(before) for text in ("How much?", '"add"', "of what"))
    message = talk.message_of(words(f"{said}<|im_end|>")["input_ids"], before)
    assert message["tool_calls"] == CALLED and message["role"] == "assistant" and not message["content"]
    suffix = words.decode(talk.suffix_ids(TOLD))
    assert suffix.startswith("\n<|im_start|>user\n<tool_response>\n5\n</tool_response>\n<tool_response>\n6 m")
    opening = words.decode(before).rpartition("<|im_end|>\n")[2]
    assert suffix.endswith(f"<|im_end|>\n{opening}")
    plain = talk.message_of(words("It is 3.<|im_end|>")["input_ids"], before)
    assert "tool_calls" not in plain
    broken = talk.message_of(words('<tool_call>\n{"name": \n</tool_call><|im_end|>')["input_ids"], before)
    assert "tool_calls" not in broken


# As Qwen3.5 and Nemotron write calls by templates of their own, and as Llama 3.1 does.
BEFORE, CALLS, BEHIND = re.split(r"({% for call in .*?{% endfor %}{% endfor %})", TEMPLATE)
TAGGED = (
    "{% for call in message.tool_calls or [] %}{{ '<tool_call>\\n<function=' + call.function.name + '>' }}"
    "{% for name, value in call.function.arguments.items() %}"
    "{{ '\\n<parameter=' + name + '>\\n' + value | string + '\\n</parameter>' }}{% endfor %}"
    "{{ '\\n</function>\\n</tool_call>' }}{% endfor %}"
)
PLAIN = (
    '{% for call in message.tool_calls or [] %}{{ \'{"name": "\' + call.function.name + \'", "parameters": \' }}'
    "{{ call.function.arguments | tojson + '}' }}{% endfor %}"
)


@pytest.mark.parametrize(
    ("template", "said"), [(TAGGED, TAGS), (PLAIN, '{"name": "add", "parameters": {"n": 3, "unit": "7"}}')]
)
def test_other_ways_to_write_a_call(tmp_path, template, said):
    words, talk = talk_of(tmp_path / "words", BEFORE + template + BEHIND)
    before = talk.prompt_ids(ASKED)
    message = talk.message_of(words(f"{said}<|im_end|>")["input_ids"], before)
    assert message["tool_calls"] == CALLED and not message["content"]


@pytest.mark.parametrize("template", ["qwen_25", TEMPLATE])
def test_what_tools_gave_has_the_tokens_of_trl(tmp_path, template):
    from trl import GRPOTrainer

    if template == "qwen_25":
        template = choose_template(template, None, None)
        words, talk = talk_of(tmp_path / "words", template)
    else:
        make_tokenizer(tmp_path / "words")
        words = load_words(tmp_path / "words")
        words.chat_template = template
        words.response_template = ANSWER
        words.save_pretrained(tmp_path / "words")
        talk = Talk(Tokenizer(tmp_path / "words"), {}, frozenset({words.eos_token_id}), [TOOL])
    trainer = SimpleNamespace(
        processing_class=words, _tokenizer=words, chat_template=None, chat_template_kwargs={}, _is_vlm=False
    )
    assert talk.suffix_ids(TOLD) == GRPOTrainer._get_tool_suffix_ids(trainer, TOLD)
    given = words.apply_chat_template(
        ASKED, tools=[TOOL], add_generation_prompt=True, tokenize=True, return_dict=False
    )
    assert list(talk.prompt_ids(ASKED)) == given


@pytest.mark.parametrize(
    ("name", "words"),
    [("chatml", "does not write calls of tools"), ("gemma3", "refuses a conversation with tools")],
)
def test_a_template_without_tools_is_refused(tmp_path, name, words):
    with pytest.raises(UserError, match=words):
        talk_of(tmp_path / "words", choose_template(name, None, None))


def test_a_template_that_writes_calls_in_another_way_is_refused(tmp_path):
    with pytest.raises(SettingError, match=r"in a way that is not known here.*response_template"):
        talk_of(tmp_path / "words", TEMPLATE)
