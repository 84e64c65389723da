"""A toy task for online training: letters to be sorted, prompts of it, rewards, and a model that half knows it."""

import itertools
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from support.tiny_model import make_model, workspace
from tunemill.stages.artifacts import Model, PromptData
from tunemill.stages.data.rows.prompt_rows import OF_ALL
from tunemill.stages.models.words_body import load_words
from tunemill.stages.report import Report
from tunemill.stages.training.ebft.body import ebft
from tunemill.stages.training.ebft.config import EbftConfig
from tunemill.stages.training.grpo.config import GrpoConfig
from tunemill.stages.training.online.learning_body import learn
from tunemill.stages.training.online.policy_keys import PolicyKeys

LETTERS = "abcde"
STOP = " ."
SORTED, STOPPED = 0.25, 0.25
REWARDS = '''
"""Rewards of the toy task."""


def right(completions, answer, **kwargs):
    """1 for the sorted letters, a third of the share of places that are right for others of that length, else 0."""
    found = []
    for text, wanted in zip(completions, answer):
        hits = sum(a == b for a, b in zip(text, wanted)) if len(text) == len(wanted) else 0
        found.append(1.0 if text == wanted else hits / len(wanted) / 3)
    return found


def short(completions, answer, **kwargs):
    """1 where it ends where the answer ends."""
    return [1.0 if len(text) == len(wanted) else 0.0 for text, wanted in zip(completions, answer)]


def ordered(completions, answer, **kwargs):
    """The same whether there is a full stop at the end or not."""
    return right([text.removesuffix(" .") for text in completions], answer)


def stopped(completions, **kwargs):
    """1 with a full stop at the end."""
    return [float(text.endswith(" .")) for text in completions]


def varied(completions, **kwargs):
    """Something that differs between almost any two texts."""
    return [sum(map(ord, text)) % 7 / 7 for text in completions]


def half(completions, answer, **kwargs):
    """The same, but 0 for all completions of words with an a."""
    return [0.0 if "a" in wanted else value for value, wanted in zip(varied(completions), answer)]
'''


def words_to_sort(count: int = 3, alphabet: str = LETTERS) -> list[str]:
    """All words of so many letters, in an order that is the same every time."""
    found = ["".join(letters) for letters in itertools.product(alphabet, repeat=count)]
    random.Random(0).shuffle(found)
    return found


def answer_to(word: str) -> str:
    """What is wanted: the letters in order, a space between each."""
    return " ".join(sorted(word))


def asking(word: str) -> str:
    """The prompt for a word."""
    return " ".join(word) + ">"


def prompt_data(folder: Path, model: Path, words: Sequence[str]) -> PromptData:
    """The prompts of these words as an artifact, with the columns `answer` and, which is the same, `ground_truth`."""
    tokenizer = load_words(model)
    rows = [
        {
            "dataset": 1,
            "source_row": number,
            "prompt_ids": tokenizer(asking(word), add_special_tokens=False)["input_ids"],
            "prompt": json.dumps(asking(word)),
            "columns": json.dumps({"answer": answer_to(word), "ground_truth": answer_to(word)}),
        }
        for number, word in enumerate(words, 1)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    with pa.OSFile(str(folder / "rows.arrow"), "wb") as file, pa.ipc.new_file(file, OF_ALL) as writer:
        writer.write_table(pa.Table.from_pylist(rows, schema=OF_ALL))
    return PromptData(folder)


def rewards_file(folder: Path) -> Path:
    """A file with the rewards of the task."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "letters.py"
    path.write_text(REWARDS)
    return path


def settings_for(folder: Path, **keys: Any) -> dict[str, Any]:
    """Settings of a small training, rewards among them."""
    return {
        "reward_funcs": ["letters.right"],
        "reward_code": [str(rewards_file(folder))],
        "num_generations": 4,
        "max_completion_length": 8,
        "micro_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "learning_rate": 1e-3,
        "lr_scheduler": "constant",
        "warmup_steps": 0,
        "logging_steps": 1,
        "bf16": False,
        **keys,
    }


def trained(
    folder: Path,
    base: Path,
    words: Sequence[str],
    report: Report,
    kind: type[PolicyKeys] = GrpoConfig,
    held_out: Sequence[str] = (),
    **keys: Any,
) -> Path:
    """Train on these words and give the data folder of the model."""
    out = workspace(folder)
    prompts = prompt_data(folder.parent / f"{folder.name}-prompts", base, words)
    others = held_out_data(folder, base, held_out)
    learn(kind(**settings_for(folder.parent, **keys)), Model(base), prompts, out, report, others)
    return out.data


def held_out_data(folder: Path, base: Path, words: Sequence[str]) -> PromptData | None:
    """The prompts of words that nothing is learned from; None where there are none."""
    return prompt_data(folder.parent / f"{folder.name}-held-out", base, words) if words else None


def trained_on_answers(
    folder: Path, base: Path, words: Sequence[str], report: Report, held_out: Sequence[str] = (), **keys: Any
) -> Path:
    """The same by features of the answers, without rewards."""
    out = workspace(folder)
    prompts = prompt_data(folder.parent / f"{folder.name}-prompts", base, words)
    others = held_out_data(folder, base, held_out)
    settings = settings_for(folder.parent, **keys)
    rewards = ("reward_funcs", "reward_code")
    config = EbftConfig(**{name: value for name, value in settings.items() if name not in rewards})
    ebft(config, Model(base), prompts, out, report, others)
    return out.data


def loosely(word: str, draw: random.Random) -> str:
    """The letters as they stand or, now and then, sorted; now and then with a full stop."""
    letters = sorted(word) if draw.random() < SORTED else word
    return " ".join(letters) + (STOP if draw.random() < STOPPED else "")


def warm_model(
    folder: Path,
    words: Sequence[str],
    steps: int,
    answer: Callable[[str, random.Random], str] = lambda word, _: answer_to(word),
    **changes: Any,
) -> Path:
    """A tiny model that has seen these words and such answers for so many steps."""
    make_model(folder, seed=0, initializer_range=0.05, **changes)
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = load_words(folder)
    end = tokenizer.eos_token_id
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    draw = random.Random(1)
    for _ in range(steps):
        rows = []
        for word in draw.choices(words, k=32):
            prompt = tokenizer(asking(word), add_special_tokens=False)["input_ids"]
            said = tokenizer(answer(word, draw), add_special_tokens=False)["input_ids"] + [end]
            rows.append((prompt, said))
        longest = max(len(p) + len(a) for p, a in rows)
        ids = torch.zeros((len(rows), longest), dtype=torch.long)
        labels = torch.full_like(ids, -100)
        for place, (prompt, said) in enumerate(rows):
            ids[place, : len(prompt) + len(said)] = torch.tensor(prompt + said)
            labels[place, len(prompt) : len(prompt) + len(said)] = torch.tensor(said)
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    return folder


def greedy(folder: Path, words: Sequence[str], tokens: int = 8) -> list[str]:
    """The likeliest answers."""
    from transformers import AutoModelForCausalLM

    from tunemill.stages.evaluation.batching_body import left_padded

    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), load_words(folder)
    prompts = [tokenizer(asking(word), add_special_tokens=False)["input_ids"] for word in words]
    inputs = left_padded(prompts)
    made = model.generate(
        **inputs, max_new_tokens=tokens, do_sample=False, eos_token_id=tokenizer.eos_token_id, pad_token_id=0
    )
    texts: list[str] = tokenizer.batch_decode(
        made[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
    )
    return texts


def share(texts: Sequence[str], wanted: Sequence[str]) -> float:
    """How many texts are the wanted ones."""
    return sum(map(str.__eq__, texts, wanted)) / len(wanted)
