"""Tokenizing chat rows and texts: Tunemill's stages beside the bare tokenizer, in one run. Prints a Markdown table.

`python benchmarks/tokenizing.py [--rows 100000] [--rounds 2] [--more-rows 1000000] [--out FILE.md]`. Rows have two to
six turns with log-normal lengths; the text is Python's own library, on which the tokenizer (32k entries) is trained as
well. Texts are the same rows' contents, one text a row. Every measurement is a process of its own, so that its peak
memory is its own (and its own processes', where it starts some); imports are not counted. Bare and stages take turns
for some rounds, and the best of each counts. With --more-rows the stages run again on that many
rows: their memory must not grow.
"""

import argparse
import json
import os
import platform
import random
import resource
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

SEED = 7
VOCABULARY = 32_000
TRAINED_ON_BYTES = 8_000_000
BATCH = 1024
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
)


@dataclass(frozen=True)
class Measured:
    """One process: rows and tokens, seconds, peak resident MiB, rate of the last 5% of rows over the mean rate."""

    what: str
    rows: int
    tokens: int
    seconds: float
    peak_mib: float
    tail: float | None

    @property
    def rows_per_second(self) -> float:
        return self.rows / self.seconds


def library_text() -> str:
    """Python's standard library as one text."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    return "\n".join(
        path.read_text(encoding="utf-8", errors="ignore") for path in sorted(folder.glob("*.py"))
    )


def write_rows(path: Path, rows: int, text: str) -> None:
    """JSON lines of conversations; turn lengths are log-normal, about 1.6 kB a row in the mean."""
    rng = random.Random(SEED)
    with path.open("w", encoding="utf-8") as file:
        for _ in range(rows):
            messages = []
            for turn in range(2 * rng.randint(1, 3)):
                length = min(int(rng.lognormvariate(5.6, 1.0)) + 1, 20_000)
                start = rng.randrange(len(text) - length)
                role = "assistant" if turn % 2 else "user"
                messages.append({"role": role, "content": text[start : start + length]})
            file.write(json.dumps({"messages": messages}, ensure_ascii=False) + "\n")


def write_texts(rows: Path, path: Path) -> None:
    """JSON lines of the conversations' contents as one text each."""
    with rows.open(encoding="utf-8") as given, path.open("w", encoding="utf-8") as file:
        for line in given:
            text = "\n".join(message["content"] for message in json.loads(line)["messages"])
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")


def write_tokenizer(folder: Path, text: str) -> None:
    """A byte-level BPE tokenizer that AutoTokenizer loads."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    from tunemill.stages.artifacts import Tokenizer as Artifact
    from tunemill.stages.data.tokenizer.facts_body import write_facts

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|pad|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(text[:TRAINED_ON_BYTES].splitlines(keepends=True), trainer)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    wrapped.add_special_tokens({"pad_token": "<|pad|>", "eos_token": "<|im_end|>"})
    wrapped.chat_template = TEMPLATE
    wrapped.save_pretrained(folder)
    write_facts(Artifact(folder))


def batches_of_texts(path: Path) -> Iterator[list[str]]:
    """The conversations as the template renders them, in batches."""
    batch = []
    with path.open(encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            said = row.get("messages", ())
            turns = (f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in said)
            batch.append(row["text"] if "text" in row else "".join(turns))
            if len(batch) == BATCH:
                yield batch
                batch = []
    if batch:
        yield batch


def measure_bare(folder: Path, file: str) -> Measured:
    """`encode_batch` with offsets and nothing else: rendering the texts is not counted, nor what becomes of tokens."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer" / "tokenizer.json"))
    rows = tokens = 0
    seconds = 0.0
    for texts in batches_of_texts(folder / file):
        started = time.perf_counter()
        encoded = tokenizer.encode_batch(texts, add_special_tokens=False)
        seconds += time.perf_counter() - started
        rows += len(texts)
        tokens += sum(len(item) for item in encoded)
    return Measured("bare `encode_batch`", rows, tokens, seconds, peak_mib(), None)


def measure_stage(folder: Path, file: str, name: str) -> Measured:
    """The body of one stage, on the results of the stage before it."""
    from tunemill.stages.artifacts import RawDataset, TokenizedDataset, Tokenizer
    from tunemill.stages.report import Report, Workspace

    done: list[tuple[float, int]] = []
    figures: dict[str, Any] = {}

    def emit(event: dict[str, Any]) -> None:
        if event["type"] == "progress":
            done.append((time.perf_counter(), event["done"]))
        if event["type"] == "summary":
            figures.update(event["metrics"])

    results = folder / f"{file}.results"
    out = Workspace(*(results / name / part for part in ("data", "checkpoints", "logs")))
    shutil.rmtree(results / name, ignore_errors=True)
    for place in (out.data, out.checkpoints, out.logs):
        place.mkdir(parents=True)
    report = Report(emit)
    if name == "dataset":
        from tunemill.stages.data.dataset.body import dataset
        from tunemill.stages.data.dataset.config import DatasetConfig

        started = time.perf_counter()
        dataset(DatasetConfig(path=str(folder / file)), out=out, report=report)
    elif name.startswith("tokenized"):
        from tunemill.stages.data.tokenized.body import tokenized
        from tunemill.stages.data.tokenized.config import TokenizedConfig

        raw, tokenizer = RawDataset(results / "dataset" / "data"), Tokenizer(folder / "tokenizer")
        config = TokenizedConfig(
            path=str(folder / file),
            type="completion" if file.startswith("texts") else "chat_template",
            tokenizer_engine="tokenizers" if name == SLOW else "auto",
        )
        started = time.perf_counter()
        tokenized(config, dataset=raw, tokenizer=tokenizer, out=out, report=report)
    else:
        from tunemill.stages.data.training_data.body import training_data
        from tunemill.stages.data.training_data.config import TrainingDataConfig

        rows = TokenizedDataset(results / "tokenized" / "data")
        settings = TrainingDataConfig(sequence_len=4096, sample_packing=True)
        started = time.perf_counter()
        training_data(settings, tokenized=[rows], out=out, report=report)
    seconds = time.perf_counter() - started
    tail = tail_rate(done, started) if name.startswith("tokenized") else None
    return Measured(f"`{name}`", figures["rows"], figures.get("tokens", 0), seconds, peak_mib(), tail)


def tail_rate(done: list[tuple[float, int]], started: float) -> float:
    """Rows per second over the last 5% of the rows, over the mean of all."""
    at, rows = done[-1]
    before, first = next((when, count) for when, count in done if count >= 0.95 * rows)
    return (rows - first) / (at - before) / (rows / (at - started)) if rows > first else 1.0


def peak_mib() -> float:
    """Peak resident set of this process, in MiB, and as if each core had a child like the largest."""
    own, children = (
        resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return own + children * len(os.sched_getaffinity(0))


def in_child(folder: Path, file: str, what: str) -> Measured:
    """One measurement in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--measure", what, str(folder), file],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(done.stderr)
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def table(measured: list[tuple[str, Measured]]) -> str:
    """All measurements, by what rows are, and each rate as a share of the bare one on the same rows."""
    machine = f"{len(os.sched_getaffinity(0))} cores, {platform.processor() or platform.machine()}"
    lines = [
        f"{date.today()}, {machine}, Python {platform.python_version()}",
        "",
        "| rows are | what | rows | tokens | seconds | rows/s | times bare | last 5% over mean | peak MiB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    bare = {kind: item.rows_per_second for kind, item in reversed(measured) if item.what.startswith("bare")}
    for kind, item in measured:
        share = f"{item.rows_per_second / bare[kind]:.1f}"
        tail = "" if item.tail is None else f"{item.tail:.2f}"
        lines.append(
            f"| {kind} | {item.what} | {item.rows:,} | {item.tokens:,} | {item.seconds:.1f} "
            f"| {item.rows_per_second:,.0f} | {share} | {tail} | {item.peak_mib:,.0f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--more-rows", type=int, default=0)
    parser.add_argument(
        "--rounds", type=int, default=2, help="times that bare and stages take turns; best counts"
    )
    parser.add_argument("--out", type=Path, default=None, help="write the table to this file too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = library_text()
        write_tokenizer(folder / "tokenizer", text)
        write_rows(folder / "rows.jsonl", options.rows, text)
        write_texts(folder / "rows.jsonl", folder / "texts.jsonl")
        plan = [("conversations", "rows.jsonl", what) for what in ("bare", *STAGES)]
        plan += [("texts", "texts.jsonl", what) for what in ("bare", *TEXT_STAGES)]
        rounds = [[in_child(folder, file, what) for _, file, what in plan] for _ in range(options.rounds)]
        best = [min(same, key=lambda item: item.seconds) for same in zip(*rounds, strict=True)]
        measured = [(kind, item) for (kind, _, _), item in zip(plan, best, strict=True)]
        if options.more_rows:
            write_rows(folder / "more.jsonl", options.more_rows, text)
            measured += [
                ("conversations", in_child(folder, "more.jsonl", stage)) for stage in STAGES if stage != SLOW
            ]
        printed = table(measured)
    print(printed)
    if options.out is not None:
        options.out.write_text(printed, encoding="utf-8")


SLOW = "tokenized, tokenizer_engine: tokenizers"
STAGES = ("dataset", SLOW, "tokenized", "training_data")
TEXT_STAGES = ("dataset", "tokenized")

if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        _, _, what, place, file = sys.argv
        result = measure_bare(Path(place), file) if what == "bare" else measure_stage(Path(place), file, what)
        print(json.dumps(result.__dict__))
    else:
        main()
