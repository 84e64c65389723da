"""Why some keys of Axolotl are not supported, and what does what they are for."""

REASONS = {
    "nvfp4_merge_aware": "trains for a merged model in NVFP4, and merged models are in 16 bits, in which the whole "
    "adapter stays. Take it out",
}
