"""Cut each key of training off from what it steers, and see whether the key's cases notice.

    python tests/mutations/cut_wiring.py [--each-read] [FIELD ...]

In a copy of the project every place of stages/training that reads the key is given the key's default instead, and the
key's cases of tests/stages/training/keys/cases.py run on the copy: each of them must fail. Checks of a config, notes of
idle keys and what is said of unused inputs stay whole, unless nothing else reads the key. With --each-read one read is
cut at a time, and at least one case must fail, but for the reads that are named below with a reason. The exit status is
1 where a cut goes unnoticed.
"""

import argparse
import ast
import contextlib
import io
import multiprocessing
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
CASES = "tests/stages/training/keys/test_effective.py"
# What a copy of the project can do without.
LEFT_OUT = (".*", "__pycache__", "*.egg-info", "docs", "examples", "benchmarks", "golden")
# Loaded once, in the process that all runs are forked from; nothing of the project may be among them.
HEAVY = ["torch", "transformers", "peft", "pyarrow", "pytest"]

# A key without a default, and keys that an adapter cannot do without: any value that no case has.
STAND_INS = {
    "learning_rate": "1e-3",
    "lora_r": "3",
    "lora_alpha": "3",
    "lora_target_modules": '["down_proj"]',
}
TRAINING = "stages/training"
FLASH = "only flash attention makes a difference, and that runs on a GPU"
MACHINE = TRAINING + "/keys/machine.py"
AGAIN = "transformers lets the gradient reach the embedding itself; the refusal is read by test_added_loss.py"
# Key, file and line of the single reads whose cut no case can see, and why.
UNSEEN_READS: dict[tuple[str, str, str], str] = {
    (
        "micro_batch_size",
        TRAINING + "/sequences_body.py",
        "if real and is_flash and config.micro_batch_size > 1:",
    ): FLASH,
    (
        "batch_flattening",
        TRAINING + "/sequences_body.py",
        'flattens = config.batch_flattening is True or (config.batch_flattening == "auto" and is_flash)',
    ): "of two reads in the line, one is for auto: " + FLASH,
    (
        "sample_packing",
        TRAINING + "/sequences_body.py",
        'key = "sample_packing" if config.sample_packing else "batch_flattening"',
    ): "a name in a refusal, which test_training.py reads",
    (
        "num_epochs",
        TRAINING + "/loop_body.py",
        "num_train_epochs=config.num_epochs,",
    ): "the Trainer is told the steps too, which go before it",
    (
        "gradient_checkpointing",
        MACHINE,
        'return bool(self.gradient_checkpointing and arguments and arguments.get("use_reentrant", True))',
    ): AGAIN,
    ("gradient_checkpointing_kwargs", MACHINE, "arguments = self.gradient_checkpointing_kwargs"): AGAIN,
}


@dataclass(frozen=True)
class Read:
    """A place that reads a key: `source` (as config.seed) from a column, in bytes, of a line, from 1."""

    file: str
    line: int
    column: int
    source: str
    text: str
    """The whole line."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text}"


@dataclass
class Reads:
    """The reads of one key, and those in checks of the config and in what it says of its keys."""

    wiring: list[Read] = field(default_factory=list)
    checks: list[Read] = field(default_factory=list)


def training_sources(root: Path) -> dict[str, str]:
    """Path in the project -> text, of the sources of training."""
    files = sorted((root / "stages" / "training").rglob("*.py"))
    return {str(path.relative_to(root)): path.read_text(encoding="utf-8") for path in files}


def holds_keys(file: str) -> bool:
    """Whether the file declares keys: there they are read of self."""
    return "/keys/" in file or file.endswith("/config.py")


def defaults(sources: dict[str, str]) -> dict[str, str]:
    """Every key -> its default as it is written in the source, or what stands in for it."""
    found = {}
    for file, text in sources.items():
        if not holds_keys(file):
            continue
        for kind in ast.walk(ast.parse(text)):
            if not isinstance(kind, ast.ClassDef) or "Settings" in map(ast.unparse, kind.bases):
                # What stands below a key is no key.
                continue
            for node in kind.body:
                if isinstance(node, ast.AnnAssign) and _is_field(node.value):
                    assert isinstance(node.target, ast.Name) and isinstance(node.value, ast.Call)
                    name = node.target.id
                    if name in STAND_INS or node.value.args:
                        found[name] = STAND_INS.get(name) or ast.unparse(node.value.args[0])
    return found


def _is_field(value: ast.expr | None) -> bool:
    return isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "Field"


def reads_of(sources: dict[str, str]) -> dict[str, Reads]:
    """Every key -> where it is read."""
    found = {name: Reads() for name in defaults(sources)}
    for file, text in sources.items():
        lines = text.splitlines()
        owners = {"config", "self.config"} | ({"self"} if holds_keys(file) else set())
        for node, in_check in _attributes(ast.parse(text), False):
            if node.attr not in found or (owner := ast.unparse(node.value)) not in owners:
                continue
            source = f"{owner}.{node.attr}"
            read = Read(file, node.lineno, node.col_offset, source, lines[node.lineno - 1].strip())
            (found[node.attr].checks if in_check else found[node.attr].wiring).append(read)
    return found


def _attributes(node: ast.AST, in_check: bool) -> Iterator[tuple[ast.Attribute, bool]]:
    """Every attribute that is read, and whether that is in a validator or in what a config says of its keys."""
    if isinstance(node, ast.FunctionDef):
        validates = any("validator" in ast.unparse(d) for d in node.decorator_list)
        in_check = validates or node.name in ("idle", "unused_inputs", "needs_gpu", "depends_on_machine")
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
        yield node, in_check
    for child in ast.iter_child_nodes(node):
        yield from _attributes(child, in_check)


def cut(text: str, reads: Sequence[Read], default: str) -> str:
    """The text with the default in place of these reads, which are all of one file."""
    lines = text.encode().splitlines(keepends=True)
    for read in sorted(reads, key=lambda read: (read.line, read.column), reverse=True):
        line, end = lines[read.line - 1], read.column + len(read.source)
        assert line[read.column : end] == read.source.encode(), f"{read}: no {read.source} there"
        lines[read.line - 1] = line[: read.column] + f"({default})".encode() + line[end:]
    return b"".join(lines).decode()


class Recorder:
    """Part of a pytest run: picks the cases of one key (None: all), and notes how each ended."""

    def __init__(self, key: str | None) -> None:
        self._key = key
        self.outcomes: dict[str, str] = {}

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """Leave the cases of the key."""
        named = [item for item in items if "[" in item.name]
        items[:] = [item for item in named if self._key is None or f"[{self._key}-" in item.name]

    def pytest_runtest_logreport(self, report: Any) -> None:
        """`passed`, `failed` where the case's own comparison says so, or else the error."""
        if report.when != "call" and not report.failed:
            return
        outcome = report.outcome
        if report.failed:
            message = report.longrepr.reprcrash.message if report.when == "call" else report.longreprtext
            is_ours = message.startswith("AssertionError: ") and report.when == "call"
            outcome = "failed" if is_ours else f"broken: {message.splitlines()[0]}"
        self.outcomes[report.nodeid.partition("[")[2].rstrip("]")] = outcome


def run_cases(copy: str, key: str | None, sender: Connection) -> None:
    """In a process of its own: run a key's cases on the copy, and send how they ended."""
    os.chdir(copy)
    sys.path.insert(0, copy)
    import tunemill

    assert Path(str(tunemill.__file__)).is_relative_to(copy), f"{tunemill.__file__} is not the copy's"
    recorder = Recorder(key)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        pytest.main([CASES, "-q", "-p", "no:cacheprovider", "-p", "no:xdist"], plugins=[recorder])
    sender.send(recorder.outcomes)


def outcomes_on(copy: Path, key: str | None) -> dict[str, str]:
    """How the cases of a key (None: all keys) end on the copy."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(HEAVY)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=run_cases, args=(str(copy), key, sender))
    process.start()
    sender.close()
    try:
        outcomes: dict[str, str] = receiver.recv()
    except EOFError:
        raise RuntimeError(f"{key}: the run of its cases died") from None
    finally:
        process.join()
    if not outcomes:
        raise RuntimeError(f"{key}: no case ran")
    return outcomes


@contextlib.contextmanager
def project_copy() -> Iterator[Path]:
    """A copy of the project without its environment, removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="cut_wiring") as folder:
        copy = Path(folder).resolve() / "project"
        shutil.copytree(ROOT, copy, symlinks=True, ignore=shutil.ignore_patterns(*LEFT_OUT))
        yield copy


@contextlib.contextmanager
def cut_in(copy: Path, sources: dict[str, str], reads: Sequence[Read], default: str) -> Iterator[None]:
    """While open, the copy has the default in place of these reads."""
    files = {read.file for read in reads}
    for file in files:
        changed = cut(sources[file], [read for read in reads if read.file == file], default)
        (copy / file).write_text(changed, encoding="utf-8")
    try:
        yield
    finally:
        for file in files:
            (copy / file).write_text(sources[file], encoding="utf-8")


def cut_keys(copy: Path, sources: dict[str, str], keys: Sequence[str]) -> list[str]:
    """Cut all reads of each key. Returns what went unnoticed."""
    values, reads, unnoticed = defaults(sources), reads_of(sources), []
    for key in keys:
        places = reads[key].wiring or reads[key].checks
        with cut_in(copy, sources, places, values[key]):
            outcomes = outcomes_on(copy, key)
        tell(f"{key} = {values[key]}", len(places), outcomes)
        unnoticed += [f"{key}: {case}" for case, outcome in outcomes.items() if outcome == "passed"]
    return unnoticed


def cut_reads(copy: Path, sources: dict[str, str], keys: Sequence[str]) -> list[str]:
    """Cut one read of each key at a time. Returns what went unnoticed."""
    values, reads, unnoticed = defaults(sources), reads_of(sources), []
    for key in keys:
        blind = set()
        for read in reads[key].wiring:
            with cut_in(copy, sources, [read], values[key]):
                outcomes = outcomes_on(copy, key)
            tell(f"{key} in {read}", 1, outcomes)
            if set(outcomes.values()) == {"passed"}:
                blind.add((key, read.file, read.text))
        known = {place for place in UNSEEN_READS if place[0] == key}
        unnoticed += [": ".join(place) for place in sorted(blind - known)]
        unnoticed += [f"{': '.join(place)}: noticed, strike it out" for place in sorted(known - blind)]
    return unnoticed


def tell(what: str, places: int, outcomes: dict[str, str]) -> None:
    """One line for each cut, and one for each case that did not fail by its own comparison."""
    noticed = sum(outcome != "passed" for outcome in outcomes.values())
    print(f"{noticed} of {len(outcomes)} cases notice {places} cut: {what}", flush=True)
    for case, outcome in outcomes.items():
        if outcome != "failed":
            print(f"    {case}: {outcome}", flush=True)


def set_environment() -> None:
    """One thread, no network, no compiled files (two cuts can have one size and one second), no outer pytest."""
    for name in [name for name in os.environ if name.startswith("PYTEST_")]:
        del os.environ[name]
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}


def main(arguments: Sequence[str]) -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("keys", nargs="*", metavar="FIELD", help="keys to cut; none: all")
    parser.add_argument("--each-read", action="store_true", help="cut one read at a time")
    given = parser.parse_args(arguments)
    set_environment()
    with project_copy() as copy:
        sources = training_sources(copy)
        keys = given.keys or list(defaults(sources))
        unknown = sorted(set(keys) - set(defaults(sources)))
        if unknown:
            parser.error(f"{', '.join(unknown)}: no key of training")
        for key in given.keys or [None]:
            wrong = {case: end for case, end in outcomes_on(copy, key).items() if end != "passed"}
            assert not wrong, f"without any cut: {wrong}"
        unnoticed = (cut_reads if given.each_read else cut_keys)(copy, sources, keys)
    print(f"{len(unnoticed)} unnoticed", *unnoticed, sep="\n")
    return 1 if unnoticed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
