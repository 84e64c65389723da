"""Where the keys of distillation take effect."""

from stages.training.keys.case import SGD, Case

from stages.training.keys import observations as see

ONCE = {**SGD, "max_steps": 1}

DISTILLATION: dict[str, list[Case]] = {
    "kd_alpha": [
        Case((0.0, 0.5, 1.0), see.weights, {**ONCE, "kd_ce_alpha": 0.5}, method="distillation"),
    ],
    "kd_ce_alpha": [Case((0.0, 0.5), see.weights, ONCE, method="distillation")],
    "kd_temperature": [
        Case((1.0, 2.0), see.weights, ONCE, method="distillation"),
        Case((1.0, 2.0), see.reported("kd_loss"), {"max_steps": 1}, method="distillation"),
    ],
    "kd_beta": [Case((0.0, 0.5, 1.0), see.weights, ONCE, method="distillation")],
    "kd_normalize_topk": [Case((True, False), see.weights, ONCE, method="distillation")],
}
