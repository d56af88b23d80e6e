"""What every command shares: flags, errors of one line, exit codes.

Exit codes: 0 done, 1 the run failed, 2 the user can put it right, 75 stopped early and resumable, 130 interrupted.
"""

import contextlib
import itertools
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from absl import app, flags, logging
from ml_collections import config_flags

from launch import streams, studies
from launch.text import described, one_line
from singan.config import default_mapping, flatten, nearest
from singan.errors import RESUMABLE as RESUMABLE
from singan.errors import UserError
from singan.training.ahead import at_work

# Flags defined here belong to the command that asks for them, so that its --help lists them.
flags.disclaim_key_flags()

FLAGS = flags.FLAGS
DONE, FAILED, USER_ERROR, INTERRUPTED = 0, 1, 2, 130  # exit codes, beside RESUMABLE


def config_flag(default: str | None = None) -> flags.FlagHolder:
    """Defines `--config=FILE` and the overrides `--config.a.b=value`; returns its holder.

    The value is what FILE's get_config() returns, locked; launch.configs.load_config makes a Config of it.
    """
    holder = config_flags.DEFINE_config_file(
        "config",
        None,
        "A Python file whose get_config() returns the configuration, or a study's name (quickstart, own_images ...).",
        allow_override=True,
    )
    FLAGS["config"].parser = ConfigFile()  # whose errors name the line
    FLAGS.set_default("config", default)
    return holder


class ConfigFile(flags.ArgumentParser):
    """Parses --config: runs the file that it names, and locks the ConfigDict."""

    def parse(self, argument: str) -> Any:
        config, _ = studies.run_file("config", argument)
        return config.lock() if hasattr(config, "lock") else config


def run(main: Callable[[list[str]], int | None], *, positional: bool = False) -> NoReturn:
    """Parses the flags, calls `main` and exits with the code that it returns (None means 0).

    What the user can put right (flags, the config, UserError) is one line on stderr and exit code 2; the traceback is
    shown with --debug only. Any other exception keeps its traceback and exits with 1. Output that cannot be written
    ends no command (launch/streams.py); results that did not fit on a full disk give exit code 1.

    Args:
      main: takes the command line without its flags, [program, arguments...].
      positional: whether the command takes arguments besides flags.
    """
    streams.install()
    if "debug" not in FLAGS:
        flags.DEFINE_boolean("debug", False, "Show the traceback of an error.")

    def parse_flags(argv: Sequence[str]) -> list[str]:
        try:
            left = FLAGS(argv)
        except SystemExit:
            sys.exit(DONE)  # help was given: absl would exit with 1
        except KeyboardInterrupt:
            sys.exit(_interrupted())
        except Exception as error:  # absl's errors have no common class with those of ml_collections
            sys.exit(_user_error(_flag_error(error, argv)))
        if len(left) > 1 and not positional:
            sys.exit(_user_error(_leftover(left[1], argv)))
        return left

    def call_main(argv: list[str]) -> int:
        if not any(re.match(r"--?(v|verbosity)\b", argument) for argument in sys.argv[1:]):
            # Libraries tell their every step, and Orbax prints each error's traceback several times before raising it.
            logging.set_verbosity(logging.FATAL)
        try:
            return main(argv) or 0
        except UserError as error:
            return _user_error(str(error))
        except KeyboardInterrupt:
            return _interrupted()
        except UnicodeEncodeError as error:
            if error.encoding != sys.getfilesystemencoding():
                raise
            return _user_error(
                f"{error.object!r} cannot be the name of a file in this locale ({error.encoding}): set LC_ALL=C.UTF-8"
            )

    try:
        app.run(call_main, flags_parser=parse_flags)
    except SystemExit as end:
        end.code = streams.exit_code(end.code)
        _leave(end.code)
        raise
    except BaseException:
        if at_work():
            traceback.print_exc()
        _leave(FAILED)
        raise
    raise AssertionError("app.run returned")  # it never does


def _leave(code: Any) -> None:
    """Ends the process if a program is still compiled that nobody wants any more: Python would wait for it."""
    if at_work() and isinstance(code, int):
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _user_error(text: str) -> int:
    if _debug():
        traceback.print_exc()
    print(f"error: {one_line(text)}", file=sys.stderr, flush=True)
    return USER_ERROR


def _interrupted() -> int:
    print("interrupted: run the same command again to go on", file=sys.stderr, flush=True)
    return INTERRUPTED


def _debug() -> bool:
    return any(re.fullmatch(r"--?debug(=(true|1|t|y|yes))?", argument, re.IGNORECASE) for argument in sys.argv[1:])


def _leftover(word: str, argv: Sequence[str]) -> str:
    """The text for an argument that no flag took: mostly the value of a yes-or-no flag after a space."""
    before = argv[argv.index(word, 1) - 1] if word in argv[1:] else ""
    if before.startswith("-") and "=" not in before and before.strip("-"):
        return f"{word!r} belongs to no flag: write {before}={word}, with '='"
    return f"{word!r} belongs to no flag: flags are written --name=value"


def _flag_error(error: Exception, argv: Sequence[str]) -> str:
    """The text for whatever parsing the flags raised."""
    if isinstance(error.__context__, UserError):  # of the config file; absl puts the flag in front
        return str(error.__context__)
    if text := _unknown_override(argv):
        return text
    if not isinstance(error, flags.Error):
        return f"--config: {described(error)}"
    if isinstance(error, flags.UnrecognizedFlagError):
        name = error.flagname
        if name.split(".")[0].removeprefix("no") == "config" and "config" in FLAGS:
            return f"--{name} needs a config to change: give --config=FILE before it"
        return f"--{name} is not a flag{nearest(name, FLAGS)}; --help lists them"
    if missing := re.search(r"Flag --(\S+) must have a value other than None", str(error)):
        name = missing[1]
        if name == "config":
            return "--config is needed: give --config=FILE, for instance --config=quickstart"
        return f"--{name} is needed: {FLAGS[name].help}"
    return str(error)


def _unknown_override(argv: Sequence[str]) -> str:
    """The text for the first `--config.a.b` that is not a key of the configuration, or ''."""
    known = flatten(default_mapping())
    for argument in itertools.takewhile(lambda word: word != "--", argv[1:]):
        match = re.match(r"--?(?:no)?config\.([^=]+)", argument)
        if match and not any(f"{key}.".startswith(f"{match[1]}.") for key in known):
            meant = nearest(match[1], known).replace("'", "config.", 1).replace("'", "")
            return f"config.{match[1]} is not a config key{meant}"
    return ""
