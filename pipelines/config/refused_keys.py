"""Keys of Axolotl that nothing here could honour, and what to write in their place."""

ONLINE = (
    "is of a server that is asked while training. Here a teacher is run over the rows once, before training, and every "
    "student reads what it said: write pipeline: {teacher: MODEL}, and take it out"
)
NEMO_GYM = (
    "is of servers of NeMo Gym, which are not started or asked here. Ask them by a class beside the YAML "
    "(trl.environment_factory) or by a reward function, and take it out"
)
OF_NEMO_GYM = (
    "auto_clone", "auto_start", "config_paths", "datasets", "dir", "enabled", "head_port", "max_turns", "model_name",
    "multi_turn", "run_timeout", "server_timeout", "verify_timeout",
)  # fmt: skip
# Key -> why it is refused. Of other keys of Axolotl it is said that they are not supported yet.
REFUSED = {
    "kd_online_preflight": ONLINE,
    "kd_online_server": ONLINE,
    "kd_online_server_base_url": ONLINE,
    "kd_online_timeout": ONLINE,
    "kd_online_topk": f"{ONLINE}; pipeline: {{teacher_top_k: ...}} says how many tokens of it are kept",
    **{f"nemo_gym_{name}": NEMO_GYM for name in OF_NEMO_GYM},
    "kd_prepared_targets_alignment": "is of columns target_logprobs that Axolotl has prepared. Name the field of the "
    "rows that has log-probabilities with logprobs_field, and take it out",
    "kd_temperature_min": "lowers the temperature of a server that is asked while training, and what is stored is "
    "divided by one temperature, kd_temperature. Take it out",
    "kd_zscore_base_temp": "standardizes logits in old versions of Axolotl, and later ones do not read it. Divide them "
    "by kd_temperature, and take it out",
}
