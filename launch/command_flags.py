"""absl's flags for commands: a flag that two commands have may be defined by both in one process; the last one counts.

So a notebook may import several commands. `python -m` runs its command last.
"""

import functools
from typing import TYPE_CHECKING, Any

from absl import flags

flags.disclaim_key_flags()  # an alias belongs to the command that asks for it

if TYPE_CHECKING:
    from absl.flags import FLAGS as FLAGS
    from absl.flags import DEFINE_alias as DEFINE_alias
    from absl.flags import DEFINE_boolean as DEFINE_boolean
    from absl.flags import DEFINE_enum as DEFINE_enum
    from absl.flags import DEFINE_float as DEFINE_float
    from absl.flags import DEFINE_integer as DEFINE_integer
    from absl.flags import DEFINE_list as DEFINE_list
    from absl.flags import DEFINE_multi_string as DEFINE_multi_string
    from absl.flags import DEFINE_string as DEFINE_string
    from absl.flags import declare_key_flag as declare_key_flag
    from absl.flags import disclaim_key_flags as disclaim_key_flags
else:

    def DEFINE_alias(name: str, original_name: str) -> None:
        """Defines another name of a flag."""
        if name not in flags.FLAGS:
            flags.DEFINE_alias(name, original_name)

    def __getattr__(name: str) -> Any:
        value = getattr(flags, name)
        return functools.partial(value, allow_override=True) if name.startswith("DEFINE_") else value
