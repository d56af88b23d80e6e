"""read_pytorch: what torch.save writes comes back equal; what is damaged or would run code is refused, not executed."""

import collections
import contextlib
import io
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from singan.errors import UserError
from singan.pytorch.files import MAGIC, MAX_EXPANDED_BYTES, read_pytorch

ROOT = Path(__file__).resolve().parents[3]
FORMATS = {"zip": True, "before_1_6": False}


@pytest.fixture(scope="session")
def torch():
    return pytest.importorskip("torch")


@pytest.fixture(params=FORMATS)
def write(request, torch, tmp_path):
    """Writes a value through torch.save, in one format and then the other; returns the path."""

    def save(value, name="file.pth", **options):
        torch.save(value, tmp_path / name, _use_new_zipfile_serialization=FORMATS[request.param], **options)
        return tmp_path / name

    return save


def assert_equal(ours, theirs, torch):
    """Compares values, types, order and structure, with PyTorch's own numpy() as the measure of a tensor."""
    if torch.is_tensor(theirs):
        expected = theirs.detach()
        expected = (expected.float() if expected.dtype == torch.bfloat16 else expected).numpy()
        assert type(ours) is np.ndarray
        assert (ours.dtype, ours.shape) == (expected.dtype, expected.shape)
        assert ours.flags.c_contiguous
        assert ours.flags.writeable
        np.testing.assert_array_equal(ours, expected)
    elif isinstance(theirs, dict):
        assert isinstance(ours, dict)
        assert list(ours) == list(theirs)
        for key, value in theirs.items():
            assert_equal(ours[key], value, torch)
    elif isinstance(theirs, list | tuple):
        assert type(ours) is (tuple if isinstance(theirs, tuple) else list)
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert_equal(one, other, torch)
    else:
        assert type(ours) is type(theirs)
        assert ours == theirs


@pytest.mark.parametrize(
    "name",
    [
        *("float32", "float64", "float16", "bfloat16", "bool", "complex64"),
        *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
    ],
)
def test_all_types(torch, write, name):
    values = torch.from_numpy(np.random.default_rng(0).normal(0, 50, (3, 5))).abs().to(getattr(torch, name))
    value = [values, values[1:, ::2], values.T, values[2, 3]]
    assert_equal(read_pytorch(write(value)), value, torch)


def test_all_views_of_one_storage(torch, write):
    base = torch.arange(120, dtype=torch.float32).reshape(2, 3, 4, 5)
    views = {
        "transposed": base.permute(3, 0, 2, 1),
        "strided": base[:, 1:, ::2, 1::3],
        "offset": base[1, 2, 3],
        "number": base[1, 2, 3, 4],
        "expanded": base[:1, :1].expand(7, 3, 4, 5),
        "empty": base[:0],
        "whole": base,
    }
    assert_equal(read_pytorch(write(views)), views, torch)


def test_containers_and_numbers(torch, write):
    value = {
        "state": collections.OrderedDict(a=torch.ones(2), b=torch.zeros(())),
        "list": [1, -(2**70), 2.5, True, None, "text", "ü", b"bytes", (), (1,), (1, 2, 3, 4), [], {}],
        3: [np.float64(0.25), np.float32(-1.5), np.int64(7), np.bool_(True), torch.tensor(2.0)],
        "size": torch.ones(2, 3).shape,
        "parameter": torch.nn.Parameter(torch.full((2, 2), 3.0)),
    }
    theirs = {**value, "size": (2, 3)}
    for protocol in (2, 3, 4, 5):
        assert_equal(read_pytorch(write(value, pickle_protocol=protocol)), theirs, torch)


def test_state_dicts_optimisers_and_shared_tensors(torch, write):
    network = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3))
    optimiser = torch.optim.Adam(network.parameters())
    network(torch.ones(1, 2, 5, 5)).sum().backward()
    optimiser.step()
    shared = torch.ones(3)
    value = {"net": network.state_dict(), "adam": optimiser.state_dict(), "twice": [shared, shared]}
    assert_equal(read_pytorch(write(value)), value, torch)


def test_tensors_saved_from_a_gpu(torch, tmp_path):
    value = [torch.arange(4.0), torch.ones(2)]
    torch.save(value, tmp_path / "file.pth", _use_new_zipfile_serialization=False)
    data = (tmp_path / "file.pth").read_bytes()
    there = data.replace(b"X\3\0\0\0cpu", b"X\6\0\0\0cuda:0")
    assert there != data
    (tmp_path / "file.pth").write_bytes(there)
    assert_equal(read_pytorch(tmp_path / "file.pth"), value, torch)


def rewritten(path, change, **options):
    """Writes a zip file again with its entries changed."""
    with zipfile.ZipFile(path) as archive:
        entries = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in change(entries).items():
            archive.writestr(name, content)
    return path


def test_big_endian_archives(torch, tmp_path):
    torch.save(torch.arange(5.0), tmp_path / "file.pth")
    swapped = np.arange(5, dtype=">f4").tobytes()

    def change(entries):
        (prefix,) = {name.split("/")[0] for name in entries}
        return {**entries, f"{prefix}/byteorder": b"big", f"{prefix}/data/0": swapped}

    np.testing.assert_array_equal(
        read_pytorch(rewritten(tmp_path / "file.pth", change)), np.arange(5, dtype=np.float32)
    )


def test_archives_older_than_the_byte_order_entry(torch, tmp_path):
    torch.save(torch.arange(5.0), tmp_path / "file.pth")
    path = rewritten(tmp_path / "file.pth", lambda old: {name: old[name] for name in old if "byteorder" not in name})
    np.testing.assert_array_equal(read_pytorch(path), np.arange(5, dtype=np.float32))


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = os.fspath(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_code_is_refused_by_name_and_not_run(torch, write, tmp_path):
    path = write({"weights": torch.ones(2), "extra": [Evil(tmp_path / "was_here")]})
    with pytest.raises(UserError, match=r"file\.pth holds (posix|nt)\.mkdir: only") as caught:
        read_pytorch(path)
    assert "\n" not in str(caught.value)
    assert "state_dict()" in str(caught.value)
    assert not (tmp_path / "was_here").exists()
    # The file was dangerous indeed.
    torch.load(path, weights_only=False)
    assert (tmp_path / "was_here").exists()


@pytest.mark.parametrize(
    "name", ["builtins.eval", "os.system", "numpy.load", "torch.load", "torch.hub.load", "builtins.dict"]
)
def test_only_the_table_can_be_named(write, tmp_path, name):
    path = tmp_path / "file.pth"
    module, function = name.rsplit(".", 1)
    call = f"c{module}\n{function}\n(X\5\0\0\0printtR.".encode()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + call)
    with pytest.raises(UserError, match=f"holds {name}"):
        read_pytorch(path)


def test_names_that_are_no_words_stay_on_one_line(tmp_path):
    path = pickled(b"X\3\0\0\0a\nbX\2\0\0\0\xc3\xa9\x93.", tmp_path / "file.pth")
    with pytest.raises(UserError, match=r"file\.pth holds a\\nb\.\\xe9: only"):
        read_pytorch(path)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_whole_modules_are_refused(torch, write):
    path = write([torch.nn.Conv2d(1, 1, 3)])
    with pytest.raises(UserError, match=r"Gs\.pth holds (torch\.nn\.modules\.conv\.Conv2d|a pickled module)"):
        read_pytorch(path.rename(path.with_name("Gs.pth")))


def test_every_truncation_is_one_clear_error(torch, write):
    path = write({"a": torch.arange(40.0), "b": [torch.ones(3, dtype=torch.int64), np.float32(2)]})
    data = path.read_bytes()
    for length in [*range(0, len(data), 37), len(data) - 1]:
        path.write_bytes(data[:length])
        with pytest.raises(
            UserError, match=r"file\.pth is damaged or no file of torch\.save \(.+\): copy it again"
        ) as caught:
            read_pytorch(path)
        assert len(str(caught.value).splitlines()) == 1


def test_flipped_bytes_never_raise_anything_else(torch, write):
    path = write({"a": torch.arange(6.0), "b": [torch.ones(3, dtype=torch.int64), np.float32(2)]})
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(0)
    for position in rng.choice(len(data), 300, replace=False):
        changed = bytearray(data)
        changed[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        with contextlib.suppress(UserError):  # it need not be noticed: a value may have become another one
            read_pytorch(path)


def pickled(text, path):
    """Writes an archive whose data.pkl is `text`."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + text)
        archive.writestr("archive/data/0", bytes(16))
    return path


STORAGE = b"(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0" + b"0X\3\0\0\0cpuK%cNtQ"


def tensor(count, offset, size, stride):
    """A pickled tensor of the storage '0' of 16 bytes; numbers are opcodes."""
    head = b"ctorch._utils\n_rebuild_tensor_v2\n((X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0" + b"0X\3\0\0\0cpu"
    return head + count + b"tQ" + offset + size + stride + b"\x89}tR."


def number(value):
    return b"J" + struct.pack("<i", value)


def pair(*values):
    return b"(" + b"".join(map(number, values)) + b"t"


@pytest.mark.parametrize(
    "content",
    {
        "beyond_the_storage": tensor(number(4), number(1), pair(4), pair(1)),
        "stride_beyond_the_storage": tensor(number(4), number(0), pair(2, 2), pair(3, 1)),
        "longer_than_its_bytes": tensor(number(5), number(0), pair(4), pair(1)),
        "negative_stride": tensor(number(4), number(3), pair(2), pair(-1)),
        "negative_size": tensor(number(4), number(0), pair(-1), pair(1)),
        "negative_offset": tensor(number(4), number(-1), pair(1), pair(1)),
        "ranks_that_differ": tensor(number(4), number(0), pair(2, 2), pair(1)),
        "expanded_to_terabytes": tensor(number(4), number(0), pair(2**20, 2**20), pair(0, 0)),
        "memo_of_gigabytes": b"]r\xff\xff\xff\xff" + b"jJ\0\0\0.",
        "text_of_gigabytes": b"X\xff\xff\xff\x7fabc.",
        "bytes_of_terabytes": b"\x8e\0\0\0\0\0\1\0\0abc.",
        "key_that_takes_for_ever": b"}K\1" + b"q\0h\0\x86" * 60 + b"K\1s.",
        "pairs_that_take_for_ever": b"ccollections\nOrderedDict\n(](K\1" + b"q\0h\0\x86" * 60 + b"K\1taetR.",
        "name_that_takes_for_ever": b"K\1" + b"q\0h\0\x86" * 60 + b"K\1\x93.",
        "integers_of_one_hash": b"}("
        + b"".join(b"\x8a\x0a" + (k * (2**61 - 1)).to_bytes(10, "little") + b"N" for k in range(1, 20000))
        + b"u.",
        "tensor_of_1000_axes": tensor(number(4), number(0), pair(*[1] * 1000), pair(*[0] * 1000)),
        "object_array": b"cnumpy\ndtype\n(X\2\0\0\0O8tR.",
        "no_mark": b"K\1t.",
        "empty_stack": b"0.",
        "two_values": b"K\1K\2.",
        "append_to_a_number": b"K\1K\2a.",
        "call_of_a_number": b"K\1)R.",
        "state_of_a_number": b"K\1}b.",
        "numpy_scalar_of_nothing": b"cnumpy.core.multiarray\nscalar\n(K\1K\1tR.",
        "other_storage": b"(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0" + b"9X\3\0\0\0cpuK\1tQ.",
    }.items(),
    ids=lambda item: item[0],
)
def test_bombs_and_nonsense_are_one_error(tmp_path, content):
    with pytest.raises(UserError, match=r"is damaged or no file of torch\.save") as caught:
        read_pytorch(pickled(content[1], tmp_path / "file.pth"))
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 400 + len(str(tmp_path))


TEXT = b"X" + struct.pack("<I", 50_000) + b"a" * 50_000 + b"q\0"
LIST = b"](" + b"N" * 50_000 + b"eq\0"
ITEMS = b"](" + b"K\1K\2\x86q\1" + b"h\1" * 25_000 + b"eq\0"
CALL = {name: b"c" + name.replace(b" ", b"\n") + b"\nq\2" for name in (b"_codecs encode", b"torch Size")}
AGAIN = b"h\2h\0\x85R"  # another call with the same text or list


BOMBS = {
    "text_encoded_again_and_again": TEXT + CALL[b"_codecs encode"] + b"](" + AGAIN * 12_000 + b"e",
    "list_copied_again_and_again": LIST + CALL[b"torch Size"] + b"](" + AGAIN * 12_000 + b"e",
    "pairs_again_and_again": ITEMS + b"ccollections\nOrderedDict\nq\2](" + AGAIN * 12_000 + b"e",
    "arguments_again_and_again": b"(" + b"N" * 50_000 + b"tq\0ctorch._utils\n_rebuild_parameter\nq\2]("
    + b"h\2h\0R" * 12_000 + b"e",
    "ids_again_and_again": b"ctorch\nFloatStorage\nq\3(X\7\0\0\0storageh\3X\1\0\0\0" + b"0NK\1"
    + b"N" * 50_000 + b"tq\0](" + b"h\0Q" * 12_000 + b"e",
    "dicts": b"](" + b"}K\1Ns" * 22_000 + b"e",
    "dicts_of_one_name": b"K\1q\0](" + b"}h\0Ns" * 22_000 + b"e",
    "ordered_dicts": b"ccollections\nOrderedDict\nq\2](" + b"h\2)R" * 27_000 + b"e",
    "lists": b"](" + b"]" * 110_000 + b"e",
    "lists_in_lists": b"]" * 55_000 + b"a" * 54_999,
    "marks": b"(" * 55_000 + b"t" * 55_000,
    "tuples_in_tuples": b")" + b"\x85" * 110_000,
    "memo": b"N" + b"\x94" * 110_000,
    "memo_of_large_numbers": b"N" + b"".join(b"r" + struct.pack("<I", 2**32 - n) for n in range(1, 22_000)),
    "wide_text": b"X" + struct.pack("<I", 110_000) + "😀".encode() + b"a" * 109_996,
    "types": b"cnumpy\ndtype\nq\2](" + b"h\2X\2\0\0\0f8\x85R" * 10_000 + b"e",
    "empty_tensors": b"](" + tensor(number(4), number(0), pair(0), pair(1)).replace(b"tR.", b"tq\1R")
    + b"ctorch._utils\n_rebuild_tensor_v2\nq\2" + b"h\2h\1R" * 22_000 + b"e",
}  # fmt: skip

MEASURE = """
import sys, time, tracemalloc
from singan.errors import UserError
from singan.pytorch.files import read_pytorch

for path in sys.argv[1:]:
    before = time.process_time()
    tracemalloc.start()
    try:
        read_pytorch(path)
    except UserError:
        pass  # what takes little may also be read
    print(tracemalloc.get_traced_memory()[1], time.process_time() - before)
    tracemalloc.stop()
"""


@pytest.mark.slow
def test_small_files_take_little_memory_and_time(tmp_path):
    """In a process of its own: tests check the types of every call, which takes longer than the calls."""
    head = b"".join(pickle.dumps(item, 2) for item in (MAGIC, 1001, {"little_endian": True}))
    tail = pickle.dumps(["0"], 2) + struct.pack("<q", 4) + bytes(16)
    paths = []
    for name, content in BOMBS.items():
        paths += [pickled(content + b".", tmp_path / f"{name}.zip.pth"), tmp_path / f"{name}.older.pth"]
        paths[-1].write_bytes(head + b"\x80\2" + content + b"." + tail)
        assert paths[-1].stat().st_size < 180_000
    command = [sys.executable, "-c", MEASURE, *map(str, paths)]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=600).stdout
    for path, line in zip(paths, out.splitlines(), strict=True):
        peak, seconds = map(float, line.split())
        assert peak < 1.25 * MAX_EXPANDED_BYTES, path.name
        assert seconds < 20, path.name


@pytest.mark.slow
def test_large_text_files_of_numbers_are_read(tmp_path):
    numbers = [float(n) for n in range(300_000)]
    content = pickle.dumps({"losses": numbers, "names": [f"layer{n}" for n in range(20_000)]}, 2)
    found = read_pytorch(pickled(content[2:], tmp_path / "file.pth"))
    assert found["losses"] == numbers
    assert found["names"][-1] == "layer19999"


def test_expansion_within_reason_is_read(tmp_path):
    count = MAX_EXPANDED_BYTES // 4 // 16
    path = pickled(tensor(number(4), number(0), pair(count, 4), pair(0, 1)), tmp_path / "file.pth")
    assert read_pytorch(path).shape == (count, 4)


def test_compressed_entries_are_refused(torch, tmp_path):
    torch.save(torch.zeros(10**5), tmp_path / "file.pth")
    path = rewritten(tmp_path / "file.pth", lambda entries: entries, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(UserError, match="compressed or longer than the file"):
        read_pytorch(path)


def test_storages_longer_than_an_older_file_are_refused(tmp_path):
    head = b"".join(pickle.dumps(item, 2) for item in (MAGIC, 1001, {"little_endian": True}))
    body = b"\x80\2(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0" + b"0X\3\0\0\0cpuJ\xff\xff\xff\x7fNtQ."
    (tmp_path / "file.pth").write_bytes(head + body + pickle.dumps(["0"], 2) + struct.pack("<q", 2**31 - 1))
    with pytest.raises(UserError, match="longer than the file"):
        read_pytorch(tmp_path / "file.pth")


@pytest.mark.parametrize(
    "content", [b"", b"\x89PNG\r\n\x1a\n", b"PK\x03\x04", b"not a file\n" * 100, pickle.dumps({"a": 1})]
)
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "file.pth").write_bytes(content)
    with pytest.raises(UserError, match=r"is damaged or no file of torch\.save"):
        read_pytorch(tmp_path / "file.pth")


def test_archives_of_something_else_are_refused(tmp_path):
    buffer = io.BytesIO()
    np.savez(buffer, a=np.ones(3))
    (tmp_path / "file.npz").write_bytes(buffer.getvalue())
    with pytest.raises(UserError, match=r"no archive of torch\.save"):
        read_pytorch(tmp_path / "file.npz")


@pytest.mark.parametrize("name", ["missing.pth", "."])
def test_what_is_not_a_file_is_refused(tmp_path, name):
    with pytest.raises(UserError, match="does not exist or is not a file"):
        read_pytorch(tmp_path / name)


@pytest.mark.shared
def test_a_checkpoint_saved_from_a_gpu(shared_data):
    folder = shared_data / "pytorch_checkpoint"
    reals, amplitudes = read_pytorch(folder / "reals.pth"), read_pytorch(folder / "NoiseAmp.pth")
    assert [real.shape[2:] for real in reals] == [(n, n) for n in (26, 33, 42, 54, 70, 90, 117, 150, 194, 250)]
    assert all(real.dtype == np.float32 and -1 <= real.min() < real.max() == 1 for real in reals)
    assert amplitudes[0] == 1
    assert [round(float(value), 6) for value in amplitudes[1:4]] == [0.017446, 0.006344, 0.007432]
    state = read_pytorch(folder / "3/netG.pth")
    assert state["body.block2.conv.weight"].shape == (32, 32, 3, 3)
    assert state["body.block2.norm.num_batches_tracked"].dtype == np.int64
