"""The body of the tokenizer stage: load, add tokens, choose the template, save."""

import json
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from jinja2 import TemplateSyntaxError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from transformers import (
    AddedToken,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from tunemill.stages.artifacts import Model, Tokenizer
from tunemill.stages.data.conversations.chat_template import choose_template
from tunemill.stages.data.conversations.loaded import of_transformers
from tunemill.stages.data.conversations.markers import advice
from tunemill.stages.data.tokenizer.config import SpecialTokens, TokenizerConfig, untrained
from tunemill.stages.data.tokenizer.facts_body import write_facts
from tunemill.stages.data.tokenizer.folder import fault_of_folder, fault_of_tekken, without_marks
from tunemill.stages.data.tokenizer.named_class_body import load_named
from tunemill.stages.data.tokenizer.renamed_tokens_body import with_renamed_tokens
from tunemill.stages.errors import SettingError, SourceError
from tunemill.stages.models.tokenizer_ids_body import FIXED_TEXT
from tunemill.stages.models.words_body import load_words
from tunemill.stages.report import Report, Workspace

# A tag that transformers adds to Jinja.
GENERATION_TAG = re.compile(r"\{%-?\s*(end)?generation\s*-?%\}")
# What transformers writes about where a tokenizer came from, not about what it is.
ORIGIN_KEYS = ("name_or_path", "_name_or_path", "is_local", "local_files_only", "transformers_version")


def tokenizer(
    config: TokenizerConfig,
    upstream: Model | None,
    out: Workspace,
    report: Report,
    tokenizer_files: Tokenizer | None = None,
) -> None:
    """Write a tokenizer that `AutoTokenizer` loads. `tokenizer_files` are those of the Hub, where they are meant.

    Raises SourceError when there is no tokenizer to load, SettingError for settings it cannot honour.
    """
    with TemporaryDirectory() as scratch:
        given = source_folder(config, upstream) if tokenizer_files is None else tokenizer_files.path
        _write(config, without_marks(given, Path(scratch)), upstream or tokenizer_files, out, report)


def _write(
    config: TokenizerConfig, folder: Path, upstream: Model | Tokenizer | None, out: Workspace, report: Report
) -> None:
    if config.tokenizer_use_mistral_common:
        write_tekken(folder, out.data, report)
        return
    given = load_tokenizer(folder, model_beside(config, upstream), config.tokenizer_legacy)
    say_differences(given, folder, report)
    check_class(config.tokenizer_type, given, folder)
    with TemporaryDirectory() as scratch:
        given = with_renamed_tokens(given, config.added_tokens_overrides, Path(scratch))
    before, trained = len(given), config.special_tokens.trained
    known = given.get_vocab() if trained else {}
    new = [token for token in trained if token not in known]
    if new and config.leaves_new_tokens_untrained:
        raise SettingError(f"{untrained(new)}.")
    add_special_tokens(given, config.special_tokens)
    added = add_tokens(given, config.tokens)
    if given.pad_token is None:
        set_padding(given, report)
    own = given.chat_template
    default = default_template(given) if asks_for_own_template(config) else None
    given.chat_template = choose_template(config.chat_template, config.chat_template_jinja, default)
    if isinstance(own, dict) and default is not None:
        say_other_templates(set(own) - {"default"}, folder, report)
    if given.chat_template is not None:
        check_template(given, folder, template_name(config), report)
    given.save_pretrained(out.data, save_jinja_files=config.tokenizer_save_jinja_files is not False)
    forget_origin(out.data / "tokenizer_config.json")
    write_facts(Tokenizer(out.data))
    report.summary(vocabulary=len(given), tokens_added=len(given) - before, tokens_named=added)


def write_tekken(folder: Path, target: Path, report: Report) -> None:
    """Write the tokenizer of a tekken.json, with that file beside it. Raises SourceError where there is none."""
    if reason := fault_of_tekken(folder):
        raise SourceError(reason)
    # An extra, which only such tokenizers need.
    from tunemill.stages.data.tokenizer.tekken_body import tekken_tokenizer

    given = tekken_tokenizer(folder, target)
    given.save_pretrained(target)
    forget_origin(target / "tokenizer_config.json")
    write_facts(Tokenizer(target))
    report.summary(vocabulary=len(given), tokens_added=0, tokens_named=0)


def source_folder(config: TokenizerConfig, upstream: Model | None) -> Path:
    """tokenizer_config wins over a model of another pipeline, which wins over base_model."""
    if config.tokenizer_config is not None:
        return Path(config.tokenizer_config)
    if upstream is not None:
        return upstream.path
    if config.base_model is not None:
        return Path(config.base_model)
    raise SettingError("there is no tokenizer: set base_model or tokenizer_config to a local folder")


def check_class(wanted: str | None, given: PreTrainedTokenizerBase, folder: Path) -> None:
    """Raises SettingError where the config names another class than the tokenizer's files; `Fast` does not count."""
    if wanted in (None, "AutoTokenizer"):
        return
    settings = folder / "tokenizer_config.json"
    stored = (
        json.loads(settings.read_text(encoding="utf-8")).get("tokenizer_class")
        if settings.is_file()
        else None
    )
    names = sorted({name.removesuffix("Fast") for name in (stored, type(given).__name__) if name})
    if wanted.removesuffix("Fast") not in names:
        raise SettingError(
            f"tokenizer_type: {wanted}: the files of this tokenizer say {' or '.join(names)}. Set that, or "
            f"AutoTokenizer, or remove the key"
        )


def model_beside(config: TokenizerConfig, upstream: Model | Tokenizer | None) -> Path | None:
    """The folder of the model beside which the tokenizer will lie, where one is known."""
    if upstream is not None:
        return upstream.path
    return None if config.base_model is None else Path(config.base_model)


def config_of(folder: Path | None) -> Any:
    """The config of a model; None where there is none that can be read.

    `AutoTokenizer` takes the class from it, and some classes have a pre-tokenizer of their own.
    """
    if folder is None:
        return None
    # Torch comes with it.
    from transformers import AutoConfig

    try:
        found = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    # For models of some names other classes are taken; an artifact has no such name.
    found._name_or_path = ""
    return found


def say_differences(given: PreTrainedTokenizerBase, folder: Path, report: Report) -> None:
    """Say so where the model's class of tokenizer gives other ids than the tokenizer.json."""
    if type(given) is PreTrainedTokenizerFast or not (folder / "tokenizer.json").is_file():
        return
    plain = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    one, other = (words.encode(FIXED_TEXT, add_special_tokens=False) for words in (given, plain))
    if one != other:
        report.log(
            f"{type(given).__name__}, which transformers takes for this model, gives other token ids than "
            f"{folder / 'tokenizer.json'} by itself (it has its own pre-tokenizer). Its ids are used, and what is "
            f"written gives the same"
        )


def load_tokenizer(folder: Path, model: Path | None, legacy: bool | None) -> PreTrainedTokenizerBase:
    """The tokenizer as it will be read beside the config of the folder `model`.

    Raises SourceError when the folder is missing or holds no tokenizer backed by `tokenizers`."""
    if reason := fault_of_folder(folder):
        raise SourceError(reason)
    try:
        more = {} if legacy is None else {"legacy": legacy}
        loaded = load_named(folder, model, **more)
        if loaded is None:
            loaded = load_words(folder, config=config_of(model), trust_remote_code=False, **more)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise SourceError(f"{folder} holds no tokenizer that transformers can load: {reason}") from error
    if not loaded.is_fast:
        raise SourceError(f"{folder}: {type(loaded).__name__} has no tokenizer.json, which Tunemill needs")
    return loaded


def add_special_tokens(given: PreTrainedTokenizerBase, tokens: SpecialTokens) -> None:
    """Give tokens their roles; those that the vocabulary lacks are added to it."""
    roles = tokens.model_dump(exclude_none=True)
    additional = roles.pop("additional_special_tokens", None)
    given.add_special_tokens({role: plain_token(text) for role, text in roles.items()})
    if additional:
        given.add_special_tokens(
            {"additional_special_tokens": [plain_token(text) for text in additional]},
            replace_extra_special_tokens=False,
        )


def add_tokens(given: PreTrainedTokenizerBase, tokens: list[str]) -> int:
    """Returns how many of them the vocabulary lacked."""
    return given.add_tokens([plain_token(text) for text in tokens]) if tokens else 0


def plain_token(text: str) -> AddedToken:
    """A token matched exactly as it is written."""
    return AddedToken(text, rstrip=False, lstrip=False, normalized=False)


def set_padding(given: PreTrainedTokenizerBase, report: Report) -> None:
    """Pad with EOS where there is no pad token. Raises SettingError where there is no EOS either."""
    if given.eos_token is None:
        raise SettingError("the tokenizer has neither a pad nor an EOS token; set special_tokens: pad_token")
    given.pad_token = given.eos_token
    report.log(f"the tokenizer has no pad token: the EOS token {given.eos_token} is used")


def default_template(given: PreTrainedTokenizerBase) -> str | None:
    """The tokenizer's own template; of several named ones the one named `default`."""
    own = given.chat_template
    if isinstance(own, dict):
        if "default" not in own:
            raise SettingError(
                f"the tokenizer has chat templates named {sorted(own)} and no default; "
                "give the one you want in chat_template_jinja"
            )
        return str(own["default"])
    return None if own is None else str(own)


def asks_for_own_template(config: TokenizerConfig) -> bool:
    """Whether the tokenizer's template is used where it has one."""
    name = config.chat_template
    return config.chat_template_jinja is None and (name is None or name.startswith("tokenizer_default"))


def say_other_templates(names: set[str], folder: Path, report: Report) -> None:
    """Which named templates there are beside the default one, and how to use them: `tool_use` is one for tools."""
    for name in sorted(names):
        file = f"additional_chat_templates/{name}.jinja"
        place = (
            f"to the path of {file} of the model"
            if (folder / file).is_file()
            else "to its text, or to a file that you save it in (it is in the model's tokenizer_config.json)"
        )
        report.log(
            f"the model also has a chat template named {name}, and `default` is used. To use {name}, set "
            f"chat_template: jinja and chat_template_jinja {place}"
        )


def template_name(config: TokenizerConfig) -> str:
    """What to call the chosen template."""
    named = config.chat_template not in (None, "jinja", "tokenizer_default")
    return f"the chat template {config.chat_template}" if named else "the chat template"


def check_template(given: PreTrainedTokenizerBase, folder: Path, name: str, report: Report) -> None:
    """Raises SettingError for a template that is not Jinja; says which of its markers are no tokens."""
    template = given.chat_template
    try:
        ImmutableSandboxedEnvironment(extensions=["jinja2.ext.loopcontrols"]).parse(
            GENERATION_TAG.sub("", template)
        )
    except TemplateSyntaxError as error:
        raise SettingError(f"the chat template is not Jinja: line {error.lineno}: {error.message}") from None
    for advised in advice(of_transformers(given, folder), template, name):
        report.log(advised)


def forget_origin(file: Path) -> None:
    """Leave only what shapes the tokenizer, so that the same tokenizer is the same bytes everywhere."""
    settings = json.loads(file.read_text(encoding="utf-8"))
    kept = {key: value for key, value in settings.items() if key not in ORIGIN_KEYS}
    file.write_text(json.dumps(kept, indent=2, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
