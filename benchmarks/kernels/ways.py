"""Names of who competes, and of the packages behind them."""

OURS = "tunemill"
EAGER = "eager"
COMPILED = "torch.compile"
LIGER = "Liger"
PEFT = "PEFT"
UNSLOTH = "Unsloth"
AXOLOTL = "Axolotl"
BITSANDBYTES = "bitsandbytes"

# Packages whose import changes torch, transformers or PEFT for everyone: they run in a process of their own.
INTRUSIVE = {UNSLOTH: "unsloth", AXOLOTL: "axolotl"}
