"""Strategies of bad and odd inputs, which know nothing of what is done with them."""

from typing import Any

import numpy as np
from hypothesis import strategies as st

from singan.config import default_mapping, flatten

KEYS = sorted(flatten(default_mapping()))
ODD_TEXT = [
    *("", " ", "none", "auto", "None", "True", "0", "-1", "1e400", "nan", "-inf", "0x10", "1,2", "1,,2", "(1, 2", "[]"),
    *(
        "\x00",
        "a\nb",
        "a\r\nb",
        "\x1b[31mred\x1b[0m",
        "\u202egnp.exe",
        "\ud800",
        "é" * 300,
        "x" * 5000,
        "../../etc",
        "/",
    ),
    *(
        "<script>alert(1)</script>",
        "{{images}}",
        "%s%n",
        "$(touch x)",
        "~",
        "-rf",
        "--debug",
        "日本 語",
        "\ufeffa",
        "'\"",
    ),
]
ODD_INTEGERS = [0, 1, -1, 2, 3, 255, 256, 2**31 - 1, 2**31, -(2**31) - 1, 2**32, 2**63, 2**64, 10**40, -(10**40)]
ODD_FLOATS = [0.0, -0.0, 0.5, 1e-320, 1e-45, 1e38, 3.5e38, 1e300, -1e300, float("nan"), float("inf"), -float("inf")]

text = st.one_of(st.sampled_from(ODD_TEXT), st.text(max_size=30))
integers = st.one_of(st.sampled_from(ODD_INTEGERS), st.integers(-1000, 1000))
floats = st.one_of(st.sampled_from(ODD_FLOATS), st.floats())
scalars: st.SearchStrategy[Any] = st.one_of(st.none(), st.booleans(), integers, floats, text)
values: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.lists(inner, max_size=3).map(tuple), st.dictionaries(text, inner, max_size=3)
    ),
    max_leaves=6,
)
# What JSON can hold, NaN and infinities too, which Python's reader takes.
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), integers, floats, text),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(text, inner, max_size=3)),
    max_leaves=5,
)

DTYPES = [
    *("bool", "u1", "i1", "u2", ">i2", "i4", "u4", "i8", "u8", "f2", "f4", ">f8", "f8", "g"),
    *("c8", "c16", "M8[s]", "m8[ns]", "U3", "S4", "O", "V8", "i4,f4"),
]
NUMBERS = ["u1", "u2", "i2", "f2", "f4", "f8", "bool"]
SPECIAL = [0.0, -0.0, 1.0, -1.0, 255.0, 65535.0, 1e-40, 1e30, 1e38, 1e300, np.nan, np.inf, -np.inf, 0.1]


@st.composite
def shapes(draw) -> tuple[int, ...]:
    """Mostly of images; sometimes of nothing, of lines, of volumes and worse."""
    sizes = st.sampled_from([0, 1, 2, 3, 5, 16, 17, 20, 33])
    common = [(1, 1), (20, 16), (20, 16, 1), (20, 16, 3), (16, 20, 16), (20, 16, 17), (3, 20, 16), (1, 1, 1), (64, 1)]
    return draw(st.one_of(st.sampled_from(common), st.lists(sizes, max_size=5).map(tuple)))


@st.composite
def arrays(draw) -> np.ndarray:
    """Arrays of any type and shape: constant, smooth, random, with special values at odd places."""
    dtype = np.dtype(draw(st.one_of(st.sampled_from(NUMBERS), st.sampled_from(DTYPES))))
    shape = draw(st.one_of(st.sampled_from([(20, 16), (20, 16, 3)]), shapes()))
    kind = draw(st.sampled_from(["random", "ramp", "constant", "special"]))
    rng = np.random.default_rng(draw(st.integers(0, 9)))
    size = int(np.prod(shape))
    flat = {
        "constant": np.full(size, draw(st.sampled_from(SPECIAL))),
        "ramp": np.arange(size, dtype=np.float64),
        "random": rng.normal(0, draw(st.sampled_from([1e-30, 1.0, 1e5])), size),
        "special": rng.choice(SPECIAL, size),
    }[kind]
    if dtype.kind in "OVUS" or dtype.names:
        array = np.zeros(shape, dtype)
        if dtype.kind == "O" and size:
            array.flat[0] = {"code": print}
        return array
    with np.errstate(all="ignore"):
        if dtype.kind in "Mm":
            return (
                np.nan_to_num(flat, nan=0, posinf=9, neginf=-9)
                .clip(-1e9, 1e9)
                .astype(np.int64)
                .astype(dtype)
                .reshape(shape)
            )
        if dtype.kind in "iub":
            limits = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
            flat = np.nan_to_num(flat).clip(limits[0] / 2, limits[1] / 2)
        return flat.astype(dtype).reshape(shape)


NAMES = st.one_of(
    st.sampled_from(
        [
            *(
                "a",
                "a b",
                "-rf",
                "--config",
                "é",
                "日本",
                "a\nb",
                "a\tb",
                "\x1b[31m",
                "a'b\"",
                "con",
                "aux",
                "..",
                "...",
                "x" * 200,
            ),
            *(
                "<script>alert(1)</script>",
                "%2e%2e%2f",
                "$HOME",
                "`id`",
                "a;b",
                "a&b",
                "\u202ea",
                "\udcff",
                "{0}",
                "*",
                "[a]",
                "?",
            ),
        ]
    ),
    st.text(st.characters(exclude_characters="/\x00", exclude_categories=("Cs",)), min_size=1, max_size=20),
)


@st.composite
def damage(draw, data: bytes) -> bytes:
    """A file's bytes, cut off, changed here and there, doubled, blown up or replaced."""
    how = draw(st.sampled_from(["cut", "flip", "zero", "splice", "append", "double", "empty", "swap", "noise"]))
    size = len(data)
    place = draw(st.integers(0, max(size - 1, 0)))
    match how:
        case "cut":
            return data[:place]
        case "flip":
            changed = bytearray(data)
            # Headers are where a changed byte means most.
            for at in draw(
                st.lists(
                    st.one_of(st.integers(0, min(400, size - 1)), st.integers(0, size - 1)), min_size=1, max_size=8
                )
            ):
                changed[at] = draw(st.integers(0, 255))
            return bytes(changed)
        case "zero":
            length = draw(st.integers(1, 64))
            return data[:place] + bytes(length) + data[place + length :]
        case "splice":
            return data[:place] + draw(st.binary(max_size=40)) + data[place:]
        case "append":
            return data + draw(st.binary(min_size=1, max_size=200))
        case "double":
            return data + data
        case "empty":
            return b""
        case "swap":
            at = draw(st.integers(0, max(size - 9, 0)))
            number = draw(st.sampled_from([0, 1, 0x7F, 0xFF, 2**15, 2**16 - 1, 2**31 - 1, 2**32 - 1, 2**63 - 1]))
            order = draw(st.sampled_from(["little", "big"]))
            length = max(1, (number.bit_length() + 7) // 8)
            return data[:at] + number.to_bytes(length, order) + data[at + length :]
        case _:
            return draw(st.binary(max_size=600))


@st.composite
def damaged_json(draw, value: Any, depth: int = 0) -> Any:
    """A JSON value in which one place, at any depth, is removed, renamed, doubled or replaced."""
    if isinstance(value, dict) and value and depth < 7 and draw(st.integers(0, 5)):
        key = draw(st.sampled_from(sorted(value)))
        match draw(st.integers(0, 9)):
            case 0:
                return {k: v for k, v in value.items() if k != key}
            case 1:
                return {(draw(text) if k == key else k): v for k, v in value.items()}
            case 2:
                return {**value, draw(text): draw(json_values)}
            case _:
                return {**value, key: draw(damaged_json(value[key], depth + 1))}
    if isinstance(value, list) and value and depth < 7 and draw(st.integers(0, 5)):
        at = draw(st.integers(0, len(value) - 1))
        match draw(st.integers(0, 9)):
            case 0:
                return value[:at] + value[at + 1 :]
            case 1:
                return value[: at + 1] + value[at:]
            case 2:
                return []
            case _:
                return [*value[:at], draw(damaged_json(value[at], depth + 1)), *value[at + 1 :]]
    return draw(json_values)
