"""Sign a folder with a private key, by the package model-signing."""

from pathlib import Path

from tunemill.resources.protocols import SIGNATURE_FILE, UNSIGNED
from tunemill.stages.errors import SourceError


def sign(folder: Path, key: Path) -> None:
    """Write the signature of every file in the folder. Raises SourceError for a key that cannot sign."""
    from model_signing import hashing, signing

    try:
        config = signing.Config().use_elliptic_key_signer(private_key=key)
    except (ValueError, TypeError) as error:
        # An encrypted key, another kind of key, or no key at all; none of its contents is said.
        raise SourceError(
            f"{key.name}: cannot sign: {type(error).__name__}. Give a private key of an elliptic curve as PEM, without "
            f"a passphrase: openssl ecparam -name prime256v1 -genkey -noout -out key.pem"
        ) from None
    ignored = hashing.Config().set_ignored_paths(
        paths=[Path(name) for name in UNSIGNED], ignore_git_paths=False
    )
    config.set_hashing_config(ignored)
    config.sign(folder, folder / SIGNATURE_FILE)
