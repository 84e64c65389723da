"""Where a training with FSDP stores weights in parts, and where they are put together."""

# Where accelerate puts the weights of a model, and what makes a folder a distributed checkpoint.
PARTS, METADATA = "pytorch_model_fsdp_0", ".metadata"
# Below output_dir, as Axolotl has it.
TOGETHER = "merged"
