"""The file of Inception weights: the one that was given, or FID's own, fetched once into a cache and checked."""

import dataclasses
import hashlib
import http.client
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path

from launch.runtime import cache_directory
from singan.errors import UserError
from singan.files import make_directory, write_bytes

FLAG = "--inception_weights"
TIMEOUT = 30  # seconds without a byte


@dataclasses.dataclass(frozen=True)
class Download:
    """A file on the net.

    Attributes:
      url: where it lies; its name there is its name in the cache.
      sha256: its checksum, in hexadecimal.
      size: its length in bytes.
    """

    url: str
    sha256: str
    size: int

    @property
    def name(self) -> str:
        return urllib.parse.unquote(urllib.parse.urlparse(self.url).path.rpartition("/")[2])


# FID's Inception of 2015-12-05 as ported for pytorch-fid (Apache-2.0). The name carries the checksum's first 8 digits.
FID_WEIGHTS = Download(
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
    "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    95_628_359,
)


def inception_weights_file(
    given: str | os.PathLike = "",
    fetch: bool = True,
    log: Callable[[str], None] = print,
    cache: Path | None = None,
    download: Download = FID_WEIGHTS,
) -> Path:
    """Returns the path of a file for singan.metrics.inception_weights.read_inception_weights.

    Args:
      given: the user's file; taken as it is. '' looks into the cache, and fetches into it what is not there.
      fetch: whether the network may be used.
      log: is told in one line when something is fetched.
      cache: the folder; 'inception' in the project's where not given.
      download: what to fetch.

    Raises:
      UserError: the given file is not there; or none was given, none is in the cache, and none may or can be fetched.
        The cache then holds what it held before.
    """
    if given:
        if not Path(given).is_file():
            raise UserError(f"there is no file of Inception weights at {os.fspath(given)}: check {FLAG}")
        return Path(given)
    path = (cache or cache_directory() / "inception") / download.name
    if path.is_file() and _file_digest(path) == download.sha256:
        return path
    state = "is damaged" if path.exists() else "is not there"
    remedy = f"give the file as {FLAG}=FILE (.pth or .npz), or copy {download.url} to {path}"
    if not fetch:
        raise UserError(f"{path} {state}, and the network is not to be used: {remedy}")
    make_directory(path.parent)
    log(f"fetching the Inception weights ({download.size / 1e6:.0f} MB) from {download.url} to {path}")
    write_bytes(path, _fetched(download, remedy))
    return path


def _fetched(download: Download, remedy: str) -> bytes:
    """Returns the file's bytes, all of them and with the right checksum; until that is known they stay in memory."""
    try:
        with urllib.request.urlopen(download.url, timeout=TIMEOUT) as response:
            data = response.read(download.size + 1)
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(error, urllib.error.HTTPError):
            reason = f"HTTP status {error.code}, {reason}"
            error.close()
        why = " ".join(str(reason).split()) or type(error).__name__
        raise UserError(f"cannot fetch the Inception weights ({why[:120]}): {remedy}") from None
    if len(data) < download.size:
        why = f"the download broke off after {len(data)} of {download.size} bytes"
        raise UserError(f"cannot fetch the Inception weights ({why}): run the same command again, or {remedy}")
    if (digest := hashlib.sha256(data).hexdigest()) != download.sha256:
        why = f"{download.url} holds another file: its checksum begins with {digest[:8]}, not {download.sha256[:8]}"
        raise UserError(f"cannot fetch the Inception weights ({why}): {remedy}")
    return data


def _file_digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
