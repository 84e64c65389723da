"""Why some keys of Axolotl are not supported, and what does what they are for."""

REASONS = {
    "fix_untrained_tokens": "writes the mean of other rows over those of tokens that no row trains, which is not "
    "supported; to train new tokens name their ids in peft_trainable_token_indices, or embeddings and head in "
    "lora_modules_to_save",
}
