"""Cases of the keys that one method reads."""

from stages.training.keys.case import SGD, Case

from stages.training.keys import observations as see

SIMPO: dict[str, list[Case]] = {
    "rl_beta": [
        Case((0.1, 2.0), see.weights, SGD, method="simpo"),
        Case((0.1, 2.0), see.reported("rewards/margins"), {"max_steps": 1}, method="simpo"),
    ],
    "simpo_gamma": [Case((0.0, 0.5, 2.0), see.weights, SGD, method="simpo")],
    "cpo_alpha": [
        Case((0.0, 1.0), see.weights, SGD, method="simpo"),
        Case((0.0, 0.5, 1.0), see.reported("loss"), {"max_steps": 1}, method="simpo"),
    ],
}

ORPO: dict[str, list[Case]] = {
    "orpo_alpha": [
        Case((0.1, 0.5), see.weights, SGD, method="orpo"),
        Case((0.1, 0.5), see.reported("rewards/margins"), {"max_steps": 1}, method="orpo"),
    ],
    "sequence_len": [
        Case((512, 5), see.batch_shapes, method="orpo"),
        Case((512, 5), see.held_out_shapes, {"eval_steps": 1}, method="orpo"),
    ],
}

REWARD: dict[str, list[Case]] = {
    "center_rewards_coefficient": [Case((0.0, 0.5), see.weights, SGD, method="reward")],
    "num_labels": [Case((1, 2), see.refusal, method="reward")],
    "metric_for_best_model": [
        Case(
            (None, "margin"),
            see.callback("Best", "metric"),
            {"load_best_model_at_end": True, "eval_steps": 1, "has_held_out_rows": True},
            method="reward",
        ),
    ],
}

KTO: dict[str, list[Case]] = {
    "rl_beta": [
        Case((0.1, 0.5), see.weights, SGD, method="kto"),
        Case((0.1, 0.5), see.reported("rewards/chosen"), {"max_steps": 1}, method="kto"),
    ],
    "kto_desirable_weight": [Case((1.0, 2.0), see.weights, SGD, method="kto")],
    "kto_undesirable_weight": [Case((1.0, 2.0), see.weights, SGD, method="kto")],
}

OF_METHODS = (KTO, ORPO, REWARD, SIMPO)
