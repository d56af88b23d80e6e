"""What a user sees of a command: exit codes, one line of error, and the config that flags make."""

import json
import pathlib
import subprocess
import sys

import pytest

from launch import cli, studies
from launch.configs import default_config, load_config
from singan import config as singan_config
from singan.errors import UserError

pytestmark = pytest.mark.processes

ROOT = pathlib.Path(__file__).resolve().parents[2]

COMMAND = '''
"""A command for tests."""
import json
import time
from absl import flags
from launch import cli
from launch.configs import load_config
from singan import config
from singan.training import ahead
from singan.errors import UserError

flags.DEFINE_string("workdir", None, "the directory of the run, for instance runs/quickstart", required=True)
flags.DEFINE_string("do", "print", "what main does")
flags.DEFINE_boolean("plan", False, "only plan")
cli.config_flag()
FLAGS = flags.FLAGS


def main(argv):
    match FLAGS.do:
        case "print":
            print(json.dumps(config.to_mapping(load_config(FLAGS.config))))
        case "user":
            raise UserError("line one\\n  line two")
        case "interrupt":
            raise KeyboardInterrupt
        case "bug":
            raise RuntimeError("a bug")
        case "file":
            open("not-there.txt")
        case "stop ahead" | "bug ahead":
            thread = ahead.AheadThread()
            thread.submit(lambda: (time.sleep(20), print("waited")))
            while not ahead.at_work():
                time.sleep(0.01)
            thread.shutdown(wait=False, cancel_futures=True)
            if FLAGS.do == "bug ahead":
                raise RuntimeError("a bug")
            print("stopped")
            return 75
        case "arguments":
            print(argv[1:])
        case code:
            return int(code)


if __name__ == "__main__":
    cli.run(main, positional=FLAGS["do"].default == "arguments")
'''
CONFIG = """
from launch.configs import default_config


def get_config():
    config = default_config()
    config.seed = 3
    return config
"""


@pytest.fixture
def command(tmp_path):
    """Runs the command in tmp_path; config.py is there."""
    (tmp_path / "command.py").write_text(COMMAND)
    (tmp_path / "config.py").write_text(CONFIG)

    def call(*arguments, workdir=True):
        always = ["--workdir=run"] if workdir else []
        return subprocess.run(
            [sys.executable, "command.py", *always, *arguments],
            cwd=tmp_path,
            env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
        )

    return call


def config_of(done):
    assert done.returncode == 0, done.stderr
    return singan_config.flatten(json.loads(done.stdout))


def assert_one_error(done, *parts, code=2):
    assert done.returncode == code, (done.returncode, done.stderr)
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stdout == ""
    for part in parts:
        assert part in done.stderr, done.stderr


@pytest.mark.parametrize("code", [0, 1, 75])
def test_main_gives_the_exit_code(command, code):
    done = command(f"--do={code}")
    assert (done.returncode, done.stderr) == (code, "")


def test_a_user_error_is_one_line_and_debug_shows_where(command):
    assert_one_error(command("--do=user"), "error: line one line two\n")
    done = command("--do=user", "--debug")
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert done.stderr.endswith("error: line one line two\n")


def test_an_interrupt_is_130_and_a_bug_keeps_its_traceback(command):
    done = command("--do=interrupt")
    assert done.returncode == 130
    assert len(done.stderr.splitlines()) == 1
    for do, text in (("bug", "RuntimeError: a bug"), ("file", "not-there.txt")):
        done = command(f"--do={do}")
        assert done.returncode == 1
        assert "Traceback" in done.stderr
        assert text in done.stderr


def test_an_end_waits_for_nothing_that_is_compiled_ahead(command):
    done = command("--do=stop ahead")
    assert (done.returncode, done.stdout, done.stderr) == (75, "stopped\n", "")
    done = command("--do=bug ahead")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith("RuntimeError: a bug\n")
    assert done.stderr.count("Traceback") == 1


def test_help_is_no_error_and_lists_the_shared_flags(command):
    done = command("--help")
    assert done.returncode == 0
    for name in ("--config", "--workdir", "debug"):
        assert name in done.stdout


def test_flag_errors_are_one_line(command):
    assert_one_error(command(workdir=False), "error: --workdir is needed: the directory of the run")
    assert_one_error(command("--wrokdir=x", workdir=False), "--wrokdir", "did you mean 'workdir'?")
    assert_one_error(command("--config=config.py", "--config.train.chunk=many"), "config.train.chunk=many")
    assert_one_error(command("--config.train.chunk=3"), "--config.train.chunk", "--config=FILE")
    assert_one_error(command(), "--config=FILE")


def test_leftover_arguments_are_named(command):
    done = command("--config=config.py", "--config.data.group_by_shape", "False")
    assert_one_error(done, "'False'", "--config.data.group_by_shape=False")
    assert_one_error(command("--plan", "false"), "--plan=false")
    assert_one_error(command("--plan=true", "stray"), "'stray'", "--name=value")


def test_commands_that_take_arguments_get_them(command, tmp_path):
    path = tmp_path / "command.py"
    path.write_text(path.read_text().replace('"do", "print"', '"do", "arguments"'))
    done = command("a", "--plan", "b")
    assert (done.returncode, done.stdout) == (0, "['a', 'b']\n")


def test_an_unknown_key_suggests_the_nearest(command):
    for override, nearest in {
        "train.chnk=3": "config.train.chunk",
        "trian.chunk=3": "config.train.chunk",
        "chunk=3": "config.train.chunk",
        "steps_per_scale=3": "config.train.steps_per_scale",
        "data.pth=x": "config.data.path",
    }.items():
        done = command("--config=config.py", f"--config.{override}")
        assert_one_error(done, "is not a config key", f"(did you mean {nearest}?)")
    done = command("--config=config.py", "--noconfig.data.group_by_shpe")
    assert_one_error(done, "(did you mean config.data.group_by_shape?)")
    assert_one_error(command("--config=config.py", "--config.seed.x=1"), "config.seed.x is not a config key")


@pytest.mark.parametrize("more", [[], ["--config.seed=1"]])
@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (None, ["--config=other.py", "no such file"]),
        ("def get_config(:\n", ["other.py", "line 1"]),
        ("import nothing_like_it\n", ["other.py", "line 1", "nothing_like_it"]),
        ("x = 1\n", ["other.py", "no function get_config()"]),
        ("def get_config():\n  a = {}\n  return a.b\n", ["other.py", "line 3", "'b'"]),
        ("def get_config():\n  return {}['k']\n", ["other.py", "line 2", "k"]),
        ("def get_config():\n  raise ValueError('two\\nlines')\n", ["other.py", "line 2", "lines"]),
        (CONFIG.replace("seed = 3", "seed = 'a'"), ["other.py", "seed"]),
        (CONFIG.replace("config.seed = 3", "config.train.chnk = 3"), ["train.chnk", "did you mean 'chunk'?"]),
        (CONFIG.replace("config.seed = 3", "open('absent.txt')"), ["other.py", "absent.txt"]),
    ],
)
def test_a_config_file_that_does_not_work_is_one_line(command, tmp_path, content, parts, more):
    if content is not None:
        (tmp_path / "other.py").write_text(content)
    assert_one_error(command("--config=other.py", *more), *parts)


def test_a_config_file_without_return(command, tmp_path):
    (tmp_path / "other.py").write_text("def get_config():\n  pass\n")
    done = command("--config=other.py")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: --config gave no config")


def test_overrides_reach_the_config(command):
    flat = config_of(
        command(
            "--config=config.py",
            "--config.train.chunk=7",
            "--config.pyramid.ratio=0.5",
            "--config.data.path=a/b",
            "--config.data.group_by_shape",
            "--config.data.channels=t1,t2,flair",
            "--config.data.background=none",
            "--config.data.value_range=0,4095",
            "--config.method.padding=zero",
            "--config.method.normalized_conv_bias=true",
        )
    )
    expected = {
        "seed": 3,
        "train.chunk": 7,
        "pyramid.ratio": 0.5,
        "data.path": "a/b",
        "data.group_by_shape": True,
        "data.channels": ("t1", "t2", "flair"),
        "data.background": "none",
        "data.value_range": (0.0, 4095.0),
        "method.padding": "zero",
        "method.normalized_conv_bias": True,
        "method.resize_border": "mirror",
    }
    assert {key: flat[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0.0),
        ("-1.5", -1.5),
        ("None", "none"),
        ("auto", "auto"),
        ("0,0,255", (0.0, 0.0, 255.0)),
        ("(1, 2)", (1.0, 2.0)),
    ],
)
def test_a_background_is_a_word_a_number_or_numbers(command, text, value):
    assert config_of(command("--config=config.py", f"--config.data.background={text}"))["data.background"] == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("t1", ("t1",)),
        ("t1-ce,T2", ("t1-ce", "T2")),
        ("1,2", ("1", "2")),
        ("1", ("1",)),
        ("", ()),
        ("('a','b')", ("a", "b")),
    ],
)
def test_channels_are_names(command, text, value):
    assert config_of(command("--config=config.py", f"--config.data.channels={text}"))["data.channels"] == value


def test_what_fits_no_type_is_one_line(command):
    assert_one_error(command("--config=config.py", "--config.data.value_range=0"), "config.data.value_range=0")


def test_the_default_config_is_the_default_of_singan():
    assert load_config(default_config()) == singan_config.parse({})
    config = default_config().lock()
    config.preset = "reference"
    assert load_config(config) == singan_config.parse({"preset": "reference"})


def test_config_files_may_set_every_kind_of_value():
    config = default_config().lock()
    config.data.channels = ("a", "b")
    config.data.background = 0
    config.data.value_range = [0, 1]
    config.method.normalized_conv_bias = False
    config.pyramid.ratio = 0.5
    data = load_config(config).data
    assert (data.channels, data.background, data.value_range) == (("a", "b"), 0.0, (0.0, 1.0))
    with pytest.raises(TypeError):
        config.method.normalized_conv_bias = "yes"
    with pytest.raises(AttributeError):
        config.data.chanels = ()


def test_load_config_takes_any_mapping_and_refuses_other_things():
    assert load_config({"seed": 5, "data": {"channels": "a, b"}}).data.channels == ("a", "b")
    for nothing in (None, 3):
        with pytest.raises(UserError, match="get_config"):
            load_config(nothing)


def test_a_study_is_a_config_by_its_name_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    there = str(ROOT / "experiments/multimodal_mri/config.py")
    there_too = str(ROOT / "experiments/quickstart/config.py")
    assert studies.find_file("multimodal_mri:small", "config.py") == f"{there}:small"
    assert studies.find_file("experiments/multimodal_mri/config.py", "config.py") == there
    assert studies.find_file("../README.md", "config.py") == "../README.md"
    (tmp_path / "quickstart").write_text("")  # a file of one's own goes first
    assert studies.find_file("quickstart", "config.py") == "quickstart"
    (tmp_path / "quickstart").unlink()
    (tmp_path / "quickstart").mkdir()
    assert studies.find_file("quickstart", "sweep.py") == str(ROOT / "experiments/quickstart/sweep.py")
    assert cli.ConfigFile().parse("quickstart").to_dict() == cli.ConfigFile().parse(there_too).to_dict()
    with pytest.raises(UserError, match=r"^--config=quikstart: there is no such file \(did you mean 'quickstart'\?\)"):
        cli.ConfigFile().parse("quikstart")


def test_a_tuple_of_any_length_may_be_one_number():
    config = default_config()
    for given, expected in (("0.5", (0.5,)), ("1,0.5", (1.0, 0.5)), (0.5, (0.5,)), ("()", ()), (None, ())):
        config.train.step_shares = given
        assert load_config(config).train.step_shares == expected
