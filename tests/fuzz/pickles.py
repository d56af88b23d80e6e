"""Files of torch.save: malicious pickles, random opcodes, damaged archives. Nothing in them may run."""

import functools
import io
import os
import pickle
import pickletools
import struct
import zipfile
from pathlib import Path

from hypothesis import strategies as st

from singan.pytorch.files import MAGIC, read_pytorch
from tests.fuzz import strategies
from tests.fuzz.areas import Area
from tests.fuzz.oracle import Fault

MARK = "ran"  # the file that every malicious pickle tries to make in the folder where it is read


class _Runs:
    """Pickles as a call of something that leaves MARK behind."""

    def __init__(self, how: int):
        self._how = how

    def __reduce__(self):
        calls = [
            (os.system, (f"touch {MARK}",)),
            (exec, (f"open({MARK!r}, 'w')",)),
            (eval, (f"open({MARK!r}, 'w')",)),
            (os.mkdir, (MARK,)),
            (open, (MARK, "w")),
            (__import__, ("antigravity",)),
            (os.mkfifo, (MARK,)),
            (getattr, (str, "format")),
        ]
        return calls[self._how]


NAMES = st.sampled_from(
    [
        *("os system", "posix system", "builtins eval", "builtins exec", "subprocess Popen", "torch.load load"),
        *(
            "torch._utils _rebuild_tensor_v2",
            "collections OrderedDict",
            "torch FloatStorage",
            "torch Size",
            "numpy dtype",
        ),
        *("numpy._core.multiarray scalar", "numpy.core.multiarray _reconstruct", "_codecs encode", "codecs open"),
        *("builtins getattr", "operator attrgetter", "torch._utils _rebuild_parameter", "torch.storage UntypedStorage"),
    ]
)


@st.composite
def opcodes(draw) -> bytes:
    """A pickle of random opcodes that are mostly well formed."""
    parts = [b"\x80" + bytes([draw(st.integers(0, 5))])]
    small = st.integers(0, 4)
    for _ in range(draw(st.integers(1, 25))):
        match draw(st.integers(0, 15)):
            case 0:
                module, name = draw(NAMES).split()
                parts.append(f"c{module}\n{name}\n".encode())
            case 1:
                parts.append(
                    draw(st.sampled_from([b"(", b")", b"t", b"]", b"}", b"l", b"d", b"\x85", b"\x86", b"\x87"]))
                )
            case 2:
                parts.append(
                    draw(st.sampled_from([b"R", b"\x81", b"b", b"Q", b"s", b"u", b"a", b"e", b"0", b"2", b"1"]))
                )
            case 3:
                parts.append(b"q" + bytes([draw(small)]) + draw(st.sampled_from([b"", b"h" + bytes([draw(small)])])))
            case 4:
                parts.append(b"r" + struct.pack("<I", draw(st.sampled_from([0, 1, 2**31, 2**32 - 1]))))
            case 5:
                parts.append(b"J" + struct.pack("<i", draw(st.integers(-(2**31), 2**31 - 1))))
            case 6:
                data = draw(
                    st.one_of(
                        st.sampled_from([b"f8", b"<f4", b"O", b"storage", b"0", b"cpu", b"latin1", b"(3,)f4", b"a9"]),
                        st.binary(max_size=6),
                    )
                )
                parts.append(draw(st.sampled_from([b"X", b"B", b"T"])) + struct.pack("<I", len(data)) + data)
            case 7:
                parts.append(b"\x8a" + bytes([draw(st.integers(0, 9))]) + draw(st.binary(max_size=9)))
            case 8:
                parts.append(b"\x8b" + struct.pack("<i", draw(st.sampled_from([-1, 3, 2**31 - 1]))) + b"\x01" * 3)
            case 9:
                parts.append(
                    draw(
                        st.sampled_from(
                            [
                                b"I99\n",
                                b"I" + b"9" * 6000 + b"\n",
                                b"L9L\n",
                                b"F1e999\n",
                                b"Vx\\ud800\n",
                                b"S'x'\n",
                                b"I01\n",
                            ]
                        )
                    )
                )
            case 10:
                parts.append(b"G" + struct.pack(">d", draw(strategies.floats)))
            case 11:
                parts.append(
                    draw(
                        st.sampled_from(
                            [b"N", b"\x88", b"\x89", b"\x94", b"\x93", b"\x8f", b"P1\n", b"\x95" + b"\xff" * 8]
                        )
                    )
                )
            case 12:
                parts.append(b"]" * 3 + b"a" * 2)
            case 13:
                parts.append(draw(st.binary(min_size=1, max_size=4)))
            case 14:
                parts.append(b"(" * 300 + b"t" * 300)
            case _:
                parts.append(b"\x8c" + bytes([3]) + b"abc")
    return b"".join(parts) + draw(st.sampled_from([b".", b"", b"0."]))


class Large(bytes):
    """Bytes of which reports show the beginning."""

    def __repr__(self) -> str:
        return f"{len(self)} bytes: {bytes(self[:300])!r} ..."


@st.composite
def growth(draw) -> bytes:
    """A pickle of some 100 KB that asks for much: a value, and thousands of times what makes more of it."""
    size = draw(st.sampled_from([10, 1000, 50_000]))
    value = draw(
        st.sampled_from(
            [
                b"X" + struct.pack("<I", size) + b"a" * size,
                b"B" + struct.pack("<I", size) + b"a" * size,
                b"](" + b"N" * size + b"e",
                b"](" + b"K\1K\2\x86" * (size // 5) + b"e",
                b"(" + b"K\1" * size + b"t",
                b"(" + b"K\0" * 30 + b"t",
            ]
        )
    )
    name = draw(NAMES).replace(" ", "\n").encode()
    more = draw(
        st.sampled_from(
            [
                *(b"h\1h\0\x85R", b"h\1h\0R", b"h\1)R", b"h\0Q", b"h\0", b"h\0\x85", b"](h\0h\0e", b"}h\0h\0s"),
                *(b"h\1h\0\x85R}b", b"\x94", b"r\xff\xff\xff\xff", b"(h\0t", b"]", b"}K\1Ns", b"h\1K\2h\0\x86R"),
            ]
        )
    )
    count = (10**5) // len(more)
    return Large(b"\x80\x02](" + value + b"q\0c" + name + b"\nq\1" + more * count + b"e.")


def archive(content: bytes, storage: bytes = bytes(64), name: str = "archive/data.pkl") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr(name, content)
        file.writestr("archive/data/0", storage)
        file.writestr("archive/byteorder", "little")
    return buffer.getvalue()


def sequence(content: bytes) -> bytes:
    """The format before archives: magic, version, system, then the pickle, the keys and the storages."""
    system = {"little_endian": True, "protocol_version": 1001, "type_sizes": {}}
    parts = [pickle.dumps(value, 2) for value in (MAGIC, 1001, system)]
    return b"".join(parts) + content + pickle.dumps(["0"], 2) + struct.pack("<q", 16) + bytes(64)


@functools.cache
def tensor() -> bytes:
    """A pickle of {'w': a tensor of 16 numbers}, as torch.save writes it."""
    text = (
        b"\x80\x02}q\x00X\x01\x00\x00\x00wq\x01ctorch._utils\n_rebuild_tensor_v2\nq\x02((X\x07\x00\x00\x00storageq\x03"
    )
    text += b"ctorch\nFloatStorage\nq\x04X\x01\x00\x00\x000q\x05X\x03\x00\x00\x00cpuq\x06K\x10tq\x07Q"
    text += b"K\x00K\x04K\x04\x86q\x08"
    text += b"K\x04K\x01\x86q\t\x89ccollections\nOrderedDict\nq\n)Rq\x0btq\x0cRq\rs."
    pickletools.dis(text, out=io.StringIO())
    return text


@st.composite
def files(draw) -> bytes:
    content = draw(
        st.one_of(
            st.builds(
                lambda how, protocol: pickle.dumps({"w": _Runs(how)}, protocol), st.integers(0, 7), st.integers(0, 5)
            ),
            opcodes(),
            opcodes(),
            growth(),
            strategies.damage(tensor()),
            st.just(tensor()),
        )
    )
    wrap = draw(st.sampled_from([archive, sequence, bytes]))
    data = wrap(content)
    return Large(draw(strategies.damage(data)) if draw(st.integers(0, 3)) == 0 else data)


def use(data: bytes, folder: Path) -> None:
    path = folder / "netG.pth"
    path.write_bytes(data)
    before = os.getcwd()
    os.chdir(folder)
    try:
        read_pytorch(path)
    finally:
        ran = os.path.lexists(MARK)
        os.chdir(before)
        if ran:
            raise Fault("a pickle has run")


AREAS = [Area("PyTorch files", files(), use, 250, 2000)]
