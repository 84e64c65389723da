"""`pygmalion` and `llama2_chat`: conversations without a chat template."""

import pytest
from support.formats import FormatBench

from tunemill.stages.data.conversations.example import BadRowError
from tunemill.stages.data.tokenized.formats.llama2_chat import DEFAULT_SYSTEM


@pytest.fixture(scope="module", params=["sp", "llama3", "chatml"])
def bench(request):
    return FormatBench(request.param)


def pygmalion(*messages):
    return {"conversations": [{"role": role, "value": text} for role, text in messages]}


def llama2(*messages):
    return {"conversations": [{"from": role, "value": text} for role, text in messages]}


def test_pygmalion(bench):
    row = pygmalion(("system", " A wizard.\n<START>"), ("human", "Hi "), ("bot", " Hail!"))
    eos = bench.tokenizer.eos_token_id
    model, answer = bench.ids("<|model|>"), bench.ids("<|model|> Hail!")
    (sample,) = bench.samples([row], type="pygmalion")
    assert sample.ids == [
        *bench.ids("<|system|>Persona: A wizard.", bos=True),
        *bench.ids("<|user|> Hi"),
        *answer,
        eos,
    ]
    assert bench.trained(sample) == [*answer[len(model) :], eos]
    assert [run.role for run in sample.runs] == ["system", "human", "bot"]
    (whole,) = bench.samples([row], type="pygmalion", train_on_inputs=True)
    assert whole.labels == whole.ids


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (pygmalion(("narrator", "Hi")), "message 1: role 'narrator' is none of system, human, bot"),
        (pygmalion(("human", None)), "message 1 has no 'value'"),
        ({"conversations": []}, "must be a list of messages"),
        ({"conversations": ["Hi"]}, "message 1 has no 'value'"),
    ],
)
def test_bad_pygmalion(row, reason):
    with pytest.raises(BadRowError, match=reason):
        FormatBench("chatml").samples([row], type="pygmalion")


def test_llama2_chat(bench):
    row = llama2(("human", " One? "), ("gpt", "1."), ("human", "Two?"), ("gpt", " 2."), ("human", "Three?"))
    eos = bench.tokenizer.eos_token_id
    pairs = [
        (f"[INST] <<SYS>>\n{DEFAULT_SYSTEM}\n<</SYS>>\n\nOne? [/INST]", " 1. "),
        ("[INST] Two? [/INST]", " 2. "),
    ]
    (sample,) = bench.samples([row], type="llama2_chat")
    ids, labels = [], []
    for prompt, answer in pairs:
        text = [*bench.ids(prompt + answer, bos=True), eos]
        hidden = len(bench.ids(prompt, bos=True))
        ids += text
        labels += [*[-100] * hidden, *text[hidden:]]
    assert (sample.ids, sample.labels) == (ids, labels)


def test_llama2_chat_with_its_own_system_text():
    bench = FormatBench("sp")
    row = llama2(("system", "Be."), ("gpt", "Passed over."), ("human", "One?"), ("gpt", "1."))
    (segment,) = bench.format(type="llama2_chat").read(row)
    assert segment.text == "[INST] <<SYS>>\nBe.\n<</SYS>>\n\nOne? [/INST] 1. "
    (whole,) = bench.samples([row], type="llama2_chat", train_on_inputs=True)
    assert whole.labels == whole.ids


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (llama2(("human", "One?"), ("human", "Two?"), ("gpt", "2.")), "'human' speaks twice in a row"),
        (llama2(("human", "One?")), "no question with an answer"),
        (llama2(("system", "Be.")), "no question with an answer"),
        (
            llama2(("human", "One?"), ("assistant", "1.")),
            "message 2: 'from' is 'assistant' and must be one of",
        ),
        (llama2(("human", "One?"), ("system", "Be.")), "message 2: 'from' is 'system'"),
        (llama2(("human", "One?"), ("gpt", " ")), "message 2 has no text"),
        ({"messages": []}, "'conversations' must be a list"),
    ],
)
def test_bad_llama2_chat(row, reason):
    with pytest.raises(BadRowError, match=reason):
        FormatBench("chatml").samples([row], type="llama2_chat")
