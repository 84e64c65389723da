"""Classes that a model folder brings its own code for, made known to transformers, and what is done without it.

In an artifact there is code only where `trust_remote_code: true` has let it in, so whoever loads the artifact may run
it. What runs lies in the folder: nothing is asked of the Hub.
"""

import json
from pathlib import Path
from typing import Any

from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoModelForCausalLM
from transformers.dynamic_module_utils import get_class_from_dynamic_module

from tunemill.stages.errors import SourceError
from tunemill.stages.models.own_code import AUTO, KEY, foreign_code


def use_code_of(folder: Path) -> None:
    """Run the code that config.json names, so that transformers loads its classes. Raises SourceError."""
    stored = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    named = stored.get(KEY)
    if not isinstance(named, dict) or not {"AutoConfig", AUTO} & named.keys():
        return
    if (foreign := foreign_code(stored)) is not None:
        raise SourceError(
            f"base_model: {folder}: its config.json names code in another repository ({foreign}), which is not "
            f"fetched. Put that file into the model's folder, name it in {KEY} without the part before --, and give "
            f"the folder"
        )
    try:
        if "AutoConfig" in named:
            config_class: Any = get_class_from_dynamic_module(
                named["AutoConfig"], folder, local_files_only=True
            )
            AutoConfig.register(stored["model_type"], config_class, exist_ok=True)
        else:
            config_class = CONFIG_MAPPING[stored["model_type"]]
        if AUTO in named:
            model_class: Any = get_class_from_dynamic_module(named[AUTO], folder, local_files_only=True)
            AutoModelForCausalLM.register(config_class, model_class, exist_ok=True)
    except (OSError, ImportError, AttributeError, KeyError, ValueError, SyntaxError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise SourceError(
            f"base_model: {folder}: the code that its config.json names cannot be used: {reason}. Install what it "
            f"imports, or mend the folder"
        ) from None


def check_without_code(folder: Path) -> bool:
    """Whether the model brings code that it can do without. Raises SourceError where it cannot."""
    stored = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if KEY not in stored:
        return False
    kind = stored.get("model_type")
    if kind in CONFIG_MAPPING and CONFIG_MAPPING[kind] in MODEL_FOR_CAUSAL_LM_MAPPING:
        return True
    raise SourceError(
        f"base_model: {folder}: transformers has no model of type {kind!r}; the model brings code of its own. Read "
        f"that code, and set trust_remote_code: true to let it run; or use another model"
    )
