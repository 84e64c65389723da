"""A model that is asked something: text comes piece by piece, and ends where it should."""

from threading import Event

import pytest
import torch

from tunemill.stages.errors import SettingError, UserError
from tunemill.stages.models.chat.pieces_body import Pieces, held_back
from tunemill.stages.models.chat.sampling import Answer, Sampling
from tunemill.stages.models.chat.speaker_body import (
    answer,
    answering,
    end_of_turn,
    load_speaker,
    prompt_of,
)

ASK = [{"role": "user", "content": "2 + 2"}]
LONG = Sampling(max_new_tokens=24)


@pytest.fixture(scope="module")
def speaker(finished_project):
    return load_speaker(finished_project.plan()["merged"].cached.data)


def said(speaker, sampling, prompt=None):
    """The answer, and its pieces."""
    pieces = []
    return answer(speaker, prompt or prompt_of(speaker, ASK), sampling, pieces.append), pieces


def test_the_prompt_is_what_the_template_makes_of_it(speaker):
    text = speaker.words.decode(prompt_of(speaker, ASK))
    assert text == "<|im_start|>user\n2 + 2<|im_end|>\n<|im_start|>assistant\n"
    assert speaker.words.decode(prompt_of(speaker, "2 + 2")) == "2 + 2"


def test_an_answer_ends_with_what_the_template_puts_behind_answers(speaker):
    ending = speaker.words.convert_tokens_to_ids("<|im_end|>")
    assert end_of_turn(speaker.words) == ending and ending in speaker.ends


def test_greedy_tokens_are_the_likeliest_and_their_text_comes_in_pieces(speaker):
    found, pieces = said(speaker, LONG)
    ids = prompt_of(speaker, ASK)
    with torch.no_grad():
        for _ in range(found.tokens):
            ids.append(int(speaker.model(torch.tensor([ids])).logits[0, -1].argmax()))
    new = ids[found.prompt_tokens :]
    kept = [token for token in new if token not in speaker.ends]
    assert found.text == speaker.words.decode(kept, skip_special_tokens=True) == "".join(pieces)
    assert len(pieces) > 3 and found.seed is None
    assert found.finish_reason == ("stop" if new[-1] in speaker.ends else "length")


def test_drawn_answers_are_those_of_their_seed(speaker):
    drawn = Sampling(temperature=1.5, max_new_tokens=24, seed=5)
    one, other = (said(speaker, drawn)[0] for _ in range(2))
    assert one == other and one.seed == 5
    unseeded = said(speaker, Sampling(temperature=1.5, max_new_tokens=24))[0]
    assert unseeded.seed is not None
    again = said(speaker, Sampling(temperature=1.5, max_new_tokens=24, seed=unseeded.seed))[0]
    assert again == unseeded


def test_a_text_that_ends_an_answer_is_no_part_of_it(speaker):
    whole, _ = said(speaker, LONG)
    place = len(whole.text) // 2
    stop = whole.text[place : place + 3]
    found, pieces = said(speaker, Sampling(max_new_tokens=24, stop=(stop,)))
    assert found.text == whole.text[: whole.text.index(stop)] == "".join(pieces)
    assert found.finish_reason == "stop" and found.tokens <= whole.tokens


def test_what_nobody_wants_any_more_is_not_generated(speaker):
    cancelled = Event()
    found = answer(
        speaker,
        prompt_of(speaker, ASK),
        Sampling(max_new_tokens=2000),
        lambda _: cancelled.set(),
        cancelled,
    )
    assert found.finish_reason == "interrupted" and found.tokens < 20


def test_pieces_can_be_waited_for(speaker):
    whole, _ = said(speaker, LONG)
    *pieces, last = answering(speaker, prompt_of(speaker, ASK), LONG, Event())
    assert isinstance(last, Answer) and last == whole and "".join(pieces) == whole.text


def test_ctrl_c_ends_an_answer(speaker):
    def press(_):
        raise KeyboardInterrupt

    found = answer(speaker, prompt_of(speaker, ASK), LONG, press)
    assert found.finish_reason == "interrupted" and found.text


def test_a_character_of_several_tokens_comes_whole(speaker):
    told = []
    pieces = Pieces(speaker.words, speaker.ends, (), told.append, Event())
    pieces.put(torch.tensor([[1, 2]]))
    ids = speaker.words("é→x", add_special_tokens=False).input_ids
    assert len(ids) > 3
    for token in ids:
        pieces.put(torch.tensor([token]))
    pieces.end()
    assert told == ["é", "→", "x"]


@pytest.mark.parametrize(
    ("text", "stop", "held"),
    [
        ("abc", (), 0),
        ("ab\ufffd", (), 1),
        ("say ST", ("STOP",), 2),
        ("STO", ("STOP", "TOP"), 3),
        ("", ("x",), 0),
    ],
)
def test_what_may_still_change_is_held_back(text, stop, held):
    assert held_back(text, stop) == held


def test_without_a_template_there_are_no_messages(speaker):
    speaker.words.chat_template, kept = None, speaker.words.chat_template
    try:
        assert not speaker.chats and end_of_turn(speaker.words) is None
        with pytest.raises(SettingError, match="no chat template"):
            prompt_of(speaker, ASK)
    finally:
        speaker.words.chat_template = kept


def test_messages_that_the_template_refuses_are_said_to_be(speaker):
    with pytest.raises(UserError, match="refuses these messages"):
        prompt_of(speaker, [{"role": "user", "content": 5}])
    with pytest.raises(UserError, match="no tokens"):
        answer(speaker, [], LONG, print)


@pytest.mark.parametrize("given", ["a\ud800", [{"role": "user", "content": "\udcff"}]])
def test_half_a_character_is_no_text(given, speaker):
    with pytest.raises(UserError, match="half a character"):
        prompt_of(speaker, given)


def test_next_to_no_temperature_takes_the_likeliest(speaker):
    cold, likeliest = Sampling(temperature=1e-300, max_new_tokens=4), Sampling(max_new_tokens=4)
    assert said(speaker, cold)[0] == said(speaker, likeliest)[0]


def test_no_memory_is_said_in_a_sentence(speaker):
    def no_room(_):
        raise torch.OutOfMemoryError

    with pytest.raises(UserError, match="no memory for a prompt of"):
        answer(speaker, prompt_of(speaker, ASK), LONG, no_room)


def test_the_adapter_beside_its_base_says_what_the_merged_model_says(speaker, finished_project):
    beside = load_speaker(
        finished_project.plan()["base_model"].cached.data, finished_project.plan()["trained"].cached.data
    )
    assert said(beside, LONG)[0] == said(speaker, LONG)[0]
