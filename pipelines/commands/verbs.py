"""`tunemill train`, `evaluate`, `merge-lora`, `quantize`, `lm-eval`: bring the nodes that a verb means up to date."""

import argparse
from functools import partial
from typing import Any

from tunemill.pipelines.commands.launchers import add_launchers, launcher_overrides
from tunemill.pipelines.commands.options import add_command, add_json, add_pipeline, add_state
from tunemill.pipelines.config.overrides import override_of

# Options of `axolotl quantize`, which are keys of `quantization`.
QUANTIZATION = ("weight_dtype", "activation_dtype", "group_size", "quantize_embedding")
SHOW_ROWS = ("train", "evaluate")
TAKE_ADAPTER = ("evaluate", "merge-lora", "quantize", "lm-eval")


def add_verb(commands: Any, name: str, text: str) -> None:
    """Add the command of a verb."""
    parser = add_command(commands, name, partial(call, name), text)
    add_pipeline(parser)
    add_state(parser)
    add_json(parser)
    parser.add_argument("--verbose", action="store_true", help="list what was cached too")
    add_launchers(parser)
    if name in SHOW_ROWS:
        from tunemill.pipelines.commands.preprocess import add_debug

        add_debug(parser)
    if name in TAKE_ADAPTER:
        parser.add_argument(
            "--lora-model-dir",
            metavar="DIR",
            help="as in Axolotl; only the adapter that this pipeline trains, which is taken anyway",
        )
    if name == "quantize":
        for key in QUANTIZATION:
            parser.add_argument(
                f"--{key.replace('_', '-')}", metavar="VALUE", help=f"sets quantization.{key}"
            )


def call(name: str, options: argparse.Namespace) -> int:
    """Bring the verb's nodes up to date, and what they are made from; 1 if a node failed."""
    # Only here: whoever asks for help waits for nothing else.
    from tunemill.pipelines.commands.run import bring_up_to_date
    from tunemill.pipelines.commands.selected import load_needed
    from tunemill.pipelines.graph.load import load_pipeline
    from tunemill.pipelines.graph.looks import everything
    from tunemill.pipelines.graph.selection import Selection
    from tunemill.pipelines.graph.verb_places import nodes_of_verb

    options.overrides += [
        override_of(f"quantization.{key}={value}")
        for key in QUANTIZATION
        if (value := getattr(options, key, None)) is not None
    ]
    options.overrides += launcher_overrides(options)
    pipeline = load_pipeline(options.pipeline, options.overrides)
    chosen = Selection(nodes_of_verb(name, pipeline))
    _refuse_other_adapter(name, options, pipeline)
    if name in SHOW_ROWS and (code := _show_rows(options)):
        return code
    return bring_up_to_date(options, load_needed(options, everything, chosen), chosen)


def _show_rows(options: argparse.Namespace) -> int:
    """What `preprocess --debug` shows, where it is asked for."""
    from tunemill.pipelines.commands.preprocess import debugs, preprocess

    if not debugs(options):
        return 0
    # One JSON document is printed, that of the nodes.
    return preprocess(argparse.Namespace(**{**vars(options), "export": None, "json": False}))


def _refuse_other_adapter(name: str, options: argparse.Namespace, pipeline: Any) -> None:
    """Raises SettingError for an adapter that this pipeline has not trained."""
    given = getattr(options, "lora_model_dir", None)
    if given is None:
        return
    from tunemill.pipelines.commands.adapters import is_own_adapter
    from tunemill.stages.errors import SettingError

    if not is_own_adapter(pipeline, given):
        raise SettingError(
            f"--lora-model-dir {given}: no adapter of this pipeline, and {name} takes the one that it trains. To talk "
            f"with any adapter: tunemill inference {options.pipeline} --lora-model-dir {given}. To train it further, "
            f"write lora_model_dir into the YAML"
        )
