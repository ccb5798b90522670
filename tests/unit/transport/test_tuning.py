"""What a process asks of the system as it starts."""

import subprocess
import sys

import pytest

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
