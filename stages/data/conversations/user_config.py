"""What a user's own functions see of the configuration: the slice of the stage that calls them, read-only."""

from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from tunemill.stages.declaration import StageConfig
from tunemill.stages.errors import SettingError


class UserConfig(Mapping[str, Any]):
    """A slice as a mapping and with attributes. Asking for what is not in it raises SettingError.

    What a function reads must be part of the key of its result, so a missing key has no default either.
    """

    def __init__(self, stage: str, config: StageConfig) -> None:
        hidden = {"type_code", "path"}
        self.__dict__["_stage"] = stage
        self.__dict__["_values"] = {
            name: value for name, value in config.model_dump().items() if name not in hidden
        }

    def __getitem__(self, key: str) -> Any:
        if key not in self._values:
            self._refuse(key)
        return self._values[key]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self[name]

    def __contains__(self, key: object) -> bool:
        return key in self._values or self._refuse(key)

    def get(self, key: str, default: Any = None) -> Any:
        """The value, or the default where it is unset; not where the stage does not read the key."""
        value = self[key]
        return default if value is None else value

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise SettingError(f"cfg.{name} cannot be set: the configuration is read-only")

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def _refuse(self, key: object) -> NoReturn:
        raise SettingError(
            f"cfg.{key}: the stage {self._stage} does not read this key, so its results are kept when the key "
            f"changes. Known here: {', '.join(sorted(self._values))}. Write other values into your code"
        )
