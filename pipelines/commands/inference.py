"""`tunemill inference`: talk with a pipeline's model, alone or beside another; or let it answer a file."""

import argparse
import importlib.util
import json
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from tunemill.pipelines.commands.options import add_command

if TYPE_CHECKING:
    from tunemill.pipelines.commands.prompt_file import Prompt

NO_PROMPTER = ("none", "None")


def add_to(commands: Any, text: str) -> None:
    """Add the command."""
    from tunemill.pipelines.commands.chosen_model import add_model_options
    from tunemill.pipelines.commands.sampling_options import add_sampling

    parser = add_command(commands, "inference", inference, text)
    add_model_options(parser)
    parser.add_argument("--against", metavar="WHAT", help="let this model answer too, such as base")
    parser.add_argument(
        "--prompts",
        metavar="FILE",
        help="answer each line of it (JSON lines or text, -: stdin) as JSON lines",
    )
    parser.add_argument("--system", metavar="TEXT", help="said to the model before everything")
    parser.add_argument(
        "--prompter", metavar="NONE", help="None: go on from texts as they are, without the chat template"
    )
    parser.add_argument(
        "--gradio", action="store_true", help="a page in the browser, with the keys gradio_* (extra: gradio)"
    )
    add_sampling(parser)


def inference(options: argparse.Namespace) -> int:
    """Load the model, and talk."""
    from tunemill.pipelines.commands.chosen_model import chosen_models
    from tunemill.pipelines.commands.sampling_options import sampling_of
    from tunemill.stages.errors import SettingError

    if options.prompter is not None and options.prompter not in NO_PROMPTER:
        raise SettingError(
            f"--prompter {options.prompter}: only None, which takes texts as they are; without it the model's chat "
            f"template is used"
        )
    _refuse_system(options, options.prompter is None)
    use = page_settings(options) if options.gradio else None
    sampling = sampling_of(options, use and use.gradio_temperature, use and use.gradio_max_new_tokens)
    prompts = None if options.prompts is None else read_prompts(options)
    chosen = chosen_models(options, options.against)
    # Only here: torch takes seconds to import.
    from tunemill.pipelines.commands.speaking import Speakers

    print(f"loading {' and '.join(one.name for one in chosen)} ...", file=sys.stderr)
    speakers = Speakers.load(chosen, sampling, plain=options.prompter is not None)
    _refuse_system(options, speakers.templated)
    if use is not None:
        return show_page(options, use, speakers)
    if prompts is not None:
        return answer_all(options, prompts, speakers)
    if not sys.stdin.isatty():
        from tunemill.pipelines.commands.prompt_file import text_of_stdin

        # As `cat prompt.txt | axolotl inference`: all of it is one prompt.
        text = text_of_stdin().rstrip("\n")
        for name in speakers.names:
            said = speakers.prompt_of(name, text, options.system)
            if speakers.say(name, said, labelled=len(speakers.names) > 1).finish_reason == "interrupted":
                raise KeyboardInterrupt
        return 0
    return chat(options, speakers)


def _refuse_system(options: argparse.Namespace, templated: bool) -> None:
    """Raises UserError for a system prompt that no template would say."""
    from tunemill.stages.errors import UserError

    if options.system is not None and not templated:
        raise UserError("--system: without a chat template there is no system prompt. Take it out")


def page_settings(options: argparse.Namespace) -> Any:
    """The keys of the page. Raises UserError where what shows it is not installed."""
    from tunemill.pipelines.config.use_config import UseConfig
    from tunemill.pipelines.graph.load import load_pipeline
    from tunemill.stages.errors import SettingError, UserError

    if options.prompts is not None:
        raise SettingError("--gradio is a page to talk on, and --prompts a file to answer. Take one")
    if importlib.util.find_spec("gradio") is None:
        raise UserError("--gradio needs gradio, which is not installed. pip install 'tunemill[gradio]'")
    return load_pipeline(options.pipeline, options.overrides).use or UseConfig()


def show_page(options: argparse.Namespace, use: Any, speakers: Any) -> int:
    """Show the page until Ctrl-C."""
    page = import_module("tunemill.stages.models.chat.page_body").make_page(
        speakers.loaded,
        speakers.templated,
        speakers.sampling,
        options.system,
        use.gradio_title or f"{options.pipeline.stem}: {' and '.join(speakers.names)}",
    )
    page.launch(
        server_name=use.gradio_server_name or "127.0.0.1",
        server_port=use.gradio_server_port,
        share=bool(use.gradio_share),
    )
    return 0


def read_prompts(options: argparse.Namespace) -> "list[Prompt]":
    """All of the file, before a model is loaded. Raises UserError for what cannot be asked."""
    from tunemill.pipelines.commands.prompt_file import prompts_of
    from tunemill.stages.errors import RowError

    found = list(prompts_of(options.prompts))
    for prompt in found if options.system is not None else ():
        if not isinstance(prompt.said, str) and prompt.said[0]["role"] == "system":
            raise RowError(
                f"{options.prompts}:{prompt.line}: it has a system prompt of its own beside --system. Take one out"
            )
    return found


def answer_all(options: argparse.Namespace, prompts: "Sequence[Prompt]", speakers: Any) -> int:
    """A JSON line for each prompt."""
    for prompt in prompts:
        answers = {}
        for name in speakers.names:
            said = speakers.prompt_of(name, prompt.said, options.system)
            found = speakers.answer(name, said)
            if found.finish_reason == "interrupted":
                raise KeyboardInterrupt
            answers[name] = {
                "answer": found.text,
                "tokens": found.tokens,
                "finish_reason": found.finish_reason,
                **({} if found.seed is None else {"seed": found.seed}),
            }
        only = next(iter(answers.values())) if len(answers) == 1 else {"answers": answers}
        print(
            json.dumps({"line": prompt.line, "prompt": prompt.said, **only}, ensure_ascii=False), flush=True
        )
    return 0


def chat(options: argparse.Namespace, speakers: Any) -> int:
    """In the terminal, until Ctrl-D."""
    # Lines can be edited, and old ones asked for.
    import readline  # noqa: F401

    from tunemill.pipelines.commands.chat import Conversation, talk

    conversation = Conversation(speakers.names, speakers.templated, options.system)
    print("/help lists commands, Ctrl-C stops an answer, Ctrl-D leaves")
    if not speakers.templated:
        print("no chat template: what you write is gone on from as it is, each text by itself")
    talk(
        conversation,
        input,
        print,
        lambda name, said: speakers.reply(name, said, labelled=len(speakers.names) > 1),
    )
    print()
    return 0
