"""Keys of the methods that compare the model with a frozen one."""

from stages.training.keys.case import SGD, Case

from stages.training.keys import observations as see

FOLLOWING = {**SGD, "sync_ref_model": True, "ref_model_sync_steps": 1}
SMOOTHED = {**SGD, "dpo_loss_type": ["robust"]}

REFERENCES: dict[str, list[Case]] = {
    "rl_beta": [
        Case((0.1, 0.5), see.weights, SGD, method="dpo"),
        Case((0.1, 0.5), see.weights, SGD, method="ipo"),
        Case((0.1, 0.5), see.reported("rewards/margins"), {"max_steps": 1}, method="dpo"),
    ],
    # What is stored is not what the model says.
    "precompute_ref_log_probs": [
        Case((None, False), see.weights, SGD, method="dpo"),
        Case((None, True), see.idle_keys, method="dpo"),
    ],
    "lora_dropout": [
        Case((0.0, 0.5), see.idle_keys, {"adapter": "lora", "lora_r": 4, "lora_alpha": 8}, method="dpo"),
        Case((0.0, 0.5), see.idle_keys, {"adapter": "lora", "lora_r": 4, "lora_alpha": 8}, method="kto"),
    ],
    "pad_to_sequence_len": [
        Case((None, True), see.idle_keys, method="dpo"),
        Case((None, True), see.idle_keys, method="reward"),
    ],
    "sync_ref_model": [Case((False, True), see.weights, {**SGD, "ref_model_sync_steps": 1}, method="dpo")],
    "ref_model_mixup_alpha": [Case((0.5, 0.9), see.weights, FOLLOWING, method="dpo")],
    "ref_model_sync_steps": [Case((1, 64), see.weights, FOLLOWING, method="dpo")],
    "rl_adapter_ref_model": [Case((None, True), see.idle_keys, method="dpo")],
    "dpo_loss_type": [
        Case((["sigmoid"], ["ipo"], ["apo_zero"], ["sigmoid", "sft"]), see.weights, SGD, method="dpo")
    ],
    "dpo_loss_weights": [Case((None, [0.5]), see.weights, SGD, method="dpo")],
    "dpo_label_smoothing": [
        Case((0.0, 0.1), see.weights, SMOOTHED, method="dpo"),
        Case((0.0, 0.1), see.idle_keys, method="dpo"),
    ],
    "dpo_use_weighting": [Case((False, True), see.weights, SGD, method="dpo")],
    "rpo_alpha": [Case((None, 0.5), see.weights, SGD, method="dpo")],
    "dpo_norm_loss": [
        Case((None, False), see.idle_keys, method="dpo"),
        Case((None, True), see.refusal, method="dpo"),
    ],
    "dpo_use_liger_kernel": [Case((None, True), see.idle_keys, method="dpo")],
    "dpo_padding_free": [Case((False, True), see.batch_shapes, {"micro_batch_size": 2}, method="dpo")],
    "dpo_use_logits_to_keep": [Case((None, True), see.idle_keys, method="dpo")],
}
