"""Which tokens end the turns of a conversation."""

from collections.abc import Callable

from tunemill.stages.data.conversations.example import Ends, Kit
from tunemill.stages.data.tokenized.config import TokenizedConfig
from tunemill.stages.errors import SettingError


def ends_of(config: TokenizedConfig, kit: Kit, id_of: Callable[[str, Kit], int]) -> Ends:
    """Which tokens end a turn, and when they are trained. Raises SettingError for rules that contradict."""
    eos = [] if kit.eos_token is None else [kit.eos_token]
    eot = eos if config.eot_tokens is None else config.eot_tokens
    train_on_eot = config.train_on_eot or config.train_on_eos
    # Where EOS is the only end of turn, what either key trains is trained.
    if set(eos) & set(eot) and set(eos) != set(eot) and train_on_eot != config.train_on_eos:
        raise SettingError(
            f"train_on_eos: {config.train_on_eos} and train_on_eot: {train_on_eot} contradict each other: "
            f"{eos[0]} is both the EOS token and one of eot_tokens"
        )
    return Ends(
        eos_ids=frozenset(id_of(token, kit) for token in eos),
        train_on_eos=config.train_on_eos,
        eot_ids=frozenset(id_of(token, kit) for token in eot),
        train_on_eot=train_on_eot,
    )


def single_id(token: str, kit: Kit) -> int:
    """The id of a token of `eot_tokens`. Raises SettingError where it is not one token."""
    ids = kit.ids_of(token)
    if len(ids) != 1:
        raise SettingError(
            f"eot_tokens: {token!r} is {len(ids)} tokens to this tokenizer and must be one; add it under tokens:"
        )
    return ids[0]
