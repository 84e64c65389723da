"""A model that is asked something: loaded as it is scored, with its template and what ends its answers."""

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from threading import Event, Thread, current_thread
from typing import Any

import torch
from jinja2 import TemplateError
from transformers import GenerationConfig, StoppingCriteriaList

from tunemill.stages.artifacts import Adapter, Model
from tunemill.stages.errors import SettingError, UserError
from tunemill.stages.evaluation.loading_body import load_scored
from tunemill.stages.models.chat.pieces_body import Pieces
from tunemill.stages.models.chat.sampling import Answer, Sampling
from tunemill.stages.models.heads_body import head_of_adapter, head_of_folder
from tunemill.stages.models.own_code_body import check_without_code, use_code_of
from tunemill.stages.models.positions_body import table_of_positions
from tunemill.stages.models.quiet_body import be_quiet
from tunemill.stages.models.words_body import load_words

Messages = Sequence[Mapping[str, str]]
# Stands for an answer where its end in the template is looked for.
SENTINEL = "tunemill-sentinel"
LARGEST_SEED = 2**31
TOKENIZER_SETTINGS = "tokenizer_config.json"
# Below it the likeliest token is all that is left, and dividing by it leaves the range of numbers in the end.
LOWEST_TEMPERATURE = 1e-5


@dataclass(frozen=True)
class Speaker:
    """`ends` are the tokens that end an answer; `positions` the length of a table that the model has of them."""

    model: Any
    words: Any
    ends: frozenset[int]
    positions: int | None

    @property
    def chats(self) -> bool:
        """Whether it has a chat template; else texts are gone on from as they are."""
        return bool(self.words.chat_template)


def load_speaker(model: Path, adapter: Path | None = None, *, own_code: bool = True) -> Speaker:
    """The model of a folder, with an adapter beside it. `own_code`: whether Python files of the folder may run.

    Raises SettingError for a model that scores and gives no answers.
    """
    be_quiet()
    if own_code:
        use_code_of(model)
    else:
        check_without_code(model)
    if (head := head_of_folder(model) if adapter is None else head_of_adapter(adapter)) is not None:
        raise SettingError(f"{adapter or model}: it is {head}, which scores answers and gives none")
    loaded = load_scored(Model(model), None if adapter is None else Adapter(adapter))
    plain = loaded if adapter is None else loaded.get_base_model()
    # An adapter from elsewhere may have no tokenizer.
    has_words = adapter is not None and (adapter / TOKENIZER_SETTINGS).is_file()
    words = load_words(adapter if adapter is not None and has_words else model)
    own = plain.generation_config.eos_token_id
    ends = {*(own if isinstance(own, list) else [own]), words.eos_token_id, end_of_turn(words)} - {None}
    # generate() fills gaps from the model's own settings: sampling or penalties there would leak in.
    for one in (plain, loaded):
        one.generation_config = GenerationConfig()
    return Speaker(loaded, words, frozenset(ends), table_of_positions(plain))


def end_of_turn(words: Any) -> int | None:
    """The added token that the template puts behind an answer, where it puts one."""
    if not words.chat_template:
        return None
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": SENTINEL}]
    try:
        rendered = words.apply_chat_template(messages, tokenize=False)
    except (TemplateError, TypeError):
        return None
    ids = words(rendered.rpartition(SENTINEL)[2].lstrip(), add_special_tokens=False).input_ids
    return ids[0] if ids and ids[0] in words.added_tokens_decoder else None


def prompt_of(speaker: Speaker, said: Messages | str) -> list[int]:
    """The tokens of a conversation that the model is to go on with, or of a text as it is.

    Raises UserError for messages that the template refuses, and for text that is none.
    """
    words = speaker.words
    if isinstance(said, str):
        ids = _tokens(words, said)
        # Some tokenizers put an end token behind everything.
        return ids[:-1] if len(ids) > 1 and ids[-1] == words.eos_token_id else ids
    if not speaker.chats:
        raise SettingError("the model has no chat template: give it a text to go on with, not messages")
    try:
        rendered = words.apply_chat_template(
            [dict(message) for message in said], tokenize=False, add_generation_prompt=True
        )
    except (TemplateError, TypeError) as error:
        raise UserError(f"the model's chat template refuses these messages: {error}") from None
    return _tokens(words, rendered, add_special_tokens=False)


def _tokens(words: Any, text: str, **settings: Any) -> list[int]:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(
            f"the prompt has half a character, {text[error.start]!a}, which no text has: it was cut in the middle, or "
            f"is no UTF-8. Give whole characters"
        ) from None
    found: list[int] = words(text, **settings).input_ids
    return found


def answer(
    speaker: Speaker,
    prompt: Sequence[int],
    sampling: Sampling,
    on_text: Callable[[str], None],
    cancelled: Event | None = None,
) -> Answer:
    """Generate an answer, and give its text to `on_text` piece by piece. Ctrl-C and `cancelled` end it early.

    Raises UserError where the model has no room for an answer.
    """
    if not prompt:
        raise UserError("the prompt has no tokens; write something")
    room = sampling.max_new_tokens
    if speaker.positions is not None:
        room = min(room, speaker.positions - len(prompt))
        if room < 1:
            raise UserError(
                f"the prompt has {len(prompt)} tokens, and the model has {speaker.positions} positions. Shorten it"
            )
    draws = sampling.temperature > LOWEST_TEMPERATURE
    seed = None
    settings: dict[str, Any] = {"do_sample": False, "num_beams": 1}
    if draws:
        seed = secrets.randbelow(LARGEST_SEED) if sampling.seed is None else sampling.seed
        settings = {
            "do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0
        }  # fmt: skip
        torch.manual_seed(seed)
    ends = sorted(speaker.ends)
    pieces = Pieces(speaker.words, speaker.ends, sampling.stop, on_text, cancelled or Event())
    ids = torch.tensor([list(prompt)], device=next(speaker.model.parameters()).device)
    interrupted = False
    try:
        with torch.no_grad():
            speaker.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                generation_config=GenerationConfig(
                    **settings,
                    max_new_tokens=room,
                    eos_token_id=ends or None,
                    pad_token_id=ends[0] if ends else 0,
                ),
                streamer=pieces,
                stopping_criteria=StoppingCriteriaList([pieces.over]),
            )
    except KeyboardInterrupt:
        interrupted = True
    except torch.OutOfMemoryError:
        raise UserError(
            f"the device has no memory for a prompt of {len(prompt)} tokens and {len(pieces.tokens)} of its answer. "
            f"Shorten it, or take a smaller model"
        ) from None
    reason = "stop" if pieces.ended else "length"
    if interrupted or (pieces.cancelled.is_set() and not pieces.ended):
        reason = "interrupted"
    return Answer(pieces.said, len(pieces.tokens), len(prompt), reason, seed)


def answering(
    speaker: Speaker, prompt: Sequence[int], sampling: Sampling, cancelled: Event
) -> Iterator[str | Answer]:
    """The same as pieces of text and the whole answer behind them. The generation goes on in a thread."""
    heard: Queue[str | Answer | BaseException] = Queue()

    def work() -> None:
        try:
            heard.put(answer(speaker, prompt, sampling, heard.put, cancelled))
        except (UserError, RuntimeError, ValueError) as error:
            heard.put(error)

    thread = Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            item = heard.get()
            if isinstance(item, BaseException):
                raise item
            yield item
            if isinstance(item, Answer):
                return
    finally:
        # Whoever listens no more wants no more.
        cancelled.set()
        # Python may clean up after a listener that is gone in the thread itself.
        if thread is not current_thread():
            thread.join()
