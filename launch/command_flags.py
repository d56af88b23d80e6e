"""absl's flags for commands: a flag that two commands have may be defined by both in one process; the last one counts.

So a notebook may import several commands. `python -m` runs its command last.
"""

import functools
from typing import TYPE_CHECKING, Any

from absl import flags

if TYPE_CHECKING:
    from absl.flags import *  # noqa: F403

flags.disclaim_key_flags()  # an alias belongs to the command that asks for it


def DEFINE_alias(name: str, original_name: str) -> None:  # absl's name
    """Defines another name of a flag."""
    if name not in flags.FLAGS:
        flags.DEFINE_alias(name, original_name)


def __getattr__(name: str) -> Any:
    value = getattr(flags, name)
    return functools.partial(value, allow_override=True) if name.startswith("DEFINE_") else value
