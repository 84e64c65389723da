"""What a plugin of one's own may do in a training: a class with some of these methods, by their names in Axolotl.

`plugins: [my_module.MyPlugin]` finds `my_module.py` beside the YAML. Inheriting from `Plugin` is for editors and type
checkers; any class with some of these methods does. `cfg` holds the keys that this training reads and those that the
plugin declares, read-only: `cfg.learning_rate`. Each plugin is made once, and its hooks are called in the order of the
YAML.
"""

from typing import Any

# Hooks of Axolotl's that have no place here, and what does what they are for.
REFUSED = {
    "register": "sees the whole YAML, and a training sees its own keys alone: declare the keys of the plugin in "
    "get_input_args, and read them from cfg in another hook",
    "load_datasets": "rows are prepared before, in nodes of their own: write a function of your own for them, "
    "`type: my_module.my_function` in datasets",
    "get_training_args": "what it would set are keys of the YAML, which are part of the result's key: write them there",
    "get_training_args_mixin": "what it would declare are keys: declare them in get_input_args",
    "get_collator_cls_and_kwargs": "how rows become a batch is the business of the method of training",
    "get_adapter_capabilities": "kinds of adapters are added in stages/training/adapters/, with what merges them",
    "get_lora_config_kwargs": "adapters are shaped by the keys lora_* and peft_*, which are part of the result's key",
    "load_adapter": "kinds of adapters are added in stages/training/adapters/, with what merges them",
    "get_trainer_cls": "name the class in trainer_cls",
    "on_rollouts_scored": "no method here scores rollouts",
    "post_train_unload": "the process ends with the training: use post_train",
}


class Plugin:
    """Hooks around one training. Each does nothing, until a class of one's own says otherwise."""

    def get_input_args(self) -> str | type | None:
        """The pydantic model of the plugin's own keys: the class, or its name in quotes, `"my_module.MyArgs"`.

        One plain `return`: `check` reads it from the source, and runs nothing.
        """

    def pre_model_load(self, cfg: Any) -> None:
        """Before the base model is read."""

    def post_model_build(self, cfg: Any, model: Any) -> None:
        """The base model is read, and has no adapter yet."""

    def pre_lora_load(self, cfg: Any, model: Any) -> None:
        """Before an adapter is added, where one is trained."""

    def post_lora_load(self, cfg: Any, model: Any) -> None:
        """The adapter was added, where one is trained."""

    def post_model_load(self, cfg: Any, model: Any) -> None:
        """The model is as it will be trained, with its adapter if it has one: the place to freeze a layer."""

    def add_callbacks_pre_trainer(self, cfg: Any, model: Any) -> list[Any] | None:
        """Callbacks (`transformers.TrainerCallback`) of the training. They run before held-out rows are scored."""

    def post_trainer_create(self, cfg: Any, trainer: Any) -> None:
        """The Trainer is made; kernels are put into the model after this."""

    def add_callbacks_post_trainer(self, cfg: Any, trainer: Any) -> list[Any] | None:
        """More callbacks, by what needs the Trainer to make them."""

    def create_optimizer(self, cfg: Any, trainer: Any) -> Any:
        """An optimizer (`torch.optim.Optimizer`) over the parameters that are trained; None: the one of the YAML."""

    def create_lr_scheduler(self, cfg: Any, trainer: Any, optimizer: Any, num_training_steps: int) -> Any:
        """A scheduler of the learning rate; None: the one of the YAML."""

    def post_train(self, cfg: Any, model: Any) -> None:
        """The model is trained and written: what is changed in it now is lost."""


HOOKS = tuple(name for name in vars(Plugin) if not name.startswith("_"))
