"""`pipeline.vllm_python`: which interpreter has vLLM beside it."""

from typing import Annotated

from pydantic import AfterValidator

from tunemill.stages.declaration import RuntimeMark, YamlMark
from tunemill.stages.interpreters import whole_path

KEY = "pipeline.vllm_python"
PYTHON_OF_VLLM = (
    "the Python of the environment in which vLLM is installed, a whole path; unset: tunemill's own: "
    "where vLLM is, while keys have its version"
)

VllmPython = Annotated[str | None, YamlMark(KEY), RuntimeMark(), AfterValidator(whole_path)]
