"""The client: typed calls of all three APIs, blocking and asynchronous. It imports nothing of the server.

```python
with TicketsClient("127.0.0.1:50051", token=token) as client:
    ticket = client.helpdesk.tickets.create(title="VPN is down", priority="high")
    for ticket in client.helpdesk.tickets.list():
        print(ticket.number, ticket.title)
```
"""

from service.client.client import AsyncTicketsClient, TicketsClient
from service.client.errors import (
    ConflictError,
    DeadlineExceededError,
    Issue,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    StaleError,
    TicketsError,
    UnauthenticatedError,
    UnavailableError,
    ValidationError,
)
from service.client.link import Retries

__all__ = [
    "AsyncTicketsClient",
    "ConflictError",
    "DeadlineExceededError",
    "Issue",
    "NotFoundError",
    "PermissionDeniedError",
    "RateLimitedError",
    "Retries",
    "StaleError",
    "TicketsClient",
    "TicketsError",
    "UnauthenticatedError",
    "UnavailableError",
    "ValidationError",
]
