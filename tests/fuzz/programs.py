"""Sweep files and config files, which are code: whatever they do is told in one line that names them."""

from pathlib import Path

from hypothesis import strategies as st

from launch.sweep.files import load_sweep
from launch.sweep.plan import plan_sweep
from singan.config import default_mapping
from tests.fuzz import strategies
from tests.fuzz.areas import Area

VALUES = st.one_of(strategies.values, strategies.scalars).map(
    lambda value: repr(value).replace("nan", "float('nan')").replace("inf", "float('inf')")
)
BODIES = st.one_of(
    st.sampled_from(
        [
            *(
                "pass",
                "return 1",
                "return None",
                "return {}",
                "return []",
                "return [1]",
                "return [[]]",
                "return [{}]",
                "yield {}",
            ),
            *(
                "return get_sweep()",
                "raise ValueError('a\\nb')",
                "raise SystemExit(3)",
                "raise SystemExit",
                "import nothing_there",
            ),
            *(
                "raise KeyError",
                "raise Exception('x' * 9999)",
                "raise Exception('\\x1b[31m')",
                "return product({})",
                "1 / 0",
            ),
            *(
                "return product({'seed': range(0)})",
                "return zip_({'seed': [1, 2], 'preset': ['reference']}, {'train.chunk': [1, 2, 3]})",
            ),
            *(
                "return sample({'seed': [1]}, 9)",
                "return sample({'seed': uniform(1, 0)}, 1)",
                "return sample({'seed': 1}, -1)",
            ),
            *(
                "return product({'seed': [1, 1]})",
                "return product({'sede': [1]})",
                "return chain(1)",
                "return product('abc')",
            ),
            *(
                "return [{'seed': 1}, {'seed': 1}]",
                "return [{1: 2}]",
                "return product({'seed': integers(0, 5)})",
                "assert False",
            ),
            *(
                "return uniform('a', 1)",
                "return sample({'seed': log_uniform(-1, 1)}, 2)",
                "return sample(1, 2)",
                "quit()",
            ),
            *(
                "return [{'data.path': 'a/b' * 400}]",
                "return product({'tracking.name': ['a', '../b', '/']})",
                "raise Odd()",
            ),
        ]
    ),
    st.builds(lambda key, value: f"return product({{{key!r}: {value}}})", st.sampled_from(strategies.KEYS), VALUES),
    st.builds(
        lambda key, value: f"return [{{{key!r}: {value}}}]",
        st.one_of(strategies.text, st.sampled_from(strategies.KEYS)),
        VALUES,
    ),
)
HEADS = st.sampled_from(
    ["", "CLOUD = 3\n", "CLOUD = {'spot': 'yes'}\n", "raise RuntimeError('top')\n", "x = (\n", "\x00", "def", "\t x"]
)
START = """from launch.sweep.language import *


class Odd(Exception):
    def __str__(self):
        raise ValueError("no text")


"""


def use_sweep(example: tuple[str, str], folder: Path) -> None:
    head, body = example
    path = folder / "sweep.py"
    path.write_text(f"{START}{head}def get_sweep():\n    {body}\n", encoding="utf-8", errors="surrogatepass")
    runs, _ = load_sweep(str(path))
    plan_sweep("config.py", default_mapping(), {}, runs, str(folder / "root"))


AREAS = [Area("sweep files", st.tuples(st.one_of(st.just(""), st.just(""), HEADS), BODIES), use_sweep, 80, 500)]
