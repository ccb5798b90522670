"""What the pods of the chart do, in one container: the migration, the service, Envoy's files, Envoy, and their end.

Its arguments are commands as JSON: those of the migration, the service, the gateway's configuration, Envoy, and what
drains Envoy. It prints what it saw as JSON.
"""

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

TRIES = 600
PAUSE_SECONDS = 0.1


def until(condition: Callable[[], bool]) -> bool:
    """Whether it comes true, in a while."""
    for _ in range(TRIES):
        if condition():
            return True
        time.sleep(PAUSE_SECONDS)
    return False


def succeeds(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 0


def get(path: str, connection: http.client.HTTPConnection | None = None) -> tuple[int, str]:
    """The status, and what becomes of the connection; 0 when nobody answers."""
    connection = connection or http.client.HTTPConnection("127.0.0.1", 8080, timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        return answer.status, answer.getheader("connection", "keep-alive")
    except (OSError, http.client.HTTPException):
        return 0, ""


def writable() -> list[str]:
    """Folders that it can write to, devices and processes aside."""
    found = []
    for folder, folders, _ in os.walk("/"):
        folders[:] = [name for name in folders if os.path.join(folder, name) not in ("/proc", "/dev")]
        if os.access(folder, os.W_OK) and not Path(folder).is_symlink():
            found.append(folder)
            folders.clear()
    return sorted(found)


def main() -> None:
    migrate, serve, configure, envoy, drain = (json.loads(text) for text in sys.argv[1:])
    seen: dict[str, Any] = {"user": [os.getuid(), os.getgid()], "writable": writable()}
    seen["health before"] = succeeds("tickets-health")
    seen["migrated"] = succeeds(*migrate)
    service = subprocess.Popen(serve, stderr=subprocess.PIPE)
    seen["serving"] = until(lambda: succeeds("tickets-health"))
    seen["live"] = succeeds("tickets-health", "live")
    seen["configured"] = succeeds(*configure)
    gateway = subprocess.Popen(envoy, stderr=subprocess.DEVNULL)
    until(lambda: get("/openapi.json")[0] == 200)
    until(lambda: get("/api/v1/tickets")[0] == 401)
    seen["gateway"] = {path: get(path)[0] for path in ("/openapi.json", "/docs", "/docs/docs.js", "/api/v1/tickets")}
    seen["probes"] = {path: get(path)[0] for path in ("/healthz", "/readyz")}
    seen["buckets"] = oct(Path("/run/tickets/buckets/rate-limits").stat().st_mode & 0o777)
    kept = http.client.HTTPConnection("127.0.0.1", 8080, timeout=5)
    before = get("/openapi.json", kept)
    seen["drained"] = succeeds(*drain)
    seen["connection"] = [before, get("/openapi.json", kept)]
    service.send_signal(signal.SIGTERM)
    gateway.send_signal(signal.SIGTERM)
    _, log = service.communicate(timeout=40)
    seen["ended"] = [service.returncode, gateway.wait(timeout=10)]
    seen["log"] = log.decode()
    sys.stdout.write(json.dumps(seen))


if __name__ == "__main__":
    main()
