"""What the server asks of gRPC, of Linux and of Python, once."""

import contextlib
import gc
import os
import sys

# Messages beyond our own limit are refused in our words; this one only bounds what is read to find that out.
_MAX_MESSAGE_BYTES = 8 * 1024 * 1024
_MAX_METADATA_BYTES = 64 * 1024
SERVER_OPTIONS = (
    ("grpc.so_reuseport", 1),
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", -1),
    # Above what the gateway lets in (32 KiB), so that it is the one to refuse, in the API's own shape.
    ("grpc.max_metadata_size", _MAX_METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", 2 * _MAX_METADATA_BYTES),
    # A proxy keeps its connections; pings find the dead ones. The gateway's come once a second, also while it is idle.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 500),
)
# What is there at the start stays for good, and a call leaves few cycles.
_COLLECT_AFTER = (20_000, 20, 50)


def freeze_gc() -> None:
    """Keep the garbage collector from what is there by now, and let it look less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)


def use_batch_scheduler(pid: int = 0) -> None:
    """Ask Linux not to let a thread of a process (0: this one) interrupt others whenever it has something to do.

    A call wakes threads several times, and most of them can wait until the one at work waits itself: a sixth less CPU
    for each call on two busy cores. Threads that are made later inherit it.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # a sandbox may forbid it
            os.sched_setscheduler(pid, os.SCHED_BATCH, os.sched_param(0))
