"""Plugins of one's own in a training: loading them, calling their hooks, and saying whose fault it was."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from inspect import Signature, signature
from types import TracebackType
from typing import Any, NoReturn

from pydantic import BaseModel, ValidationError
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from transformers import Trainer, TrainerCallback, set_seed

from tunemill.stages.data.conversations.user_config import UserConfig
from tunemill.stages.data.conversations.user_modules import UserFailures, local_modules
from tunemill.stages.declaration import OwnKeysMark, RuntimeMark
from tunemill.stages.errors import SettingError, UserError
from tunemill.stages.own_classes import dotted, misfit
from tunemill.stages.training.keys.trainer_class import MAY_OVERRIDE, refusal_of
from tunemill.stages.training.keys.training import TrainingKeys
from tunemill.stages.training.memory_body import ran_out
from tunemill.stages.training.plugins import HOOKS, REFUSED, Plugin

EVENTS = tuple(name for name in vars(TrainerCallback) if name.startswith("on_"))
# What transformers gives to every event by name.
OF_EVENTS = ("model", "processing_class", "optimizer", "lr_scheduler", "train_dataloader", "eval_dataloader")


class PluginConfig(UserConfig):
    """What a plugin sees: what counts of this training's keys, and the keys that the plugin declares itself."""

    def __init__(self, config: TrainingKeys, own: Mapping[str, Any]) -> None:
        super().__init__("training", config)
        runtime = set(config.marked(RuntimeMark)) - config.deciding()
        hidden = {*runtime, *config.sources(), *config.marked(OwnKeysMark)}
        counting = {name: value for name, value in self._values.items() if name not in hidden}
        self.__dict__["_values"] = {**counting, **own}

    def _refuse(self, key: object) -> NoReturn:
        raise SettingError(
            f"cfg.{key}: neither a key of this training that its result depends on, nor one that the plugin declares. "
            f"Declare it in get_input_args, as a field of a pydantic model"
        )


@dataclass(frozen=True)
class Loaded:
    """A plugin as the YAML names it, and what its hooks are called with first."""

    name: str
    plugin: Any
    cfg: PluginConfig


class Plugins:
    """The plugins of a training, in the order of the YAML."""

    def __init__(self, loaded: Sequence[Loaded], seed: int, trainer: type | None = None) -> None:
        self._loaded = loaded
        self._seed = seed
        self._trainer = trainer

    def __bool__(self) -> bool:
        return bool(self._loaded) or self._trainer is not None

    def over(self, loop: type) -> Any:
        """The class of the loop; where there is a Trainer of one's own, with that one between it and transformers'."""
        return loop if self._trainer is None else type(self._trainer.__name__, (loop, self._trainer), {})

    def begin(self) -> None:
        """Before the model is read. What hooks draw by chance is the same in every run, and after an interruption."""
        if self._loaded:
            set_seed(self._seed)
        self.call("pre_model_load")

    def call(self, hook: str, *given: Any) -> None:
        """Call a hook of each plugin."""
        for _ in self._results(hook, *given):
            pass

    def meet(self, trainer: Any, before: TrainerCallback) -> list[TrainerCallback]:
        """The Trainer is made. Callbacks that come now, which are returned, go before one that is there.

        A hook may return them, or add them to the Trainer itself.
        """
        callbacks = trainer.callback_handler.callbacks
        known = {id(one) for one in callbacks}
        self.call("post_trainer_create", trainer)
        given = self.callbacks("add_callbacks_post_trainer", trainer)
        more = [one for one in callbacks if id(one) not in known]
        callbacks[:] = [one for one in callbacks if id(one) in known]
        for one in more:
            check_events(one)
        added = {id(one) for one in more}
        more += [one for one in given if id(one) not in added]
        place = callbacks.index(before)
        callbacks[place:place] = more
        return more

    def callbacks(self, hook: str, *given: Any) -> list[TrainerCallback]:
        """The callbacks that a hook of each plugin gives."""
        found: list[TrainerCallback] = []
        for name, result in self._results(hook, *given):
            for one in result or []:
                made = one() if isinstance(one, type) else one
                self._check(
                    f"{name}: {hook}", made, TrainerCallback, "a list of transformers' TrainerCallback"
                )
                check_events(made)
                found.append(made)
        return found

    def optimizer(self, trainer: Any) -> Optimizer | None:
        """The optimizer of the first plugin that makes one."""
        made: Optimizer | None = self._first(
            "create_optimizer", Optimizer, "a torch.optim.Optimizer", trainer
        )
        return made

    def scheduler(self, trainer: Any, optimizer: Any, steps: int) -> LRScheduler | None:
        """The scheduler of the first plugin that makes one; `optimizer` is as it was made, `steps` all of them."""
        plain = getattr(optimizer, "optimizer", optimizer)
        what = "a torch.optim.lr_scheduler.LRScheduler"
        made: LRScheduler | None = self._first(
            "create_lr_scheduler", LRScheduler, what, trainer, plain, steps
        )
        if isinstance(made, ReduceLROnPlateau):
            raise SettingError(
                "plugins: create_lr_scheduler gives a ReduceLROnPlateau, which follows held-out rows. Write "
                "lr_scheduler: reduce_lr_on_plateau in place of it"
            )
        return made

    def _first(self, hook: str, kind: type, what: str, *given: Any) -> Any:
        for name, result in self._results(hook, *given):
            if result is not None:
                self._check(f"{name}: {hook}", result, kind, f"{what}, or None")
                return result
        return None

    def _results(self, hook: str, *given: Any) -> Iterator[tuple[str, Any]]:
        assert hook in HOOKS, hook
        for one in self._loaded:
            method = getattr(one.plugin, hook, None)
            if method is not None:
                yield one.name, method(one.cfg, *given)

    @staticmethod
    def _check(what: str, result: Any, kind: type, wanted: str) -> None:
        if not isinstance(result, kind):
            raise SettingError(f"plugins: {what} must return {wanted}, not {result!r:.80}")


@contextmanager
def own_plugins(config: TrainingKeys) -> Iterator[Plugins]:
    """The plugins that the config names, loaded; while this lasts their modules can be imported.

    Raises SettingError where one does not load, has hooks that have no place here, or refuses the values of its keys;
    and for whatever goes wrong in their files while this lasts.
    """
    plugins, trainer, files = config.own_plugins, config.own_trainer, config.own_code
    names = [*plugins, *([trainer] if trainer else [])]
    if not names:
        yield Plugins([], config.seed)
        return
    with local_modules(dotted(names[0]).rpartition(".")[0], files), PluginFailures(files, trainer):
        loaded = [load(name, files, config) for name in plugins]
        yield Plugins(loaded, config.seed, None if trainer is None else load_trainer(trainer, files))


def load_trainer(name: str, files: Sequence[str]) -> type:
    """The Trainer of one's own. Raises SettingError where it is none, or overrides what belongs to the loop."""
    found = load_class("trainer_cls", name, files)
    if not issubclass(found, Trainer):
        raise SettingError(f"trainer_cls: {name}: must inherit from transformers' Trainer")
    own = [one for one in found.__mro__ if one not in Trainer.__mro__]
    for method in sorted({method for one in own for method in vars(one)} - set(MAY_OVERRIDE)):
        if hasattr(Trainer, method) and (method == "__init__" or not method.startswith("__")):
            raise SettingError(f"trainer_cls: {name}: {refusal_of(method)}")
    for method in MAY_OVERRIDE:
        what, mine, pattern = (
            f"trainer_cls: {name}: {method}",
            getattr(found, method),
            getattr(Trainer, method),
        )
        check_parameters(what, mine, pattern, by_name=method == "compute_loss")
    return found


def load_class(key: str, name: str, files: Sequence[str]) -> type:
    """The class that a key names; its module can be imported."""
    module, _, wanted = dotted(name).rpartition(".")
    with UserFailures(f"{key}: {name}", files, SettingError):
        found = getattr(import_module(module), wanted, None)
    if not isinstance(found, type):
        raise SettingError(f"{key}: {name}: {module} has no class {wanted}")
    return found


def load(name: str, files: Sequence[str], config: TrainingKeys) -> Loaded:
    """One plugin, made; its modules can be imported."""
    found = load_class("plugins", name, files)
    with UserFailures(f"plugins: {name}", files, SettingError):
        plugin = found()
    owners = {hook: owner_of(found, hook) for hook in (*REFUSED, *HOOKS)}
    # A hook that is None is not there.
    defined = {
        hook for hook, owner in owners.items() if owner is not None and getattr(plugin, hook) is not None
    }
    reasons = [f"{hook}: {REFUSED[hook]}" for hook in REFUSED if hook in defined]
    reasons += config.set_in_vain(defined)
    if reasons:
        raise SettingError(f"plugins: {name}: {reasons[0]}")
    for hook in HOOKS:
        if hook in defined:
            check_parameters(f"plugins: {name}: {hook}", getattr(plugin, hook), getattr(Plugin(), hook))
    return Loaded(name, plugin, PluginConfig(config, own_values(name, plugin, files, config.plugin_settings)))


def owner_of(kind: type, hook: str) -> type | None:
    """The class that defines a hook; None where only a base that does nothing has it."""
    owner = next((one for one in kind.__mro__ if hook in vars(one)), None)
    return None if owner is None or owner.__module__.split(".")[0] in ("axolotl", "tunemill") else owner


def check_parameters(
    what: str, own: Callable[..., Any], pattern: Callable[..., Any], *, by_name: bool = False
) -> None:
    """Raises SettingError where a method of one's own cannot be called as the one that it stands for.

    `by_name`: what has a default is given by name.
    """
    found = parameters_of(what, own)
    wrong = found and misfit(found, signature(pattern), by_name=by_name)
    if wrong:
        raise SettingError(f"{what}{wrong}")


def parameters_of(what: str, method: Any) -> Signature | None:
    """How a method of one's own is called; None where Python does not know. Raises SettingError where it is none."""
    if not callable(method):
        raise SettingError(f"{what} is no method: {method!r:.80}")
    try:
        return signature(method)
    except ValueError:
        return None


def check_events(callback: TrainerCallback) -> None:
    """Raises SettingError where a callback cannot be told of an event."""
    for event in EVENTS:
        what = f"plugins: {type(callback).__name__}.{event}"
        found = parameters_of(what, getattr(callback, event))
        try:
            if found is not None:
                found.bind_partial(None, None, None, **dict.fromkeys(OF_EVENTS))
        except TypeError as error:
            raise SettingError(
                f"{what}{found} cannot be called: {error}. Write "
                f"{event}(self, args, state, control, **kwargs)"
            ) from None


def own_values(name: str, plugin: Any, files: Sequence[str], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The values of the keys that a plugin declares, as its model reads them."""
    declare = getattr(plugin, "get_input_args", None)
    model = declare() if declare is not None else None
    if isinstance(model, str):
        module, _, wanted = model.rpartition(".")
        with UserFailures(f"plugins: {name}: get_input_args: {model}", files, SettingError):
            model = getattr(import_module(module), wanted)
    if model is None:
        return {}
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        raise SettingError(f"plugins: {name}: get_input_args must name a pydantic model, not {model!r:.80}")
    given = {key: value for key, value in settings.items() if key in model.model_fields}
    try:
        read = model.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"])) or model.__name__
        raise SettingError(
            f"{key}: {name} refuses it: {first['msg']} (given: {first['input']!r:.80})"
        ) from None
    return {key: getattr(read, key) for key in model.model_fields}


class PluginFailures:
    """Turns what is raised in a file of a plugin into a UserError, with the hook and the line; all else passes.

    So does memory that ran out: it is no fault of the plugin's, and there is advice on it.
    """

    def __init__(self, files: Sequence[str], trainer: str | None) -> None:
        self._files = frozenset(files)
        self._trainer = "" if trainer is None else dotted(trainer).rpartition(".")[2]

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not isinstance(raised, Exception) or isinstance(raised, UserError) or ran_out(raised):
            return
        frames: list[TracebackType] = []
        while trace is not None:
            if trace.tb_frame.f_code.co_filename in self._files:
                frames.append(trace)
            trace = trace.tb_next
        if frames:
            hook, last = frames[0].tb_frame.f_code.co_qualname, frames[-1]
            reason = f"{type(raised).__name__}: {raised}" if str(raised) else type(raised).__name__
            place = f"{last.tb_frame.f_code.co_filename}, line {last.tb_lineno}"
            key = "trainer_cls" if hook.split(".")[0] == self._trainer else "plugins"
            raise UserError(f"{key}: {hook} raised {reason} ({place})") from raised
