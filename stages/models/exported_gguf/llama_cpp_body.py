"""llama.cpp itself, where one of its bindings is installed: what it makes of a file.

Asked through node-llama-cpp (npm), which brings llama.cpp with it. It is looked for where node would: in the folders
of NODE_PATH, in node_modules of the working folder and of those around it, and among npm's global packages.
"""

import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tunemill.stages.errors import UserError

PACKAGE = "node-llama-cpp"
SECONDS = 900
# So many numbers come back at most: of longer vocabularies only the last places.
NUMBERS = 20_000_000
WHERE = """
const { createRequire } = require("module");
const paths = createRequire(process.cwd() + "/here.js").resolve.paths("node-llama-cpp");
for (const path of paths) console.log(path);
"""
SCRIPT = """
import fs from "node:fs";
const asked = JSON.parse(fs.readFileSync(process.argv[2], "utf8"));
const { getLlama } = await import(asked.package);
const llama = await getLlama({ gpu: false, build: "never", skipDownload: true, maxThreads: 2, logLevel: "error" });
fs.writeFileSync(asked.started, "");
const model = await llama.loadModel({ modelPath: asked.model });
const lora = asked.lora ? { adapters: [{ filePath: asked.lora, scale: 1 }] } : undefined;
const context = await model.createContext({ contextSize: asked.contextSize, batchSize: asked.contextSize, lora });
const sequence = context.getSequence();
const told = { bos: model.tokens.bos, prependsBos: model.tokens.shouldPrependBosToken, texts: [] };
told.ends = asked.ends.map((id) => model.isEogToken(id));
const numbers = [];
for (const text of asked.texts) {
    const bare = model.tokenize(text, true).map(Number);
    const ids = told.prependsBos && bare[0] !== told.bos ? [told.bos, ...bare] : bare;
    const from = Math.max(0, ids.length - asked.places);
    await sequence.clearHistory();
    const input = ids.map((id, at) => (at < from ? id : [id, { generateNext: { probabilities: true } }]));
    const out = await sequence.controlledEvaluate(input);
    for (const item of out.slice(from)) {
        const row = new Float32Array(asked.vocabulary);
        for (const [id, share] of item.next.probabilities) row[id] = share;
        numbers.push(row);
    }
    await sequence.clearHistory();
    const written = [];
    for await (const id of sequence.evaluate(ids, { temperature: 0 })) {
        written.push(Number(id));
        if (model.isEogToken(id) || written.length >= asked.longest) break;
    }
    told.texts.push({ ids, places: ids.length - from, written });
}
fs.writeFileSync(asked.numbers, Buffer.concat(numbers.map((row) => Buffer.from(row.buffer))));
fs.writeFileSync(asked.told, JSON.stringify(told));
process.exit(0);
"""


class NotAskedError(Exception):
    """llama.cpp said nothing of a file, for a reason that is not the file's."""


@dataclass(frozen=True)
class Heard:
    """What llama.cpp said of one text: its tokens, log-probabilities [R, V] of the last R places, and an answer."""

    ids: list[int]
    log_p_rv: Any
    written: list[int]


@dataclass(frozen=True)
class Told:
    """Of all texts, and for each asked token whether llama.cpp stops there."""

    texts: list[Heard]
    stops: list[bool]


def find_engine() -> Path | None:
    """The package's folder; None where there is no node, or no package."""
    if shutil.which("node") is None:
        return None
    found = (folder / PACKAGE for folder in _folders())
    return next((folder for folder in found if (folder / "dist" / "index.js").is_file()), None)


def _folders() -> Iterator[Path]:
    """Where node looks for packages, then npm's global ones."""
    for command in (["node", "-e", WHERE], ["npm", "root", "-g"]):
        if shutil.which(command[0]) is not None:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            yield from (Path(line) for line in done.stdout.splitlines() if line.strip())


def ask(
    engine: Path,
    model: Path,
    texts: Sequence[str],
    scratch: Path,
    *,
    vocabulary: int,
    ends: Sequence[int] = (),
    adapter: Path | None = None,
    longest: int = 1,
) -> Told:
    """What llama.cpp makes of texts, in which special tokens are such.

    Raises UserError where it does not run the file, or is not done in time, and NotAskedError where it does not even
    start.
    """
    places = max(1, NUMBERS // vocabulary // max(1, len(texts)))
    asked = {
        "package": (engine / "dist" / "index.js").as_uri(),
        "model": str(model.resolve()),
        "lora": None if adapter is None else str(adapter.resolve()),
        "texts": list(texts),
        "ends": list(ends),
        "vocabulary": vocabulary,
        "places": places,
        "longest": longest,
        "contextSize": max((len(text) for text in texts), default=0) + longest + 64,
        "numbers": str(scratch / "numbers.bin"),
        "told": str(scratch / "told.json"),
        "started": str(scratch / "started"),
    }
    (scratch / "asked.json").write_text(json.dumps(asked), encoding="utf-8")
    (scratch / "ask.mjs").write_text(SCRIPT, encoding="utf-8")
    command = ["node", str(scratch / "ask.mjs"), str(scratch / "asked.json")]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        reason = f"llama.cpp ({PACKAGE}) has not answered within {SECONDS} s"
        if (scratch / "started").is_file():
            raise UserError(f"exported gguf: {reason} what it was asked of {model.name}.") from None
        _tidy(scratch)
        raise NotAskedError(reason) from None
    if not (scratch / "started").is_file():
        _tidy(scratch)
        raise NotAskedError(
            f"llama.cpp itself has not read it: {engine} does not start. Install it again, or remove it. It said: "
            f"{_fault(done.stderr or done.stdout)}"
        )
    if done.returncode or not (scratch / "told.json").is_file():
        said = "\n".join((done.stderr or done.stdout).strip().splitlines()[-6:])
        raise UserError(f"exported gguf: llama.cpp ({PACKAGE}) does not run {model.name}. It said:\n{said}")
    told = json.loads((scratch / "told.json").read_text(encoding="utf-8"))
    numbers = np.fromfile(scratch / "numbers.bin", "<f4").reshape(-1, vocabulary)
    heard, at = [], 0
    for item in told["texts"]:
        shares = numbers[at : at + item["places"]]
        heard.append(Heard(item["ids"], np.log(np.maximum(shares, 1e-38)), item["written"]))
        at += item["places"]
    _tidy(scratch)
    return Told(heard, told["ends"])


def _fault(said: str) -> str:
    """The line of a trace by node that names what was wrong, else the first."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return next(
        (line for line in lines if "Error" in line.partition(":")[0]), lines[0] if lines else "nothing"
    )


def _tidy(scratch: Path) -> None:
    for name in ("asked.json", "ask.mjs", "told.json", "numbers.bin", "started"):
        (scratch / name).unlink(missing_ok=True)
