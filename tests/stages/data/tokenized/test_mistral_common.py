"""`tokenizer_use_mistral_common`: the ids of mistral-common itself, and which of them are trained on."""

import json
import random

import pytest
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.protocol.instruct.validator import ValidationMode
from mistral_common.tokens.tokenizers.base import SpecialTokenPolicy
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from pydantic import ValidationError
from support.rows import read_arrow, run_stage
from support.tekken import SPECIAL_IDS, write_tekken

from tunemill.stages.data.tokenized.config import TokenizedConfig
from tunemill.stages.data.tokenizer.config import TokenizerConfig
from tunemill.stages.data.tokenizer.stage import TOKENIZER
from tunemill.stages.errors import RowError, SettingError

VERSIONS = ("v3", "v7", "v11", "v13")
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "d", "parameters": WEATHER}}]


def call(identity, city):
    return {"id": identity, "type": "function", "function": {"name": "weather", "arguments": {"city": city}}}


SYSTEM = {"role": "system", "content": "be kind"}
TURNS = [
    {"role": "user", "content": "hello </s> [INST] world"},
    {"role": "assistant", "content": "hi"},
    {"role": "user", "content": "the weather?"},
    {"role": "assistant", "content": "", "tool_calls": [call("abcdefghi", "Zürich"), call("abcdefgh2", "B")]},
    {"role": "tool", "tool_call_id": "abcdefghi", "content": '{"sun": 1}'},
    {"role": "tool", "tool_call_id": "abcdefgh2", "content": "rain"},
    {"role": "assistant", "content": "in the sun"},
]
THINKING = [
    {"role": "user", "content": [{"type": "text", "text": "hello"}, {"type": "text", "text": "world"}]},
    {
        "role": "assistant",
        "content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "hi"}],
    },
    {"role": "user", "content": "and?"},
    {"role": "assistant", "content": [{"type": "thinking", "thinking": "open", "closed": False}]},
]
# What is given to both sides; both render it, and here only the ids are compared.
CONVERSATIONS = {
    "one exchange": {"messages": TURNS[:2]},
    "system": {"messages": [SYSTEM, *TURNS[:2]]},
    "several turns": {"messages": [SYSTEM, *TURNS[:3], {"role": "assistant", "content": "never"}]},
    "tools": {"messages": [SYSTEM, *TURNS], "tools": TOOLS},
    "tools, and no calls": {"messages": TURNS[:2], "tools": TOOLS},
    "users behind one another": {"messages": [TURNS[0], *TURNS[0:2]]},
    "answers behind one another": {"messages": [*TURNS[:2], TURNS[1]]},
    "a late system message": {
        "messages": [*TURNS[:2], TURNS[0], SYSTEM, {"role": "user", "content": "b"}, TURNS[1]]
    },
}


@pytest.fixture(scope="session")
def tekkens(tmp_path_factory):
    return {version: write_tekken(tmp_path_factory.mktemp(version), version) for version in VERSIONS}


@pytest.fixture(scope="session")
def tokenizers(tmp_path_factory, tekkens):
    """The tokenizer stage's artifact of each version."""

    def made(version):
        config = TokenizerConfig(base_model=str(tekkens[version]), tokenizer_use_mistral_common=True)
        return run_stage(TOKENIZER, config, tmp_path_factory.mktemp("tokenizer") / version, upstream=None)[0]

    return {version: made(version) for version in VERSIONS}


@pytest.fixture(scope="session")
def own(tekkens):
    """mistral-common itself."""
    return {
        version: MistralTokenizer.from_file(folder / "tekken.json", mode=ValidationMode.finetuning)
        for version, folder in tekkens.items()
    }


@pytest.fixture
def rows(tokenize, tokenizers):
    """Tokens and labels of rows."""

    def run(*given, version="v13", **settings):
        dataset, _ = tokenize(
            list(given), given=tokenizers[version], tokenizer_use_mistral_common=True, **settings
        )
        return read_arrow(dataset.rows)

    return run


@pytest.fixture
def shown(rows, own):
    """A row as text, with what is trained on between braces."""

    def run(row, version="v13", **settings):
        (only,) = rows(row, version=version, **settings)
        text, inside = "", False
        runs = []
        for token, label in zip(only["input_ids"], only["labels"], strict=True):
            assert label in (-100, token)
            if not runs or (label != -100) != runs[-1][0]:
                runs.append((label != -100, []))
            runs[-1][1].append(token)
        for inside, ids in runs:
            piece = own[version].decode(ids, special_token_policy=SpecialTokenPolicy.KEEP)
            text += f"{{{piece}}}" if inside else piece
        return text

    return run


@pytest.mark.parametrize("version", VERSIONS)
def test_the_ids_are_those_of_mistral_common(rows, own, version):
    made = rows(*CONVERSATIONS.values(), version=version)
    for name, row in zip(CONVERSATIONS, made, strict=True):
        request = ChatCompletionRequest.from_openai(**CONVERSATIONS[name])
        assert row["input_ids"] == own[version].encode_chat_completion(request).tokens, name


def test_reasoning_has_the_ids_of_mistral_common(rows, own):
    (row,) = rows({"messages": THINKING})
    request = ChatCompletionRequest.from_openai(messages=THINKING)
    assert row["input_ids"] == own["v13"].encode_chat_completion(request).tokens


def test_a_tekken_file_of_a_model_that_also_sees_and_hears(tokenize, tmp_path, own):
    file = write_tekken(tmp_path / "base") / "tekken.json"
    spectrogram = {"num_mel_bins": 80, "hop_length": 160, "window_size": 400}
    audio = {"sampling_rate": 16000, "frame_rate": 12.5, "audio_encoding_config": spectrogram}
    image = {"image_patch_size": 14, "max_image_size": 1540}
    file.write_text(json.dumps({**json.loads(file.read_text()), "image": image, "audio": audio}))
    config = TokenizerConfig(base_model=str(file.parent), tokenizer_use_mistral_common=True)
    tokenizer, _ = run_stage(TOKENIZER, config, tmp_path / "out", upstream=None)
    dataset, _ = tokenize([TALK], given=tokenizer, tokenizer_use_mistral_common=True)
    (row,) = read_arrow(dataset.rows)
    request = ChatCompletionRequest.from_openai(**TALK)
    assert row["input_ids"] == own["v13"].encode_chat_completion(request).tokens


def test_a_template_beside_the_tekken_file_does_not_count(tokenize, tmp_path, rows):
    base = write_tekken(tmp_path / "base")
    (base / "chat_template.jinja").write_text("{{ strftime_now('%d') }}")
    config = TokenizerConfig(base_model=str(base), tokenizer_use_mistral_common=True)
    tokenizer, _ = run_stage(TOKENIZER, config, tmp_path / "out", upstream=None)
    dataset, events = tokenize([TALK], given=tokenizer, tokenizer_use_mistral_common=True, today="2026-01-31")
    (made,) = read_arrow(dataset.rows)
    (plain,) = rows(TALK)
    assert made["input_ids"] == plain["input_ids"] and "strftime_now" not in events.logs


def test_reasoning_in_a_system_message_is_what_it_says(shown):
    content = [{"type": "text", "text": "First "}, {"type": "thinking", "thinking": "hm"}]
    row = {"messages": [{"role": "system", "content": content}, *TALK["messages"][1:3]]}
    assert shown(row, roles_to_train=["system"]) == (
        "<s>[SYSTEM_PROMPT]{First [THINK]hm[/THINK]}[/SYSTEM_PROMPT][INST]a[/INST]b</s>"
    )


def test_old_versions_refuse_reasoning(rows):
    with pytest.raises(RowError, match=r"mistral-common refuses the row: .*Think"):
        rows({"messages": THINKING}, version="v7")


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("v3", "<s>[INST]be kind\n\nhello[/INST]{hi</s>}"),
        ("v7", "<s>[SYSTEM_PROMPT]be kind[/SYSTEM_PROMPT][INST]hello[/INST]{hi</s>}"),
        ("v13", "<s>[SYSTEM_PROMPT]be kind[/SYSTEM_PROMPT][INST]hello[/INST]{hi</s>}"),
    ],
)
def test_answers_and_their_ends_are_trained(shown, version, expected):
    row = {"messages": [SYSTEM, {"role": "user", "content": "hello"}, TURNS[1]]}
    assert shown(row, version) == expected


TALK = {
    "messages": [
        SYSTEM,
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "d"},
    ]
}
HEAD = "<s>[SYSTEM_PROMPT]be kind[/SYSTEM_PROMPT]"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, HEAD + "[INST]a[/INST]{b</s>}[INST]c[/INST]{d</s>}"),
        ({"train_on_eos": "none"}, HEAD + "[INST]a[/INST]{b}</s>[INST]c[/INST]{d}</s>"),
        ({"train_on_eos": "last"}, HEAD + "[INST]a[/INST]{b}</s>[INST]c[/INST]{d</s>}"),
        ({"roles_to_train": ["user"]}, HEAD + "[INST]{a}[/INST]b</s>[INST]{c}[/INST]d</s>"),
        (
            {"roles_to_train": ["user"], "train_on_eos": "all"},
            HEAD + "[INST]{a}[/INST]b{</s>}[INST]{c}[/INST]d{</s>}",
        ),
        (
            {"train_on_inputs": True},
            "<s>[SYSTEM_PROMPT]{be kind}[/SYSTEM_PROMPT][INST]{a}[/INST]{b</s>}[INST]{c}[/INST]{d</s>}",
        ),
        (
            {"eot_tokens": ["[/INST]"], "train_on_eot": "all"},
            HEAD + "[INST]a{[/INST]b</s>}[INST]c{[/INST]d</s>}",
        ),
        (
            {"eot_tokens": ["[/INST]"], "train_on_eot": "none"},
            HEAD + "[INST]a[/INST]{b</s>}[INST]c[/INST]{d</s>}",
        ),
        ({"drop_system_message": True}, "<s>[INST]a[/INST]{b</s>}[INST]c[/INST]{d</s>}"),
    ],
)
def test_rules_of_training(shown, settings, expected):
    assert shown(TALK, **settings) == expected


def test_a_message_may_say_whether_it_is_trained_on(shown):
    first, *rest = (dict(message, train=message["content"] == "b") for message in TALK["messages"])
    assert shown({"messages": [first, *rest]}, message_field_training="train") == (
        HEAD + "[INST]a[/INST]{b</s>}[INST]c[/INST]d</s>"
    )


def test_calls_are_trained_and_tools_and_their_answers_are_not(shown):
    assert shown({"messages": TURNS, "tools": TOOLS}) == (
        '<s>[AVAILABLE_TOOLS][{"type": "function", "function": {"name": "weather", "description": "d", '
        '"parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}][/AVAILABLE_TOOLS]'
        "[INST]hello </s> [INST] world[/INST]{hi</s>}[INST]the weather?[/INST]"
        '{[TOOL_CALLS]weather[ARGS]{"city": "Zürich"}[TOOL_CALLS]weather[ARGS]{"city": "B"}</s>}'
        '[TOOL_RESULTS]{"sun": 1}[/TOOL_RESULTS][TOOL_RESULTS]rain[/TOOL_RESULTS]{in the sun</s>}'
    )


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("v3", '[TOOL_RESULTS]{{"content": "rain", "call_id": "abcdefghi"}}[/TOOL_RESULTS]'),
        ("v7", "[TOOL_RESULTS]abcdefghi[TOOL_CONTENT]{rain}[/TOOL_RESULTS]"),
        ("v13", "[TOOL_RESULTS]{rain}[/TOOL_RESULTS]"),
    ],
)
def test_the_answer_of_a_tool_is_what_it_says(shown, version, expected):
    asked = [
        *TURNS[2:3],
        {"role": "assistant", "tool_calls": [call("abcdefghi", "B")]},
        {"role": "tool", "tool_call_id": "abcdefghi", "content": "rain"},
        TURNS[-1],
    ]
    assert expected in shown({"messages": asked}, version, roles_to_train=["tool"])


def test_answers_of_tools_keep_their_flags_when_they_are_sorted(shown):
    one, other = TURNS[4:6]
    messages = [*TURNS[2:4], {**other, "train": True}, {**one, "train": False}, {**TURNS[-1], "train": False}]
    text = shown({"messages": messages}, message_field_training="train", roles_to_train=[])
    assert text.endswith(
        '[TOOL_RESULTS]{"sun": 1}[/TOOL_RESULTS][TOOL_RESULTS]{rain}[/TOOL_RESULTS]in the sun</s>'
    )


def test_reasoning_is_trained_with_the_answer(shown):
    assert shown({"messages": THINKING}) == (
        "<s>[INST]hello\n\nworld[/INST]{[THINK]hm[/THINK]hi</s>}[INST]and?[/INST]{[THINK]open</s>}"
    )


PART = {"type": "text", "text": "hello"}


@pytest.mark.parametrize("version", VERSIONS)
def test_parts_with_flags(shown, version):
    answer = [{**PART, "train": False}, {"type": "text", "text": " world  ", "train": True}]
    asked = [{**PART, "train": True}, {"type": "text", "text": " world"}]
    row = {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]}
    assert shown(row, version) == "<s>[INST]{hello} world[/INST]hello{ world</s>}"


def test_ranges_of_characters(shown):
    answer = {"role": "assistant", "content": "hello Zürich world", "reasoning_content": "hm"}
    answer["details"] = [
        {"begin_offset": 0, "end_offset": 4, "train": True},
        {"begin_offset": 5, "end_offset": 17, "train": False},
    ]
    row = {"messages": [{"role": "user", "content": "a"}, answer]}
    assert shown(row, message_field_training_detail="details") == (
        "<s>[INST]a[/INST][THINK]hm[/THINK]{hello} Zürich world{</s>}"
    )


def test_parts_of_a_text_that_is_joined_with_another(rows):
    asked = {"role": "user", "content": [{**PART, "train": True}]}
    answer = {"role": "assistant", "content": "hi"}
    with pytest.raises(RowError, match="one turn of 2 messages of user"):
        rows({"messages": [asked, TURNS[0], answer]})
    with pytest.raises(RowError, match="cannot be told which tokens stand for which characters of 'hello'"):
        # In this version the system text stands before the user's.
        rows({"messages": [{**SYSTEM, "content": "hello"}, asked, answer]}, version="v3")


@pytest.mark.parametrize(
    ("answer", "settings"),
    [
        ({"content": "hi", "reasoning_content": "hm"}, {}),
        ({"content": [{"type": "text", "text": "hi"}], "why": "hm"}, {"field_thinking": "why"}),
        ({"content": "<think>hm</think>hi"}, {"split_thinking": True}),
    ],
)
def test_reasoning_in_a_field_of_its_own(shown, answer, settings):
    row = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", **answer}]}
    assert shown(row, **settings) == "<s>[INST]a[/INST]{[THINK]hm[/THINK]hi</s>}"


def test_other_names_of_fields_and_roles(shown):
    row = {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}
    text = shown(
        row, field_messages="conversations", message_property_mappings={"role": "from", "content": "value"}
    )
    assert text == "<s>[INST]a[/INST]{b</s>}"


def test_a_conversation_that_begins_with_an_answer(shown):
    row = {"messages": [{"role": "assistant", "content": "b"}]}
    two = {"messages": [*TALK["messages"][2:]]}
    assert shown(two, "v3") == "<s>[INST][/INST]{b</s>}[INST]c[/INST]{d</s>}"
    with pytest.raises(RowError, match="mistral-common refuses the row: Conversation must start with a user"):
        shown(row)


def test_the_roles_of_the_tokens(rows):
    (row,) = rows(TALK)
    ids = row["input_ids"]
    ends = [ids.index(SPECIAL_IDS["[/SYSTEM_PROMPT]"]), ids.index(SPECIAL_IDS["[/INST]"]), ids.index(2)]
    assert row["roles"] == ["system", "user", "assistant", "user", "assistant"]
    assert [end - 1 for end in row["role_ends"][:3]] == ends and row["role_ends"][-1] == len(ids)


def bad(content="hi", **more):
    return {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": content, **more}]}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": TALK["messages"][:4]}, "Expected last role Assistant for finetuning but got user"),
        ({"messages": [*TURNS[:2], TURNS[4], TURNS[1]]}, "tool"),
        (bad(""), "mistral-common refuses the row"),
        (
            {**bad(), "tools": [{"name": "weather"}]},
            "mistral-common refuses the row: function: Field required",
        ),
        (
            bad(tool_calls=[call("abcdefghi", "B") | {"function": {"name": "a b", "arguments": {}}}]),
            "Function name was a b",
        ),
        (bad([{"type": "image", "url": "x"}]), "part 1 is of type 'image'"),
        (bad([{"type": "thinking", "thinking": "x", "train": True}]), "part 1 is of type 'thinking'"),
        (bad([{"type": "thinking"}]), "has no text in 'thinking'"),
        ({"messages": [{"role": "critic", "content": "x"}, TURNS[1]]}, "critic"),
    ],
)
def test_what_mistral_common_refuses_is_a_bad_row(rows, row, reason):
    with pytest.raises(RowError) as refused:
        rows(TALK, row)
    assert reason in str(refused.value) and "rows.jsonl:2" in str(refused.value)


def test_messages_of_one_turn_must_agree(rows):
    first, second = ({"role": "assistant", "content": "b", "train": flag} for flag in (True, False))
    row = {"messages": [TURNS[0], first, second]}
    with pytest.raises(RowError, match="one turn of 2 messages of assistant"):
        rows(row, message_field_training="train")


def test_an_end_token_that_is_no_control_token(rows):
    with pytest.raises(SettingError, match="'<end>' is no control token"):
        rows(TALK, eot_tokens=["<end>"])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("chat_template", "chatml"),
        ("chat_template_jinja", "{{ messages }}"),
        ("chat_template_kwargs", {"a": 1}),
    ],
)
def test_what_only_a_template_can_do_is_refused(key, value):
    with pytest.raises(ValidationError, match=f"{key} does not go with tokenizer_use_mistral_common"):
        TokenizedConfig(type="chat_template", tokenizer_use_mistral_common=True, **{key: value})


def test_instructions_and_plain_texts(rows, own):
    encode = own["v13"].instruct_tokenizer.tokenizer.encode
    (row,) = rows({"text": "hello </s> world"}, type="completion")
    assert row["input_ids"] == encode("hello </s> world", bos=True, eos=True)
    (row,) = rows({"instruction": "hello", "input": "", "output": "[INST] hi"}, type="alpaca")
    answer = encode("[INST] hi", bos=False, eos=True)
    assert row["input_ids"][0] == 1 and row["input_ids"][-len(answer) :] == answer
    assert row["labels"] == [-100] * (len(row["labels"]) - len(answer)) + answer


def test_any_text_has_the_ids_of_mistral_common(rows, own):
    dice = random.Random(1)
    parts = [
        "hello",
        " world",
        "the",
        "\n\n",
        "  ",
        "1234",
        "Zürich",
        "你好",
        "😀",
        "[INST]",
        "</s>",
        "'s",
        "\t",
        "!?",
    ]
    texts = ["".join(dice.choices(parts, k=12)) for _ in range(200)]
    made = rows(*({"text": text} for text in texts), type="completion")
    encode = own["v13"].instruct_tokenizer.tokenizer.encode
    assert [row["input_ids"] for row in made] == [encode(text, bos=True, eos=True) for text in texts]


def test_the_library_is_part_of_the_key_where_it_renders():
    def libraries(**settings):
        return TokenizedConfig(**settings).used_libraries()

    assert libraries(type="chat_template", tokenizer_use_mistral_common=True) == (
        "mistral-common",
        "tiktoken",
    )
    assert libraries(type="alpaca", tokenizer_use_mistral_common=True) == ()
    assert libraries(type="chat_template", tokenizer_use_mistral_common=False) == ()
