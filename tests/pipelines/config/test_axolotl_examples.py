"""Axolotl's own examples, of the release on PyPI: most pass `check`, and the others fail for a reason that is known."""

import hashlib
import io
import json
import tarfile
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from tunemill.pipelines.graph.check_files import check_files

INDEX = "https://pypi.org/simple/axolotl/"
FILE = "axolotl-0.18.0.tar.gz"
SHA256 = "4794e4c5c8934ebfe211a021ffae42b5cef729290e5e4eda57e9c854a0674d08"
# Where the mistakes are, by the reason that stands behind them.
REFUSED = {
    "trains on images or sound": {"processor_type"},
    "online reinforcement learning": {"rl", "ebft"},
    "functions that no file beside them has": {"trl.reward_funcs"},
    "vLLM, which is not installed here": {"trl.use_vllm"},
    "compiling what has other shapes in each document": {"torch_compile"},
    "an optimizer that is not proven with a model in parts": {"optimizer"},
    "other methods of training": {"plugins", "diffusion"},
    "sparse files": {"llmcompressor.save_compressed"},
    "a repository that is still to be named": {"hub_model_id"},
    "kernels of other libraries": {"use_onebitllms", "use_dsv4_kernels", "use_glm_dsa_kernels", "flash_optimum"},
    "no key of Axolotl's, or one that it has taken out": {
        "adam_eps", "eta_min", "test_value", "context_parapllel_size", "max_packed_sequence_len",
    },
    "no YAML of a training": {"base_model"},
    "would not train": {"float16"},
}  # fmt: skip


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of examples, out of the archive that the package index has."""
    listing = Request(INDEX, headers={"Accept": "application/vnd.pypi.simple.v1+json"})
    with urlopen(listing, timeout=60) as answer:
        files = {file["filename"]: file["url"] for file in json.load(answer)["files"]}
    with urlopen(files[FILE], timeout=120) as answer:
        archive = answer.read()
    assert hashlib.sha256(archive).hexdigest() == SHA256
    folder = tmp_path_factory.mktemp("axolotl")
    with tarfile.open(fileobj=io.BytesIO(archive)) as packed:
        packed.extractall(folder, filter="data")
    return folder / FILE.removesuffix(".tar.gz") / "examples"


@pytest.mark.slow
def test_most_pass_and_the_others_fail_for_a_known_reason(examples: Path) -> None:
    files = sorted(examples.rglob("*.y*ml"))
    assert len(files) == 252
    refused = {}
    for file in files:
        problems = [problem for problem in check_files([file])[0].problems if not problem.is_note]
        if problems:
            refused[str(file.relative_to(examples))] = {
                problem.path.partition("[")[0] for problem in problems
            }
    known = {key for keys in REFUSED.values() for key in keys}
    assert {name: keys for name, keys in refused.items() if not keys & known} == {}
    assert len(files) - len(refused) >= 196, sorted(refused)
