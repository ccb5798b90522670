"""Options of gRPC, Linux and Python that the server sets once."""

import contextlib
import ctypes
import gc
import os
import resource
import sys
from collections.abc import Sequence

from service.settings import Settings

# A message that exceeds the limit by less than this gets the documented error, and a larger one gRPC's own.
_MARGIN_BYTES = 64 * 1024
_MAX_METADATA_BYTES = 64 * 1024
_IDENTITY = 1 << 0
_OPTIONS = (
    ("grpc.so_reuseport", 1),
    ("grpc.max_send_message_length", -1),
    # No compression: a megabyte of gzip could expand to a gigabyte before its caller is authenticated.
    ("grpc.compression_enabled_algorithms_bitset", _IDENTITY),
    # Above what the gateway lets in (32 KiB), so that it is the one to refuse, in the API's own shape.
    ("grpc.max_metadata_size", _MAX_METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", 2 * _MAX_METADATA_BYTES),
    # Many callers may share a connection. gRPC would keep a header that it could not parse in the connection's HPACK
    # table, and fail every later call that refers to it.
    ("grpc.http2.hpack_table_size.decoder", 0),
    # Of one connection. Streams that were reset and are not cleaned up yet count too: a client that opens and resets
    # streams without a pause could otherwise fill gigabytes.
    ("grpc.max_concurrent_streams", 1000),
    # A proxy keeps its connections; pings find the dead ones. The gateway pings once a second, also while it is idle.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 500),
)
_PR_SET_DUMPABLE = 4
# Objects that exist at start stay for good, and a call leaves few cycles.
_COLLECT_AFTER = (20_000, 20, 50)


def server_options(settings: Settings) -> Sequence[tuple[str, int]]:
    """The options of the gRPC server."""
    return (*_OPTIONS, ("grpc.max_receive_message_length", settings.max_request_bytes + _MARGIN_BYTES))


def freeze_gc() -> None:
    """Exclude the objects that exist by now from garbage collection, and collect less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)


def keep_memory_private() -> None:
    """Keep secrets in memory: no core dump, and no other process of the same user may read memory or environment."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0)


def use_batch_scheduler(pid: int = 0) -> None:
    """Ask Linux not to let a thread of a process (0: this one) preempt others as soon as it is woken.

    A call wakes threads several times, and most of them can wait until the running one blocks: a sixth less CPU for
    each call on two busy cores. Threads that are made later inherit it.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # a sandbox may forbid it
            os.sched_setscheduler(pid, os.SCHED_BATCH, os.sched_param(0))
