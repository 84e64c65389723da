"""Cases of process reward models: the keys of their own, and what they do in their own way."""

from stages.training.keys.case import SGD, Case

from stages.training.keys import observations as see

PROCESS_REWARD: dict[str, list[Case]] = {
    "num_labels": [Case((2, 3), see.weights, SGD, method="process_reward")],
    "micro_batch_size": [
        Case((1, 2), see.held_out_rows_in_a_batch, {"eval_steps": 1}, method="process_reward")
    ],
    "eval_batch_size": [
        Case((None, 2), see.held_out_rows_in_a_batch, {"eval_steps": 1}, method="process_reward")
    ],
    "eval_sample_packing": [Case((None, True), see.refusal, method="process_reward")],
}
