"""`pipeline.vllm_python`: which interpreter has vLLM beside it."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from tunemill.stages.declaration import RuntimeMark, YamlMark

KEY = "pipeline.vllm_python"
PYTHON_OF_VLLM = (
    "the Python of the environment in which vLLM is installed, a whole path; unset: tunemill's own: "
    "where vLLM is, while keys have its version"
)


def _is_a_python(value: str | None) -> str | None:
    if value is None:
        return None
    path = Path(value).expanduser()
    if not path.is_absolute():
        raise ValueError("must be a whole path, such as /opt/vllm/bin/python")
    if path.name == "vllm":
        raise ValueError(f"is vLLM's program. Name the Python beside it: {path.with_name('python')}")
    return str(path)


VllmPython = Annotated[str | None, YamlMark(KEY), RuntimeMark(), AfterValidator(_is_a_python)]
