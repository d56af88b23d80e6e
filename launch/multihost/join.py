"""Joining the processes of one training: which of them this one is, by flags, environment or JAX's own detection."""

import contextlib
import os
import sys
from collections.abc import Iterator

import jax

from launch import command_flags as flags
from launch.multihost.abort_message import AbortMessage
from launch.multihost.peers import JOIN_TIMEOUT, Peers, Prefixed
from singan.errors import UserError
from singan.parallel.processes import Agreed, Processes

COORDINATOR = flags.DEFINE_string(
    "coordinator",
    None,
    "HOST:PORT of process 0, where the processes of one training meet. Not needed on a TPU pod or under Slurm.",
)
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many processes train together.", lower_bound=1)
PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.", lower_bound=0)


@contextlib.contextmanager
def joined() -> Iterator[tuple[Processes, Peers | None]]:
    """Context of a training over all processes that run this command; alone, it is (Processes(), None).

    An error that not all processes have agreed on ends them all: it is told to the others before this one ends.

    Raises:
      UserError: the flags do not fit together, or the others cannot be reached within --join_timeout.
    """
    place = _place()
    if place is None:
        yield Processes(), None
        return
    peers = Peers(*place)
    index, count = peers.index, peers.count
    output = AbortMessage(peers.on_fatal)
    if index:  # what happens is told by process 0; of the others one hears only what is wrong
        sys.stderr = Prefixed(sys.stderr, peers.prefix)
        sys.stdout = open(os.devnull, "w", encoding="utf-8", errors="replace")  # noqa: SIM115
    try:
        peers.meet()
        yield Processes(count, index), peers
    except Agreed:
        raise
    except BaseException as error:
        peers.end_all(error)
    finally:
        peers.stop()
        with contextlib.suppress(Exception):
            jax.distributed.shutdown()
        output.close()


def _place() -> tuple[str, int, int, bool] | None:
    """Returns (address of process 0, processes, which one this is, whether JAX found that), or None for one alone."""
    address = COORDINATOR.value or os.environ.get("JAX_COORDINATOR_ADDRESS")
    count = NUM_PROCESSES.value or _number("JAX_NUM_PROCESSES")
    index = PROCESS_ID.value if PROCESS_ID.value is not None else _number("JAX_PROCESS_ID")
    if count == 1:
        return None
    detected = None in (address, count, index)
    if detected:
        cluster = _detect()
        if cluster is None:
            given = {"--coordinator=HOST:PORT": address, "--num_processes": count, "--process_id": index}
            missing = [flag for flag, value in given.items() if value is None]
            if len(missing) == len(given):
                return None
            raise UserError(f"{', '.join(missing)}: needed as well, where a training has several processes")
        address, count, index = address or cluster[0], count or cluster[1], cluster[2] if index is None else index
    assert address is not None
    assert count is not None
    assert index is not None
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise UserError(f"--coordinator={address!r} is not HOST:PORT, such as 10.0.0.2:8476")
    if index >= count:
        raise UserError(f"--process_id={index}: there are {count} processes, the last one is {count - 1}")
    return address, count, index, detected


def _number(name: str) -> int | None:
    text = os.environ.get(name, "")
    return int(text) if text.isdigit() else None


def _detect() -> tuple[str, int, int] | None:
    """Returns the same as `_place` by JAX's own detection of TPU pods, Slurm, Open MPI and Kubernetes.

    Not left to jax.distributed.initialize, which joins a TPU VM of one host to itself.
    """
    from jax._src import clusters

    for kind in clusters.ClusterEnv._cluster_types:
        try:
            if kind.opt_in_only_method or not kind.is_env_present():
                continue
        except Exception:  # what it would be found by is half there
            continue
        try:
            if (count := kind.get_process_count()) == 1:
                return None
            port = os.environ.get("JAX_COORDINATOR_PORT")
            address = kind.get_coordinator_address(timeout_secs=JOIN_TIMEOUT.value, override_coordinator_port=port)
            return address, count, kind.get_process_id()
        except Exception as error:
            text = " ".join(f"{type(error).__name__}: {error}".split())[:150]
            raise UserError(
                f"{kind.name}: the other processes cannot be found out ({text}): give --coordinator, --num_processes"
                " and --process_id, or --num_processes=1 to train alone"
            ) from error
    return None
