"""What every command shares: flags, errors of one line, exit codes.

Exit codes: 0 done, 1 the run failed, 2 the user can put it right, 75 stopped early and resumable, 130 interrupted.
"""

import contextlib
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from absl import app, flags, logging
from ml_collections import config_flags

from launch import streams, studies
from launch.text import described, one_line
from singan import config as singan_config
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
    return config_flags.DEFINE_config_file(
        "config",
        studies.find_file(default, "config.py") if default else default,
        "A Python file whose get_config() returns the configuration, or a study's name (quickstart, own_images ...).",
        lock_config=True,
        allow_override=True,
    )


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
            left = FLAGS(_with_config_file(argv))
        except SystemExit as error:
            if any(re.fullmatch(r"--?(help\w*|\?)", argument) for argument in argv):
                sys.exit(0)  # it was given: absl would exit with 1
            sys.exit(_user_error(_broken_config(error)))
        except KeyboardInterrupt:
            sys.exit(_interrupted())
        except Exception as error:  # config files run any code, and absl's errors have no common class with theirs
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
        except OSError as error:
            if text := _unreadable_config(error):
                return _user_error(text)
            raise

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
    if text := _unknown_override(argv):
        return text
    if isinstance(error, OSError):
        return _unreadable_config(error) or str(error)
    if not isinstance(error, flags.Error):
        return _broken_config(error)
    text = str(error)
    if isinstance(error, flags.UnrecognizedFlagError):
        name = error.flagname
        if name.split(".")[0].removeprefix("no") == "config" and "config" in FLAGS:
            return f"--{name} needs a config to change: give --config=FILE before it"
        return f"--{name} is not a flag{singan_config.nearest(name, FLAGS)}; --help lists them"
    if missing := re.search(r"Flag --(\S+) must have a value other than None", text):
        name = missing[1]
        if name == "config":
            return "--config is needed: give --config=FILE, for instance --config=quickstart"
        return f"--{name} is needed: {FLAGS[name].help}"
    if "Error whilst parsing config file" in text:  # ml_collections puts the whole traceback into the text
        file, lines = _config_file(argv), re.findall(r'File "(.*?)", line (\d+)', text)
        line = next((f", line {number}" for name, number in reversed(lines) if _same_file(name, file)), "")
        return f"the config file {file}{line}: {text.strip().splitlines()[-1].split(': ', 1)[-1]}"
    return text


def _unknown_override(argv: Sequence[str]) -> str:
    """The text for the first `--config.a.b` that is not a key of the configuration, or ''."""
    for argument in argv[1:]:
        if argument == "--":
            break
        match = re.match(r"--?(?:no)?config\.([^=]+)", argument)
        if not match:
            continue
        group: Any = singan_config.default_mapping()
        path = match[1].split(".")
        for depth, word in enumerate(path):
            if not isinstance(group, Mapping) or word not in group:
                name = "config." + ".".join(path[: depth + 1])
                return f"{name} is not a config key{_nearest_key(word, path[:depth], group)}"
            group = group[word]
    return ""


def _nearest_key(word: str, prefix: list[str], group: Any) -> str:
    if isinstance(group, Mapping) and (hint := singan_config.nearest(word, group)):
        key = re.findall(r"'(.*)'", hint)[0]
        return f" (did you mean config.{'.'.join([*prefix, key])}?)"
    # The right key in the wrong group, such as config.chunk for config.train.chunk.
    by_leaf = {key.rsplit(".", 1)[-1]: key for key in singan_config.flatten(singan_config.default_mapping())}
    if hint := singan_config.nearest(word, by_leaf):
        return f" (did you mean config.{by_leaf[re.findall(chr(39) + '(.*)' + chr(39), hint)[0]]}?)"
    return ""


def _unreadable_config(error: OSError) -> str:
    """The text where an OSError says that the config file could not be loaded, else ''.

    ml_collections keeps such an error back until the config is used, in main or by an override.
    """
    if "onfiguration is not available" not in str(error):
        return ""
    file = _config_file(sys.argv)
    if not os.path.exists(file):
        return studies.no_such_file("config", file, "config.py")
    return f"--config={file} could not be loaded: {error.__cause__ or error}"


def _broken_config(error: BaseException) -> str:
    """The text for an exception that the config file's own code raised."""
    file = _config_file(sys.argv)
    what = described(error)
    if isinstance(error, SyntaxError):
        return f"the config file {error.filename or file}, line {error.lineno}: {error.msg}"
    if isinstance(error, AttributeError) and "'get_config'" in str(error):
        return f"the config file {file} has no function get_config()"
    frames = traceback.extract_tb(error.__traceback__)
    line = next((f", line {frame.lineno}" for frame in reversed(frames) if _same_file(frame.filename, file)), "")
    return f"the config file {file}{line}: {what}"


def _same_file(a: str, b: str) -> bool:
    return os.path.abspath(a) == os.path.abspath(b)


def _with_config_file(argv: Sequence[str]) -> list[str]:
    """Returns the command line with the file of the study that --config names, where it names one."""
    if not (place := _config_place(argv)):
        return list(argv)
    before = re.match("(--?config=)?", argv[place])
    assert before  # also an empty one
    given = argv[place][before.end() :]
    return [*argv[:place], before[0] + studies.find_file(given, "config.py"), *argv[place + 1 :]]


def _config_place(argv: Sequence[str]) -> int:
    """Returns which argument holds the value of --config; 0 where none does."""
    for place, argument in enumerate(argv[1:], start=1):
        if re.match(r"--?config=", argument):
            return place
        if re.fullmatch(r"--?config", argument) and place + 1 < len(argv):
            return place + 1
    return 0


def _config_file(argv: Sequence[str]) -> str:
    """The path given by --config, without the argument that may follow its colon; '' where there is none."""
    if place := _config_place(argv):
        return re.sub("^--?config=", "", _with_config_file(argv)[place]).split(":", 1)[0]
    if "config" in FLAGS:
        return str(FLAGS["config"].default or "").split(":", 1)[0]
    return ""
