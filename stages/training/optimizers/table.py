"""Every optimizer by its name in Axolotl: what makes it, what it takes, and what it cannot do."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tunemill.stages.training.arguments import Kinds

# Distribution -> the extra of tunemill that installs it; the others are always installed.
EXTRAS = {
    "apollo-torch": "apollo",
    "came-pytorch": "came",
    "flashoptim": "flashoptim",
    "galore-torch": "galore",
    "grokadamw": "grokadamw",
    "lomo-optim": "lomo",
    "pytorch-optimizer": "pytorch-optimizer",
    "schedulefree": "schedulefree",
    "torch-optimi": "optimi",
}


@dataclass(frozen=True)
class Optimizer:
    """`made_by` is `module:Class` of the distribution `library`; `fixed` are arguments that its name stands for.

    `takes`: what it takes from optim_args, with types. `betas` and `eps`: their defaults; none where it has none.
    `targets`: settings of the parameters that optim_target_modules names, with their defaults; empty where it makes
    no difference between modules. `stored`: classes, as `module:Class`, that its state in a checkpoint holds.
    """

    made_by: str
    library: str
    fixed: Mapping[str, Any] = field(default_factory=dict)
    takes: Kinds = field(default_factory=dict)
    betas: tuple[float, ...] = ()
    eps: tuple[float, ...] = ()
    targets: Mapping[str, Any] = field(default_factory=dict)
    stored: tuple[str, ...] = ()
    without_gpu: Mapping[str, Any] = field(default_factory=dict)
    """Arguments in place of its defaults on a machine that has no GPU."""
    decays: bool = True
    """Whether it knows weight_decay."""
    needs_gpu: bool = False
    keeps_state: bool = True
    """Whether a checkpoint holds all of its state, so that a training goes on from there exactly."""
    in_backward: bool = False
    """Whether it steps while gradients are computed: then they are neither accumulated nor clipped."""
    one_rate: bool = False
    """Whether all parameters have to have one learning rate."""
    warms_up: bool = False
    """Whether it warms up by itself and needs no schedule."""

    @property
    def extra(self) -> str | None:
        """The extra that installs it."""
        return EXTRAS.get(self.library)

    @property
    def kinds(self) -> Kinds:
        """All that it takes from optim_args, with types."""
        return {**self.takes, **{name: type(value) for name, value in self.targets.items()}}


TWO_BETAS = (0.9, 0.999)
ADAMW = Optimizer("torch.optim:AdamW", "torch", betas=TWO_BETAS, eps=(1e-8,))
BNB_ADAMW = Optimizer("bitsandbytes.optim:AdamW", "bitsandbytes", betas=TWO_BETAS, eps=(1e-8,))
LION = Optimizer("bitsandbytes.optim:Lion", "bitsandbytes", betas=TWO_BETAS)
ADEMAMIX = Optimizer(
    "bitsandbytes.optim:AdEMAMix",
    "bitsandbytes",
    takes={
        "beta1": float, "beta2": float, "beta3": float, "eps": float,
        "alpha": float, "t_alpha": int, "t_beta3": int,
    },
    betas=(0.9, 0.999, 0.9999),
    eps=(1e-8,),
)  # fmt: skip
BNB_RMSPROP = Optimizer(
    "bitsandbytes.optim:RMSprop",
    "bitsandbytes",
    takes={"alpha": float, "eps": float, "momentum": float, "centered": bool},
)
TORCHAO = Optimizer(
    "torchao.optim:AdamW8bit",
    "torchao",
    fixed={"block_size": 256},
    takes={"block_size": int, "bf16_stochastic_round": bool},
    betas=TWO_BETAS,
    eps=(1e-8,),
)
TORCHAO_4BIT = replace(TORCHAO, made_by="torchao.optim:AdamW4bit")
# As transformers makes it: the learning rate is that of the schedule.
PLAIN_ADAFACTOR = {"scale_parameter": False, "relative_step": False}
GALORE = Optimizer(
    "galore_torch:GaLoreAdamW",
    "galore-torch",
    fixed={"no_deprecation_warning": True},
    betas=TWO_BETAS,
    eps=(1e-6,),
    targets={"rank": 128, "update_proj_gap": 200, "scale": 0.25, "proj_type": "std"},
    stored=("galore_torch.galore_projector:GaLoreProjector",),
)
GALORE_8BIT = replace(GALORE, made_by="galore_torch:GaLoreAdamW8bit", fixed={}, eps=(1e-8,), needs_gpu=True)
GALORE_ADAFACTOR = replace(
    GALORE, made_by="galore_torch:GaLoreAdafactor", fixed=PLAIN_ADAFACTOR, betas=(), eps=()
)
APOLLO = Optimizer(
    "apollo_torch:APOLLOAdamW",
    "apollo-torch",
    betas=TWO_BETAS,
    eps=(1e-6,),
    targets={
        "rank": 128, "proj": "random", "scale_type": "channel", "update_proj_gap": 200, "scale": 1.0,
        "proj_type": "std",
    },
    stored=(
        "apollo_torch.random_projector:GradientProjector",
        "apollo_torch.svd_projector:GaLoreProjector",
    ),
)  # fmt: skip
SCHEDULE_FREE = Optimizer(
    "schedulefree:AdamWScheduleFree",
    "schedulefree",
    takes={"weight_lr_power": float, "r": float},
    betas=TWO_BETAS,
    eps=(1e-8,),
    warms_up=True,
)
OPTIMI = Optimizer(
    "optimi:AdamW",
    "torch-optimi",
    fixed={"foreach": False},
    takes={"decouple_lr": bool, "max_lr": float, "kahan_sum": bool},
    betas=(0.9, 0.99),
    eps=(1e-6,),
)
FLASH_TAKES: Kinds = {"master_weight_bits": int, "quantize": bool, "check_numerics": bool}
FLASH = Optimizer(
    "flashoptim:FlashAdamW",
    "flashoptim",
    takes={**FLASH_TAKES, "decouple_lr": bool},
    betas=TWO_BETAS,
    eps=(1e-8,),
    needs_gpu=True,
)
FLASH_SGD = replace(
    FLASH,
    made_by="flashoptim:FlashSGD",
    takes={**FLASH_TAKES, "momentum": float, "dampening": float, "nesterov": bool},
    betas=(),
    eps=(),
)
LOMO = Optimizer(
    "lomo_optim:Lomo",
    "lomo-optim",
    takes={"clip_grad_value": float},
    needs_gpu=True,
    in_backward=True,
    one_rate=True,
)


def _bits(optimizer: Optimizer, bits: int, *, paged: bool | None = False) -> Optimizer:
    """A bitsandbytes optimizer with its state in so many bits; None: of a class that knows no pages."""
    return replace(
        optimizer,
        fixed={"optim_bits": bits, **({} if paged is None else {"is_paged": paged})},
    )


def _in_backward(optimizer: Optimizer) -> Optimizer:
    return replace(optimizer, in_backward=True)


OPTIMIZERS: dict[str, Optimizer] = {
    "adamw_torch": ADAMW,
    "adamw_torch_fused": replace(ADAMW, fixed={"fused": True}),
    "adafactor": Optimizer("transformers.optimization:Adafactor", "transformers", fixed=PLAIN_ADAFACTOR),
    "sgd": Optimizer(
        "torch.optim:SGD", "torch", takes={"momentum": float, "dampening": float, "nesterov": bool}
    ),
    "adagrad": Optimizer("torch.optim:Adagrad", "torch", takes={"lr_decay": float, "eps": float}),
    "rmsprop": Optimizer(
        "torch.optim:RMSprop",
        "torch",
        takes={"momentum": float, "alpha": float, "eps": float, "centered": bool},
    ),
    "muon": Optimizer(
        "torch.optim:Muon",
        "torch",
        # Its steps are as long as AdamW's, which takes the other parameters at the same learning rate.
        fixed={"adjust_lr_fn": "match_rms_adamw"},
        takes={"momentum": float, "nesterov": bool, "ns_steps": int},
        betas=TWO_BETAS,
        eps=(1e-8,),
    ),
    "adamw_bnb_8bit": _bits(BNB_ADAMW, 8),
    "adamw_8bit": _bits(BNB_ADAMW, 8),
    "paged_adamw_32bit": _bits(BNB_ADAMW, 32, paged=True),
    "paged_adamw_8bit": _bits(BNB_ADAMW, 8, paged=True),
    "lion_32bit": _bits(LION, 32),
    "lion_8bit": _bits(LION, 8),
    "paged_lion_32bit": _bits(LION, 32, paged=True),
    "paged_lion_8bit": _bits(LION, 8, paged=True),
    "ademamix": _bits(ADEMAMIX, 32),
    "ademamix_8bit": _bits(ADEMAMIX, 8),
    "paged_ademamix_32bit": _bits(ADEMAMIX, 32, paged=True),
    "paged_ademamix_8bit": _bits(ADEMAMIX, 8, paged=True),
    "rmsprop_bnb": _bits(BNB_RMSPROP, 32, paged=None),
    "rmsprop_bnb_32bit": _bits(BNB_RMSPROP, 32, paged=None),
    "rmsprop_bnb_8bit": _bits(BNB_RMSPROP, 8, paged=None),
    "adamw_torch_4bit": TORCHAO_4BIT,
    "adamw_torch_8bit": TORCHAO,
    "ao_adamw_4bit": TORCHAO_4BIT,
    "ao_adamw_8bit": TORCHAO,
    "ao_adamw_fp8": replace(TORCHAO, made_by="torchao.optim:AdamWFp8"),
    "galore_adamw": GALORE,
    "galore_adamw_8bit": GALORE_8BIT,
    "galore_adafactor": GALORE_ADAFACTOR,
    "galore_adamw_layerwise": _in_backward(GALORE),
    "galore_adamw_8bit_layerwise": _in_backward(GALORE_8BIT),
    "galore_adafactor_layerwise": _in_backward(GALORE_ADAFACTOR),
    "apollo_adamw": APOLLO,
    "apollo_adamw_layerwise": _in_backward(APOLLO),
    "lomo": LOMO,
    "adalomo": replace(
        LOMO,
        made_by="lomo_optim:AdaLomo",
        takes={"clip_threshold": float, "decay_rate": float, "clip_grad_value": float},
        keeps_state=False,
    ),
    "grokadamw": Optimizer(
        "grokadamw:GrokAdamW",
        "grokadamw",
        takes={
            "alpha_init": float, "lamb": float, "gamma": float, "grokking_signal_decay_rate": float,
            "gradient_clipping": float,
        },
        betas=TWO_BETAS,
        eps=(1e-8,),
        keeps_state=False,
    ),
    "schedule_free_adamw": SCHEDULE_FREE,
    "schedule_free_radam": replace(SCHEDULE_FREE, made_by="schedulefree:RAdamScheduleFree"),
    "schedule_free_sgd": replace(
        SCHEDULE_FREE,
        made_by="schedulefree:SGDScheduleFree",
        takes={**SCHEDULE_FREE.takes, "momentum": float},
        betas=(),
        eps=(),
    ),
    "stable_adamw": replace(
        OPTIMI,
        made_by="optimi:StableAdamW",
        fixed={},
        betas=TWO_BETAS,
        eps=(1e-8,),
        without_gpu={"triton": False},
    ),
    "optimi_adamw": OPTIMI,
    "came_pytorch": Optimizer(
        "came_pytorch:CAME",
        "came-pytorch",
        takes={"clip_threshold": float},
        betas=(0.9, 0.999, 0.9999),
        eps=(1e-30, 1e-16),
    ),
    "adopt_adamw": Optimizer(
        "pytorch_optimizer:ADOPT",
        "pytorch-optimizer",
        fixed={"weight_decouple": True},
        betas=(0.9, 0.9999),
        eps=(1e-6,),
    ),
    "adamc": Optimizer(
        "pytorch_optimizer:AdamC",
        "pytorch-optimizer",
        # The decay follows the learning rate in every layer, as in Axolotl.
        fixed={"normalized": True},
        betas=TWO_BETAS,
        eps=(1e-8,),
        one_rate=True,
    ),
    "flash_adamw": FLASH,
    "flash_adam": replace(FLASH, made_by="flashoptim:FlashAdam", takes=FLASH_TAKES),
    "flash_sgd": FLASH_SGD,
    "flash_sgdw": replace(
        FLASH_SGD, made_by="flashoptim:FlashSGDW", takes={**FLASH_SGD.takes, "decouple_lr": bool}
    ),
    "flash_lion": replace(FLASH, made_by="flashoptim:FlashLion", betas=(0.9, 0.99), eps=()),
}  # fmt: skip

# Names that Axolotl or transformers has and that cannot be had here, and why.
OUT_OF_REACH = {
    "dion": "Dion is in no package of PyPI. Use muon, which is close to it",
    "sinkgd": "SinkGD exists inside Axolotl only, in no package. Use sgd or adafactor, which also keep little state",
    "polora": "PoLoRA exists inside Axolotl only, in no package. Use adamw_torch_fused, or muon",
    "q_galore_adamw8bit": "the package q-galore-torch is from 2024 and calls functions that bitsandbytes no longer "
    "has. Use galore_adamw_8bit",
    "adamw_anyprecision": "torchdistx is in no package of PyPI. Use adamw_torch_fused",
    "adamw_torch_xla": "it runs on TPUs only. Use adamw_torch_fused",
    "adamw_torch_npu_fused": "it runs on Ascend NPUs only. Use adamw_torch_fused",
}
