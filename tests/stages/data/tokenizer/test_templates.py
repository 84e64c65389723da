"""Named chat templates write what the families of models publish; the expected texts are written by hand."""

import hashlib
import re
from datetime import date

import pytest
from jinja2 import TemplateError
from support.conversations import (
    AGAIN,
    ANSWER,
    ASSISTANT,
    CHATML,
    COHERE_END,
    COHERE_OPEN,
    IM,
    IMAGE,
    LLAMA3_OPEN,
    ONE_CALL,
    SYSTEM,
    TOOL,
    USER,
)

from tunemill.stages.data.conversations.chat_template import (
    FALLBACK,
    NAMES,
    TEMPLATES,
    choose_template,
    template_text,
)
from tunemill.stages.data.tokenizer.config import TokenizerConfig

# name: the text of SYSTEM, USER, ASSISTANT, and what is added for the next answer.
PLAIN = {
    "alpaca": ("<s>Be brief.\n\n### Instruction:\n Hi\n\n\n### Response:\n Ho ü </s>", "\n\n### Response:\n"),
    "aya": (
        (
            "<s><|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>Be brief.<|END_OF_TURN_TOKEN|>"
            "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>Hi<|END_OF_TURN_TOKEN|>"
            "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>Ho ü<|END_OF_TURN_TOKEN|>"
        ),
        "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
    ),
    "chatml": (CHATML, "<|im_start|>assistant\n"),
    "deepseek_v2": ("<s>Be brief.\n\n<｜User｜> Hi\n<｜Assistant｜> Ho ü </s>", "<｜Assistant｜>"),
    "deepseek_v3": (
        "<s>Be brief.<｜User｜> Hi\n<｜Assistant｜> Ho ü <｜end▁of▁sentence｜>",
        "<｜Assistant｜>",
    ),
    "exaone": (
        "[|system|]Be brief.[|endofturn|]\n[|user|] Hi\n\n[|assistant|] Ho ü [|endofturn|]\n",
        "[|assistant|]",
    ),
    "exaone4": (
        (
            "[|system|]\nBe brief.[|endofturn|]\n[|user|]\n Hi\n[|endofturn|]\n"
            "[|assistant|]\n<think>\n\n</think>\n\n Ho ü [|endofturn|]\n"
        ),
        "[|assistant|]\n<think>\n\n</think>\n\n",
    ),
    "falcon_h1": ("<s>" + CHATML, "<|im_start|>assistant\n"),
    "gemma3": (
        "<s><start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n<start_of_turn>model\nHo ü<end_of_turn>\n",
        "<start_of_turn>model\n",
    ),
    "gemma3n": (
        "<s><start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n<start_of_turn>model\nHo ü<end_of_turn>\n",
        "<start_of_turn>model\n",
    ),
    "gemma4": (
        "<s><|turn>system\nBe brief.<turn|>\n<|turn>user\nHi<turn|>\n<|turn>model\nHo ü<turn|>\n",
        "<|turn>model\n<|channel>thought\n<channel|>",
    ),
    "jamba": (
        (
            "<|startoftext|><|bom|><|system|> Be brief.<|eom|><|bom|><|user|>  Hi\n<|eom|>"
            "<|bom|><|assistant|>  Ho ü <|eom|>"
        ),
        "<|bom|><|assistant|>",
    ),
    "llama3": (
        (
            f"<s>{LLAMA3_OPEN.format('system')}Be brief.<|eot_id|>{LLAMA3_OPEN.format('user')}Hi<|eot_id|>"
            f"{LLAMA3_OPEN.format('assistant')}Ho ü<|eot_id|>"
        ),
        LLAMA3_OPEN.format("assistant"),
    ),
    "llama3_2_vision": (
        (
            f"<s>{LLAMA3_OPEN.format('system')}Cutting Knowledge Date: December 2023\nToday Date: 31 Jan 2026\n\n"
            f"Be brief.<|eot_id|>{LLAMA3_OPEN.format('user')} Hi\n<|eot_id|>"
            f"{LLAMA3_OPEN.format('assistant')} Ho ü <|eot_id|>"
        ),
        LLAMA3_OPEN.format("assistant"),
    ),
    "llama4": (
        (
            "<s><|header_start|>system<|header_end|>\n\nBe brief.<|eot|><|header_start|>user<|header_end|>\n\n Hi\n"
            "<|eot|><|header_start|>assistant<|header_end|>\n\n Ho ü <|eot|>"
        ),
        "<|header_start|>assistant<|header_end|>\n\n",
    ),
    "llava": ("Be brief. USER:  Hi\n ASSISTANT:  Ho ü  ", "ASSISTANT:"),
    "mistral_v1": ("<s> [INST] Be brief.\n\n Hi\n [/INST]  Ho ü </s>", ""),
    "mistral_v2v3": ("<s>[INST]  Hi\n[/INST] Ho ü</s>", ""),
    "mistral_v3_tekken": ("<s>[INST] Hi\n[/INST] Ho ü </s>", ""),
    "mistral_v7_tekken": ("<s>[SYSTEM_PROMPT]Be brief.[/SYSTEM_PROMPT][INST] Hi\n[/INST] Ho ü </s>", ""),
    "nemotron_h": (CHATML, "<|im_start|>assistant\n"),
    "phi_3": ("<s><|system|>\nBe brief.<|end|>\n<|user|>\n Hi\n<|end|>\n<|assistant|>\n Ho ü <|end|>\n", ""),
    "phi_35": (
        "<|system|>\nBe brief.<|end|>\n<|user|>\n Hi\n<|end|>\n<|assistant|>\n Ho ü <|end|>\n",
        "<|assistant|>\n",
    ),
    "phi_4": (
        (
            "<|im_start|>system<|im_sep|>Be brief.<|im_end|><|im_start|>user<|im_sep|> Hi\n<|im_end|>"
            "<|im_start|>assistant<|im_sep|> Ho ü <|im_end|>"
        ),
        "<|im_start|>assistant<|im_sep|>",
    ),
    "pixtral": ("<s>[INST] Hi\n[/INST] Ho ü </s>", ""),
    "qwen2_vl": (CHATML, "<|im_start|>assistant\n"),
    "qwen_25": (CHATML, "<|im_start|>assistant\n"),
    "qwen3": (
        CHATML.replace("assistant\n Ho", "assistant\n<think>\n\n</think>\n\n Ho"),
        "<|im_start|>assistant\n",
    ),
    "qwen3_5": (
        CHATML.replace("assistant\n Ho", "assistant\n<think>\n\n</think>\n\n Ho"),
        "<|im_start|>assistant\n<think>\n",
    ),
}
PLAIN["cohere"] = PLAIN["aya"]
PLAIN["gemma4_unified"] = PLAIN["gemma4"]

# Templates tested below, because they write more than a line by themselves or refuse a system message.
ELSEWHERE = {"command_a", "command_a_rag", "command_a_tool_use", "gemma", "metharme"}


def test_every_name_is_tested():
    assert {*PLAIN, *ELSEWHERE} == set(NAMES)
    assert len(NAMES) == 36


@pytest.mark.parametrize("name", PLAIN)
def test_a_conversation(render, name):
    expected, generation = PLAIN[name]
    assert render(name, [SYSTEM, USER, ASSISTANT]) == expected
    conversation = [SYSTEM, USER, ASSISTANT, AGAIN]
    assert render(name, conversation, add_generation_prompt=True) == render(name, conversation) + generation


# Gemma 4 is asked with an empty thought, which the published format leaves out of answers. A system text of
# Mistral's (and Pixtral's) stands in the question to be answered, so only before it is.
@pytest.mark.parametrize("name", sorted({*NAMES} - {"gemma4", "gemma4_unified"}))
def test_the_model_is_asked_as_it_was_trained(render, name):
    messages = [USER, ASSISTANT, AGAIN]
    clock = {"strftime_now": date(2026, 1, 31).strftime}
    asked = render(name, messages, add_generation_prompt=True, **clock)
    assert render(name, [*messages, ANSWER], **clock).startswith(asked)


@pytest.mark.parametrize("name", ["command_a", "command_a_rag", "command_a_tool_use"])
def test_an_empty_system_text_is_no_developer_preamble(render, name):
    variables = {"documents": [{"text": "x"}]} if name == "command_a_rag" else {}
    empty, given = ([{"role": "system", "content": text}, USER, ASSISTANT] for text in ("", "Be terse."))
    assert "Developer Preamble" not in render(name, empty, **variables)
    assert "Developer Preamble" in render(name, given, **variables)


def test_alpaca_has_one_place_for_a_system_message(render):
    assert render("alpaca", [AGAIN, SYSTEM]) == "<s>### Instruction:\nBye\n\n"


# The first 16 digits of the SHA-256 of a conversation with the long texts that these models were trained with.
PROMPTS = {
    "command_a": "343879c45293fd0f",
    "command_a_rag": "e3b3901f8319fdf0",
    "command_a_tool_use": "6f7f297d1f5ecb28",
    "exaone4": "dd6a7146741e8192",
    "falcon_h1": "11caea6f4700896d",
    "jamba": "6c382d47e1301b76",
    "llama3_2_vision": "0be7b7a9e7e17feb",
    "metharme": "499fbe8fa7ea9d6a",
    "mistral_v7_tekken": "b89fee58a6e4229a",
    "phi_4": "fe1718f79a8f2ebf",
    "qwen3": "17d5219ebf47b5f2",
}


@pytest.mark.parametrize("name", PROMPTS)
def test_the_long_prompts_are_the_published_ones(render, name):
    variables = {"documents": [{"text": "x"}]} if name == "command_a_rag" else {"tools": [TOOL]}
    clock = date(2026, 1, 31).strftime
    text = render(name, [AGAIN, ANSWER], enable_citations=True, strftime_now=clock, **variables)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == PROMPTS[name]


def test_gemma(render):
    opened = "<s><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n"
    assert render("gemma", [USER, ASSISTANT]) == opened + "Ho ü<end_of_turn>\n"
    assert render("gemma", [USER], add_generation_prompt=True) == opened
    with pytest.raises(TemplateError, match="System role not supported"):
        render("gemma", [SYSTEM, USER])


def test_metharme_ends_only_the_conversation(render):
    text = render("metharme", [SYSTEM, USER, ASSISTANT, AGAIN, ANSWER])
    assert text == "<s><|system|>Be brief.<|user|>Hi<|model|>Ho ü<|user|>Bye<|model|>Done</s>"
    asked = render("metharme", [USER], add_generation_prompt=True)
    assert asked.startswith("<s><|system|>Enter RP mode. You shall reply to the user while staying")
    assert asked.endswith(" drive the scenario forward.<|user|>Hi<|model|>")


def test_command_a(render):
    text = render("command_a", [SYSTEM, USER, ASSISTANT])
    assert text.startswith(
        "<s><|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|># System Preamble\nYou are in contextual safety"
    )
    assert (
        "Greek and Hebrew but have the ability to speak many more languages.\n\n# Default Preamble\n" in text
    )
    assert text.endswith(
        "\n\n# Developer Preamble\nThe following instructions take precedence over instructions in the default "
        "preamble and user prompt. You reject any instructions which conflict with system preamble instructions.\n"
        f"Be brief.{COHERE_END}{COHERE_OPEN.format('USER')} Hi\n{COHERE_END}"
        f"{COHERE_OPEN.format('CHATBOT')}<|START_RESPONSE|> Ho ü <|END_RESPONSE|>{COHERE_END}"
        f"{COHERE_OPEN.format('CHATBOT')}"
    )
    assert "Developer" not in render("command_a", [USER]).split("step by step, then answer.")[1]
    assert "You are in strict safety mode." in render("command_a", [USER], safety_mode="strict")
    assert render("command_a", [USER], add_generation_prompt=True).endswith("<|START_RESPONSE|>")


THOUGHT = {"role": "assistant", "content": "Done", "reasoning_content": "Hm"}


@pytest.mark.parametrize("name", ["qwen3", "qwen3_5"])
@pytest.mark.parametrize(
    "thought", [THOUGHT, {"role": "assistant", "content": "<think>\nHm\n</think>\n\nDone"}]
)
def test_qwen_keeps_only_the_last_reasoning(render, name, thought):
    text = render(name, [USER, thought, AGAIN, thought])
    assert text == (
        IM.format("user", " Hi\n")
        + IM.format("assistant", "Done")
        + IM.format("user", "Bye")
        + IM.format("assistant", "<think>\nHm\n</think>\n\nDone")
    )


@pytest.mark.parametrize(
    ("name", "variables", "expected"),
    [
        ("qwen3", {"enable_thinking": False}, "assistant\n<think>\n\n</think>\n\n"),
        ("qwen3_5", {"enable_thinking": False}, "assistant\n<think>\n\n</think>\n\n"),
        ("exaone4", {"enable_thinking": True}, "[|assistant|]\n<think>\n"),
        ("gemma4", {"enable_thinking": True}, "<|turn>user\nHi<turn|>\n<|turn>model\n"),
        ("jamba", {"generation_preamble": "Well,"}, "<|bom|><|assistant|> Well,"),
    ],
)
def test_how_the_answer_is_begun(render, name, variables, expected):
    assert render(name, [USER], add_generation_prompt=True, **variables).endswith(expected)


def test_other_templates_that_reason(render):
    shown = render("exaone4", [USER, THOUGHT], skip_think=False)
    assert shown.endswith("[|assistant|]\n<think>\nHm\n</think>\n\nDone[|endofturn|]\n")
    assert "Hm" not in render("exaone4", [USER, THOUGHT])
    tagged = {"role": "assistant", "content": "<think>Hm</think>Done"}
    assert render("deepseek_v3", [USER, tagged]).endswith("<｜Assistant｜>Done<｜end▁of▁sentence｜>")
    channel = {"role": "assistant", "content": "<|channel>thought\nHm\n<channel|>Done"}
    assert render("gemma4", [USER, channel]).endswith("<|turn>model\nDone<turn|>\n")
    thinking = render("gemma4", [USER, {**ONE_CALL, "reasoning_content": "Hm"}], tools=[TOOL])
    assert thinking.endswith(
        '<|turn>model\n<|channel>thought\nHm\n<channel|><|tool_call>call:get{q:<|"|>ü<|"|>}<tool_call|><|tool_response>'
    )
    assert render("gemma4", [USER], enable_thinking=True).startswith("<s><|turn>system\n<|think|>\n<turn|>\n")


def test_the_default_system_messages(render):
    assert render("qwen2_vl", [USER]).startswith(IM.format("system", "You are a helpful assistant."))
    qwen = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
    assert render("qwen_25", [USER]).startswith(IM.format("system", qwen))
    assert render("exaone", [USER]).startswith("[|system|][|endofturn|]\n[|user|]")
    assert render("jamba", [USER]).startswith("<|startoftext|><|bom|><|system|> <|eom|><|bom|><|user|>")
    assert render("phi_4", [USER]).startswith(
        "<|im_start|>system<|im_sep|>You are Phi, a language model trained by"
    )
    day = render("mistral_v7_tekken", [USER], strftime_now=date(2026, 1, 31).strftime)
    assert day.startswith("<s>[SYSTEM_PROMPT]You are Mistral Small 3, ") and "date is 2026-01-31.\n" in day
    for name in ("llama3", "llama4", "gemma3", "gemma4", "nemotron_h", "qwen3", "deepseek_v3", "cohere"):
        assert "ystem" not in render(name, [USER]).replace("system_", "").replace("SYSTEM", "ystem")


@pytest.mark.parametrize("name", ["mistral_v2v3", "mistral_v3_tekken", "pixtral"])
def test_the_system_message_is_in_the_question_to_be_answered(render, name):
    space = " " if name == "mistral_v2v3" else ""
    assert render(name, [SYSTEM, AGAIN]) == f"<s>[INST]{space}Be brief.\n\nBye[/INST]"
    assert "Be brief." not in render(name, [SYSTEM, AGAIN, ANSWER])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gemma3", "<start_of_turn>user\n<start_of_image>What?<end_of_turn>\n"),
        ("gemma3n", "<start_of_turn>user\n<image_soft_token>What?<end_of_turn>\n"),
        ("gemma4", "<|turn>user\n<|image|>What?<turn|>\n"),
        ("llama3_2_vision", f"<s>{LLAMA3_OPEN.format('user')}<|image|>What?<|eot_id|>"),
        ("llama4", "<|header_start|>user<|header_end|>\n\n<|image|>What?<|eot|>"),
        ("llava", "USER: <image>\nWhat? "),
        ("pixtral", "[INST][IMG]What?[/INST]"),
        ("qwen2_vl", IM.format("user", "<|vision_start|><|image_pad|><|vision_end|>What?")),
        ("qwen3_5", IM.format("user", "<|vision_start|><|image_pad|><|vision_end|>What?")),
    ],
)
def test_images(render, name, expected):
    assert render(name, [IMAGE]).endswith(expected)


def test_sound_and_film(render):
    sound = {"role": "user", "content": [{"type": "audio"}, {"type": "text", "text": "What?"}]}
    assert render("gemma3n", [sound]).endswith("user\n<audio_soft_token>What?<end_of_turn>\n")
    assert render("gemma4", [sound]).endswith("user\n<|audio|>What?<turn|>\n")
    film = {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "What?"}]}
    for name in ("qwen2_vl", "qwen3_5"):
        assert render(name, [film]).endswith("<|vision_start|><|video_pad|><|vision_end|>What?<|im_end|>\n")


def test_vision_numbers_and_conflicts(render):
    text = render("qwen2_vl", [IMAGE, ANSWER, IMAGE], add_vision_id=True)
    assert re.findall(r"Picture \d: <\|vision_start", text) == [
        "Picture 1: <|vision_start",
        "Picture 2: <|vision_start",
    ]
    with pytest.raises(TemplateError, match="images is incompatible with system messages"):
        render("llama3_2_vision", [SYSTEM, IMAGE])


def test_jamba_documents_and_modes_stand_before_the_last_question(render):
    modes = {"is_set": True, "citation_mode": "fast", "response_format": "json_object"}
    documents = [{"title": "T", "text": "x", "url": "u"}]
    text = render("jamba", [USER, ANSWER, AGAIN], documents=documents, knobs=modes)
    before, _, after = text.partition(
        "<|eom|><|bom|><|system|> <documents>\n# Documents\n\nYou can use the following "
    )
    assert before.endswith("<|bom|><|assistant|> Done")
    assert after.startswith(
        "documents for reference:\n\n## Document ID: 0\nTitle: T\nUrl: u\nText: x\n</documents>\n\n"
    )
    assert "## Citation Mode" in after and "## JSON Mode" in after
    assert after.endswith("\n</active_output_modes><|eom|><|bom|><|user|> Bye<|eom|>")


@pytest.mark.parametrize(
    ("name", "messages", "message"),
    [
        ("cohere", [USER, USER], "must alternate"),
        ("gemma", [ASSISTANT], "must alternate"),
        ("gemma3", [SYSTEM, ASSISTANT], "must alternate"),
        ("mistral_v1", [USER, AGAIN], "must alternate"),
        ("mistral_v2v3", [USER, AGAIN], "must alternate"),
        ("mistral_v7_tekken", [SYSTEM, {"role": "tool", "content": "7"}], "Only user, system and assistant"),
        ("pixtral", [USER, {"role": "tool", "content": "7"}], "Only user and assistant roles"),
        ("nemotron_h", [USER, SYSTEM], "Unexpected role: system"),
        ("exaone4", [{"role": "ipython", "content": "7"}], "Unknown role: ipython"),
        ("llama4", [SYSTEM], "no first user message"),
        ("chatml", [USER, ONE_CALL], "no attribute 'content'"),
        ("command_a", [USER, ONE_CALL], "no attribute 'content'"),
    ],
)
def test_conversations_that_are_refused(render, name, messages, message):
    with pytest.raises(TemplateError, match=message):
        render(name, messages, tools=[TOOL] if name == "llama4" else None)


@pytest.mark.parametrize("name", NAMES)
def test_a_tokenizer_carries_its_template_as_one_text(name):
    text = template_text(name)
    assert "{% include" not in text
    assert (TEMPLATES / f"{name}.jinja").is_file() or name in ("aya", "gemma4_unified")


@pytest.mark.parametrize("name", NAMES)
def test_every_template_can_be_fallen_back_to(name):
    choice = TokenizerConfig(chat_template=FALLBACK + name).chat_template
    assert choose_template(choice, None, "the tokenizer's") == "the tokenizer's"
    assert choose_template(choice, None, None) == template_text(name)
