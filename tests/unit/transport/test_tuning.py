"""What a process asks of the system as it starts."""

import subprocess
import sys

import pytest

from service.settings import Settings
from service.transport.tuning import server_options

# PR_GET_DUMPABLE is 3.
ASK = """
import ctypes, resource
from service.transport.tuning import keep_memory_private
dumpable = ctypes.CDLL(None).prctl
before = dumpable(3), resource.getrlimit(resource.RLIMIT_CORE)
keep_memory_private()
print(before[0], dumpable(3), *resource.getrlimit(resource.RLIMIT_CORE))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_no_other_process_reads_the_memory_and_no_core_is_dumped() -> None:
    said = subprocess.run([sys.executable, "-c", ASK], check=True, capture_output=True, text=True).stdout
    assert said.split() == ["1", "0", "0", "0"]


def test_a_client_that_only_waits_may_ping() -> None:
    """Or gRPC would throw it out: ENHANCE_YOUR_CALM, too_many_pings."""
    options = dict(server_options(Settings()))
    assert options["grpc.keepalive_permit_without_calls"] == 1
    # Clients ping every ten seconds or less often, and the gateway every second.
    assert options["grpc.http2.min_ping_interval_without_data_ms"] < 1000
