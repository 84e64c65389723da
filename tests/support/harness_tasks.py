"""Tasks of lm-evaluation-harness in a folder: a YAML of each kind, what they include, their rows and a function."""

import json
from pathlib import Path

CITIES = [
    {"question": "capital of France?", "choices": ["Rome", "Paris", "a longer one"], "answer": 1},
    {"question": "what is the sum?", "choices": ["the", "assistant", "user"], "answer": 0},
    {"question": "a small one", "choices": ["request", "helpful task"], "answer": 1},
    {"question": "say it", "choices": ["a", "e"], "answer": 0},
]
SUMS = [{"question": f"{number} + 2", "answer": str(number + 2)} for number in range(5)]
FILES = {
    "base.inc": "dataset_path: json\ntest_split: test\nmetadata: {version: 1.0}\n",
    "cities.yaml": """\
task: cities
include: base.inc
dataset_kwargs: {data_files: {test: rows/cities.jsonl}}
output_type: multiple_choice
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_choice: choices
doc_to_target: answer
metric_list: [{metric: acc}, {metric: acc_norm}]
""",
    "sums.yaml": """\
task: sums
include: base.inc
dataset_kwargs: {data_files: {test: rows/sums.jsonl}}
output_type: generate_until
process_docs: !function chosen.first
doc_to_text: "{{question}} ="
doc_to_target: " {{answer}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 6}
metric_list: [{metric: exact_match}]
""",
    "likely.yaml": """\
task: likely
include: base.inc
dataset_kwargs: {data_files: {test: rows/sums.jsonl}}
output_type: loglikelihood
doc_to_text: "{{question}} ="
doc_to_target: " {{answer}}"
metric_list: [{metric: perplexity}, {metric: acc}]
""",
    "chosen.py": "def first(rows):\n    return rows.select(range(3))\n",
    "rows/cities.jsonl": "".join(f"{json.dumps(row)}\n" for row in CITIES),
    "rows/sums.jsonl": "".join(f"{json.dumps(row)}\n" for row in SUMS),
}


def write_tasks(folder: Path) -> Path:
    """Write them into a folder, and return it."""
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder
