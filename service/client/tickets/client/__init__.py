"""A client for the three ticket APIs over gRPC: every method typed, blocking and asynchronous.

```python
from tickets.client import TicketsClient

with TicketsClient("127.0.0.1:50051", token=token) as client:
    ticket = client.helpdesk.tickets.create(title="VPN is down", priority="high")
    for ticket in client.helpdesk.tickets.list():
        print(ticket.number, ticket.title)
```
"""

from tickets.client.client import AsyncTicketsClient, TicketsClient
from tickets.client.errors import (
    ConflictError,
    CursorExpiredError,
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
from tickets.client.session import Retries

__all__ = [
    "AsyncTicketsClient",
    "ConflictError",
    "CursorExpiredError",
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
