"""An answer is right where it says the same as the reference, and ends as that does."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.evaluated import run
from support.parrot import chain, ids_of, make_parrot
from support.tiny_model import Heard, evaluation_data
from support.tiny_tokenizer import make_tokenizer

ADDED = ["<|yes|>", "<|no|>", "<|call|>", "<yes>"]
YES, NO, CALL, SPELLED = 398, 399, 400, 401
START, END, OTHER_END, NOWHERE = 1, 2, 0, 410
PROMPT = [60, 61, 62]


def judged(
    folder: Path, reference: list[int], said: list[int], ends: int | list[int] = END, **settings: Any
) -> tuple[bool, dict[str, Any], Heard]:
    """Whether the answer `said` counts as `reference`; its line of predictions.jsonl; and what was said."""
    model = make_parrot(folder / "model", chain(PROMPT[-1], *said), ADDED)
    path = model / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "eos_token_id": ends}))
    row = (PROMPT + reference, [-100] * len(PROMPT) + reference)
    metrics, (prediction,), heard = run(folder, model, evaluation_data(folder / "rows", [row]), **settings)
    assert metrics["exact_match"] == float(prediction["exact_match"])
    return prediction["exact_match"], prediction, heard


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[int]]:
    """Ids of some texts: `four`, a space, what is one token and its letters, half characters."""
    folder = make_tokenizer(tmp_path_factory.mktemp("words"))
    texts = ("four", " ", "\n", "user", "u", "s", "e", "r", "é", "à", *"<yes>")
    return {text: ids_of(folder, text) for text in texts}


CASES = {
    "the same": (["four", END], ["four", END], True),
    "other special token": ([YES, END], [NO, END], False),
    "other special token, nothing ends": ([YES], [NO, END], False),
    "end in place of a special token": ([YES], [END], False),
    "the special token that ends it": (["four", YES], ["four", YES], True),
    "end in place of the special token that ends it": (["four", YES], ["four", END], False),
    "special token before": (["four", END], [CALL, "four", END], False),
    "special token left out": ([CALL, "four", END], ["four", END], False),
    "never ends, special": (["four", END], ["four", START], False),
    "never ends, spaces": (["four", END], ["four", " "], False),
    "space before the end": (["four", END], ["four", " ", END], False),
    "space before": (["four", END], [" ", "four", END], False),
    "goes on, and need not end": (["four"], ["four", " ", END], True),
    "token of no text": (["four", END], ["four", NOWHERE, END], False),
    "other token of no text": ([NOWHERE, END], [NOWHERE + 1, END], False),
    "spelled otherwise": (["user", END], ["u", "s", "e", "r", END], True),
    "a special token spelled out": ([SPELLED, END], ["<", "y", "e", "s", ">", END], False),
    "half a character": (["é half"], ["à half"], False),
    "nothing": (["four", END], [END], False),
}


@pytest.mark.parametrize("case", CASES)
def test_what_counts_as_right(tmp_path: Path, words: dict[str, list[int]], case: str) -> None:
    def ids(parts: list[Any]) -> list[int]:
        halves = {"é half": words["é"][1:], "à half": words["à"][1:]}
        known = {**words, **halves}
        return [token for part in parts for token in (known[part] if isinstance(part, str) else [part])]

    reference, said, right = CASES[case]
    assert judged(tmp_path, ids(reference), ids(said))[0] is right


def test_special_tokens_are_shown(tmp_path: Path, words: dict[str, list[int]]) -> None:
    _, prediction, _ = judged(tmp_path, [YES, *words["four"], END], [NO, *words["four"], END])
    assert (prediction["reference"], prediction["prediction"]) == ("<|yes|>four", "<|no|>four")


def test_any_of_the_models_end_tokens_ends_an_answer(tmp_path: Path, words: dict[str, list[int]]) -> None:
    four = words["four"]
    both = [END, OTHER_END]
    assert judged(tmp_path / "a", [*four, END], [*four, OTHER_END], ends=both)[0]
    assert not judged(tmp_path / "b", [*four, END], [*four, OTHER_END])[0]


def test_an_answer_that_does_not_end_is_told_from_one_that_does(
    tmp_path: Path, words: dict[str, list[int]]
) -> None:
    four = words["four"]
    right, prediction, heard = judged(tmp_path / "a", [*four, END], four, eval_max_new_tokens=len(four) + 1)
    assert not right and prediction["ended"] is False
    assert prediction["prediction"].startswith(prediction["reference"]) and prediction["reference"] == "four"
    assert heard.of("table")[0]["rows"][0][-1].endswith(" (does not end)")
    assert judged(tmp_path / "b", [*four, END], [*four, END])[1]["ended"] is True
    assert judged(tmp_path / "c", four, [*four, END])[1]["ended"] is None


def test_a_reference_that_is_too_long_is_counted_wrong_as_the_log_says(
    tmp_path: Path, words: dict[str, list[int]]
) -> None:
    spelled = [*words["u"], *words["s"], *words["e"], *words["r"]]
    # The answer spells the text with fewer tokens, and would fit.
    said = [*words["user"], END]
    assert judged(tmp_path / "a", [*spelled, END], said, eval_max_new_tokens=5)[0]
    right, _, heard = judged(tmp_path / "b", [*spelled, END], said, eval_max_new_tokens=4)
    assert not right
    assert (
        "1 references are longer than eval_max_new_tokens 4: counted wrong" in heard.of("log")[0]["message"]
    )
