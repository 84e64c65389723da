"""A toy environment, a chat template with tools, and a tiny model that has learned to call them."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from support.tiny_model import make_model, workspace
from tunemill.stages.artifacts import Model, PromptData
from tunemill.stages.data.rows.prompt_rows import OF_ALL
from tunemill.stages.models.words_body import load_words
from tunemill.stages.report import Report
from tunemill.stages.training.grpo.config import GrpoConfig
from tunemill.stages.training.online.learning_body import learn

# Names of tools alone: a tiny model would take long to read whole schemas.
TEMPLATE = (
    "{% if tools %}{{ '<|im_start|>system\\n' }}{% for tool in tools %}{{ tool.function.name + ' ' }}{% endfor %}"
    "{{ '<|im_end|>\\n' }}{% endif %}"
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' + (message.content or '') }}"
    "{% for call in message.tool_calls or [] %}{{ '!' + call.function.name }}"
    "{% for name, value in call.function.arguments.items() %}{{ ' ' + name + '=' + value | string }}{% endfor %}"
    "{% endfor %}"
    "{{ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
# How an answer that is written so is read, in the words of transformers.
ANSWER = {
    "defaults": {"role": "assistant"},
    "start_anchor": "<|im_start|>assistant\n",
    "fields": {
        "tool_calls": {
            "open_pattern": r"!(?P<name>\w+)", "close_pattern": r"(?=<\|im_end\|>)", "repeats": True,
            "content": "xml-inline",
            "content_args": {
                "tag_pattern": r" (?P<key>\w+)=(?P<value>[^\s<]+)", "value_parser": {"name": "text"},
            },
            "transform": {"type": "function", "function": {"name": "{name}", "arguments": "{content}"}},
        },
        "content": {"close_pattern": r"<\|im_end\|>\s*", "content": "text"},
    },
}  # fmt: skip
MODULE = '''
"""An environment that counts."""

import os
import time

SHARED = []


class Counter:
    """Adds up what it is told; 3 of it is too much, and at 99 it is stuck."""

    def __init__(self):
        self.connection = open(os.devnull)
        self.others = len(SHARED)
        SHARED.append(self)

    def reset(self, start=0, **row):
        self.start = start
        self.total, self.told, self.row = start, [], sorted(row)
        if start == 77:
            raise RuntimeError("nobody is here")
        return f" {start}"

    def add(self, n: int) -> str:
        """
        Add a number.

        Args:
            n: how much
        """
        self.told.append(n)
        if self.total == 99:
            time.sleep(1000)
        if self.total == 98:
            os._exit(3)
        if n == 3:
            raise ValueError("3 is too much")
        self.total += n
        return str(self.total)

    def get_reward(self):
        return float(self.total % 5)


def reset_to(environments, **kwargs):
    """Where each began, as its row says."""
    return [float(one.start) for one in environments]


def alone(environments, **kwargs):
    """How many environments there had been before each."""
    return [float(one.others) for one in environments]


def total(environments, completions, prompts, **kwargs):
    """The sums, by what each has kept."""
    return [one.total / 10 + len(said) for one, said in zip(environments, completions)]


def double(n: int) -> int:
    """
    Twice a number.

    Args:
        n: which
    """
    return n * 2


def calls(completions, **kwargs):
    """How many turns there were."""
    return [float(len(one)) for one in completions]
'''
# Functions that sample by themselves.
PLAYING = '''
import torch


def asked(prompts, trainer):
    return [trainer.processing_class(one, add_special_tokens=False)["input_ids"] for one in prompts]


def same(prompts, trainer):
    """By what samples otherwise."""
    ids = asked(prompts, trainer)
    said = trainer.generate(ids)
    return {
        "prompt_ids": ids,
        "completion_ids": [one["completion_ids"] for one in said],
        "logprobs": [one["logprobs"] for one in said],
        "place": list(range(len(ids))),
        "step": trainer.state.global_step,
    }


def drawn(prompts, trainer):
    """By the model's own generate, and torch's own numbers."""
    assert not trainer.model.training and not torch.is_grad_enabled()
    ids, said, log_p = asked(prompts, trainer), [], []
    end = trainer.processing_class.eos_token_id
    for row in ids:
        made = trainer.model.generate(
            input_ids=torch.tensor([row]), attention_mask=torch.ones(1, len(row), dtype=torch.long),
            max_new_tokens=trainer.args.max_completion_length, do_sample=True, temperature=1.0, top_k=0,
            output_logits=True, return_dict_in_generate=True, eos_token_id=end, pad_token_id=end,
        )
        tokens = made.sequences[0, len(row):]
        logits = torch.stack(made.logits, 1)[0].float().log_softmax(-1)
        said.append(tokens.tolist())
        log_p.append(logits.gather(-1, tokens[:, None])[:, 0].tolist())
    return {"prompt_ids": ids, "completion_ids": said, "logprobs": log_p}


def garbage(prompts, trainer):
    """As if they were of another model."""
    told = same(prompts, trainer)
    return {**told, "logprobs": [[one - 5 for one in row] for row in told["logprobs"]]}


def silent(prompts, trainer):
    return {**same(prompts, trainer), "logprobs": None}


def masked(prompts, trainer):
    """The first token of each was said by somebody else."""
    told = same(prompts, trainer)
    return {**told, "env_mask": [[0] + [1] * (len(row) - 1) for row in told["completion_ids"]]}


def changed(**other):
    return lambda prompts, trainer: {**same(prompts, trainer), **other}


nothing = lambda prompts, trainer: None
without = lambda prompts, trainer: {"prompt_ids": asked(prompts, trainer)}
few = changed(completion_ids=[[1]])
texts = changed(completion_ids=["a"] * 8)
empty = changed(completion_ids=[[]] * 8)
long = changed(completion_ids=[[5] * 9] * 8, logprobs=None)
unequal = changed(logprobs=[[0.0] * 99] * 8)
unmasked = changed(completion_ids=[[5]] * 8, logprobs=None, env_mask=[[2]] * 8)
tensors = changed(completion_ids=[torch.tensor([5])] * 8)
objects = changed(extra=[object()] * 8)


def raises(prompts, trainer):
    raise KeyError("who")
'''
ASKED = "go"


def playing_file(folder: Path) -> str:
    """The file of those functions."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "playing.py"
    path.write_text(PLAYING)
    return str(path)


def environment_file(folder: Path) -> str:
    """The file of the toy environment."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "counting.py"
    path.write_text(MODULE)
    return str(path)


def caller(folder: Path, steps: int = 120, tool: str = "add", **changes: Any) -> Path:
    """A tiny model that calls `add` with 1, 2 or 3, once or twice, and then says `done`."""
    make_model(folder, seed=0, initializer_range=0.05, **changes)
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "response_template": ANSWER}))
    from transformers import AutoModelForCausalLM

    model, words = AutoModelForCausalLM.from_pretrained(folder), load_words(folder)
    optimizer, draw = torch.optim.AdamW(model.parameters(), lr=3e-3), random.Random(1)
    for _ in range(steps):
        rows = [
            words(_conversation(words, draw, tool), add_special_tokens=False)["input_ids"] for _ in range(16)
        ]
        longest = max(map(len, rows))
        ids = torch.zeros((len(rows), longest), dtype=torch.long)
        labels = torch.full_like(ids, -100)
        for place, row in enumerate(rows):
            ids[place, : len(row)] = labels[place, : len(row)] = torch.tensor(row)
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    return folder


def _conversation(words: Any, draw: random.Random, tool: str) -> str:
    start = total = draw.randrange(5)
    messages: list[dict[str, Any]] = [{"role": "user", "content": f"{ASKED} {start}"}]
    for _ in range(draw.choice((1, 2))):
        number = draw.choice((1, 2, 3))
        call = {"name": tool, "arguments": {"n": number}}
        total += number if number != 3 else 0
        said = str(total) if number != 3 else "{'error': '3 is too much'}"
        messages += [
            {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": call}]},
            {"role": "tool", "name": tool, "content": said},
        ]
    messages.append({"role": "assistant", "content": "done"})
    tools = [{"type": "function", "function": {"name": tool}}]
    return str(words.apply_chat_template(messages, tools=tools, tokenize=False))


def prompts_of(folder: Path, model: Path, rows: Sequence[dict[str, Any]]) -> PromptData:
    """Prompts, each the same question with the columns of a row."""
    words, asked = load_words(model), [{"role": "user", "content": ASKED}]
    ids = words(ASKED, add_special_tokens=False)["input_ids"]
    made = [
        {
            "dataset": 1, "source_row": number, "prompt_ids": ids, "prompt": json.dumps(asked),
            "columns": json.dumps(row),
        }
        for number, row in enumerate(rows, 1)
    ]  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    with pa.OSFile(str(folder / "rows.arrow"), "wb") as file, pa.ipc.new_file(file, OF_ALL) as writer:
        writer.write_table(pa.Table.from_pylist(made, schema=OF_ALL))
    return PromptData(folder)


def played(
    folder: Path,
    base: Path,
    report: Report,
    rows: Sequence[dict[str, Any]] | None = None,
    held_out: Sequence[dict[str, Any]] = (),
    **keys: Any,
) -> Path:
    """Train in the toy environment, and give the data folder of the model; `held_out` are rows that score it."""
    beside = prompts_of(folder.parent / f"{folder.name}-held-out", base, held_out) if held_out else None
    out, code = workspace(folder), environment_file(folder.parent)
    prompts = prompts_of(
        folder.parent / f"{folder.name}-prompts", base, rows or [{"start": n % 5} for n in range(8)]
    )
    settings = {
        "environment_factory": "counting.Counter", "environment_code": [code], "num_generations": 4,
        "max_completion_length": 64, "sequence_len": 64, "micro_batch_size": 4, "gradient_accumulation_steps": 2,
        "learning_rate": 1e-3, "lr_scheduler": "constant", "warmup_steps": 0, "logging_steps": 1, "bf16": False,
        "reward_funcs": ["counting.total"], "reward_code": [code], **keys,
    }  # fmt: skip
    learn(GrpoConfig(**settings), Model(base), prompts, out, report, beside)
    return out.data
