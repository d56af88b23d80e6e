"""What must not be written down with a run: passwords in addresses, and the values of secret environment variables."""

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from singan.config import flatten
from singan.errors import UserError

SECRET_NAME = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)$", re.IGNORECASE)
SHORTEST = 8  # characters: a shorter value is found in ordinary words
WITH_PASSWORD = re.compile(r"(?<=://)[^/\s@]+:[^/\s@]*@")  # https://user:password@host
HIDDEN = "***"


def hidden(text: str) -> str:
    """Returns a text with the secrets in it replaced by ***."""
    for value in _values().values():
        text = text.replace(value, HIDDEN)
    return WITH_PASSWORD.sub(f"{HIDDEN}@", text)


def hidden_arguments(argv: Sequence[str]) -> list[str]:
    """Returns a command line as it may be written down; flags that are named after a secret lose their values."""
    shown = []
    for argument in map(hidden, argv):
        name, equals, _ = argument.partition("=")
        secret = equals and name.startswith("-") and SECRET_NAME.search(name)
        shown.append(f"{name}={HIDDEN}" if secret else argument)
    return shown


def check_config(mapping: Mapping[str, Any]) -> None:
    """Raises UserError where a nested configuration holds a secret: it is kept in config.json and sent to wandb."""
    for key, value in flatten(mapping).items():
        for text in value if isinstance(value, tuple) else (value,):
            if not isinstance(text, str):
                continue
            what = "a password" if WITH_PASSWORD.search(text) else ""
            what = next((f"the value of ${name}" for name, secret in _values().items() if secret in text), what)
            if what:
                raise UserError(f"config.{key} holds {what}, which would be written down with the run: take it out")


def _values() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if SECRET_NAME.search(name) and len(value) >= SHORTEST}
