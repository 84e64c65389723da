"""Where rendered prompts end and answers begin: nothing is lost and nothing said twice, whatever the template."""

from dataclasses import replace

import pytest
from support.preference_rows import TOKENIZERS
from transformers import AutoTokenizer

from tunemill.stages.data.conversations.chat_template import NAMES, template_text
from tunemill.stages.data.conversations.encoding import Encoder
from tunemill.stages.data.conversations.loaded import of_transformers
from tunemill.stages.data.conversations.template_body import renderer
from tunemill.stages.data.engines.reference import Reference
from tunemill.stages.data.preferences.body import OPEN_ANSWER, make_reader
from tunemill.stages.data.preferences.config import PreferencesConfig
from tunemill.stages.data.preferences.lengths import measure
from tunemill.stages.data.preferences.quiet import quiet_text
from tunemill.stages.report import Report

DAY = {"strftime_now": "2026-01-31"}
SO, NO = " four\n2 So", "No. "
LONG = [
    {"role": "user", "content": " Hi\n"},
    {"role": "assistant", "content": "Yes?"},
    {"role": "user", "content": "2 + 2"},
]


def turn(content, **more):
    return {"role": "assistant", "content": content, **more}


@pytest.fixture(scope="module")
def loaded():
    return AutoTokenizer.from_pretrained(TOKENIZERS / "chatml")


def read(loaded, row, **keys):
    config = PreferencesConfig(chat_template_kwargs=DAY, **{"type": "chat_template.argilla_chat", **keys})
    return make_reader(config, loaded, Report(lambda _: None))(row)


def reward_texts(loaded, record):
    encoder = Encoder(Reference(loaded.backend_tokenizer), loaded.eos_token_id)
    measured = measure([record], [1], "reward", encoder, quiet_text(loaded.special_tokens_map))
    (row,) = measured.batch.to_pylist()
    return [
        loaded.decode(row[f"{side}_ids"], clean_up_tokenization_spaces=False)
        for side in ("chosen", "rejected")
    ]


@pytest.mark.parametrize("history", [LONG[:1], LONG], ids=["one question", "three turns"])
@pytest.mark.parametrize("name", NAMES)
def test_prompt_and_answer_are_the_rendered_conversation(name, history, loaded):
    template = template_text(name)
    render, opened = (renderer(loaded, text, DAY) for text in (template, OPEN_ANSWER + template))
    wholes = [render([*history, turn(text)], None) for text in (SO, NO)]
    row = {"chosen": [*history, turn(SO)], "rejected": [*history, turn(NO)]}
    dpo = read(loaded, row, rl="dpo", chat_template=name)
    orpo = read(loaded, row, rl="orpo", type="chat_template.argilla", chat_template=name)
    assert dpo.prompt == orpo.prompt
    for whole, stripped, answer, said in zip(
        wholes, (dpo.chosen, dpo.rejected), (orpo.chosen, orpo.rejected), (SO, NO), strict=True
    ):
        assert orpo.prompt + answer == whole
        assert whole.startswith(dpo.prompt + stripped) and stripped.rstrip() == answer.rstrip()
        assert said.strip() in answer and said.strip() not in dpo.prompt
    # What a model goes on from, but for a thought that is opened and closed for it.
    assert opened(history, None).removesuffix("<|channel>thought\n<channel|>") == dpo.prompt
    reward = read(loaded, row, reward_model=True, type="bradley_terry.chat_template", chat_template=name)
    assert reward_texts(loaded, reward) == wholes


@pytest.mark.parametrize("name", ["mistral_v2v3", "mistral_v3_tekken", "pixtral"])
def test_a_system_text_that_moves_with_the_question_is_kept(name, loaded):
    history = [{"role": "system", "content": "Be brief."}, LONG[0]]
    row = {"chosen": [*history, turn(SO)], "rejected": [*history, turn(NO)]}
    opened = renderer(loaded, OPEN_ANSWER + template_text(name), DAY)
    record = read(loaded, row, rl="dpo", chat_template=name)
    assert record.prompt == opened(history, None) and "Be brief." in record.prompt
    assert record.chosen.strip().startswith("four\n2 So") and "Hi" not in record.chosen
    reward = read(loaded, row, reward_model=True, type="bradley_terry.chat_template", chat_template=name)
    assert reward.chosen.text == record.prompt + record.chosen
    assert reward_texts(loaded, reward) == [reward.chosen.text, reward.rejected.text]


# Made to part prompts and whole conversations: by a space, by an opened thought, by a text that is trimmed.
TURNS = "{% for m in messages %}{{ m.role | capitalize }}:"
OPENINGS = {
    "a space of the prompt": (
        TURNS + " {{ m.content | trim }}\n{% endfor %}{% if add_generation_prompt %}Assistant: {% endif %}",
        "User: 2 + 2\nAssistant: ",
        "four<eos>",
    ),
    "a space of the turn": (
        TURNS + " {{ m.content | trim }}\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}",
        "User: 2 + 2\nAssistant:",
        " four<eos>",
    ),
    "a space that the turn lacks": (
        TURNS + "{{ m.content | trim }}\n{% endfor %}{% if add_generation_prompt %}Assistant: {% endif %}",
        "User:2 + 2\nAssistant:",
        "four<eos>",
    ),
    "an opened thought": (
        TURNS + "{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}Assistant:<think>\n{% endif %}",
        "User:2 + 2\nAssistant:",
        "four<eos>",
    ),
}


@pytest.mark.parametrize("name", OPENINGS)
@pytest.mark.parametrize("type_", ["chat_template.default", "chat_template.argilla_chat"])
def test_openings_that_differ(name, type_, loaded):
    template, prompt, chosen = OPENINGS[name]
    question = LONG[2]
    row = {
        "messages": [question],
        "chosen": [question, turn("four<eos>")],
        "rejected": [question, turn("<eos>")],
    }
    record = read(loaded, row, rl="dpo", type=type_, chat_template_jinja=template)
    assert (record.prompt, record.chosen) == (prompt, chosen)
    reward = read(
        loaded, row, reward_model=True, type="bradley_terry.chat_template", chat_template_jinja=template
    )
    assert reward_texts(loaded, reward)[0] == f"{prompt}{chosen}\n"


@pytest.mark.parametrize("type_", ["chat_template.argilla_chat", "chat_template.argilla"])
@pytest.mark.parametrize("name", ["command_a", "command_a_rag", "command_a_tool_use"])
def test_an_answer_ends_with_its_eos_and_not_with_the_opening_of_another_one(name, type_, loaded):
    end = "<|END_OF_TURN_TOKEN|>"
    cohere = replace(of_transformers(loaded, TOKENIZERS), special_tokens_map={"eos_token": end})
    calls = [{"id": "1", "function": {"name": "get", "arguments": {}}}]
    row = {"chosen": [LONG[2], turn(SO)], "rejected": [LONG[2], turn(NO, tool_calls=calls, tool_plan="Look")]}
    rl = "orpo" if type_.endswith("argilla") else "dpo"
    record = read(cohere, row, rl=rl, type=type_, chat_template=name)
    assert record.chosen.removeprefix("<|START_RESPONSE|>") == f"{SO}<|END_RESPONSE|>{end}"
    assert record.rejected.endswith(
        f"<|END_RESPONSE|>{end}" if name == "command_a" else f"<|END_ACTION|>{end}"
    )
    assert record.rejected.count(end) == 1 and all(
        said.end <= len(text)
        for said, text in zip(record.said, (record.chosen, record.rejected), strict=True)
    )


def test_thoughts_that_begin_alike_are_said_once(loaded):
    template = OPENINGS["an opened thought"][0]
    rows = [(turn("<think>\nhm</think>So"), turn("<thinner>")), (turn("<think>a"), turn("No"))]
    for chosen, rejected in rows:
        row = {"chosen": [LONG[2], chosen], "rejected": [LONG[2], rejected]}
        record = read(loaded, row, rl="dpo", chat_template_jinja=template)
        assert record.prompt + record.chosen == f"User:2 + 2\nAssistant:{chosen['content']}"
        assert record.prompt + record.rejected == f"User:2 + 2\nAssistant:{rejected['content']}"


def test_white_space_of_an_answer_is_its_own_and_that_of_the_template_is_not(loaded):
    template = "{% for m in messages %}{{ m.role }}> {{ m.content }}\n\n{% endfor %}"
    row = {"chosen": [LONG[2], turn("So \n")], "rejected": [LONG[2], turn("No")]}
    record = read(loaded, row, rl="dpo", chat_template_jinja=template)
    assert (record.chosen, record.rejected) == ("assistant> So \n", "assistant> No")


def test_a_reasoning_answer_is_whole(loaded):
    row = {"chosen": [LONG[2], turn("4", reasoning_content="2, 2")], "rejected": [LONG[2], turn("5")]}
    record = read(loaded, row, rl="dpo", chat_template="qwen3")
    assert record.chosen == "<think>\n2, 2\n</think>\n\n4<|im_end|>"
    assert record.rejected == "<think>\n\n</think>\n\n5<|im_end|>"
