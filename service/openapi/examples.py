"""Bodies that a reader can send as they stand: a test sends them all."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_CONTRACTS = Path(__file__).parents[2] / "protos" / "contracts"
_DOCUMENTED_BODY = re.compile(r"This documented body must be accepted as it stands: `(\{.*?\})`", re.DOTALL)


def bodies() -> Mapping[str, Mapping[str, Any]]:
    """Examples of request bodies by operation."""
    documented = _DOCUMENTED_BODY.search((_CONTRACTS / "handoff.md").read_text())
    if documented is None:
        raise ValueError("contracts/handoff.md has no documented body")
    return {
        "handoffCreateTicket": json.loads(documented[1]),
        "handoffUpdateTicket": {"stage": "in_progress", "work_started_note": "The cache is not cleared."},
        "handoffBulkUpdateTickets": {"action": "move", "stage": "up_next", "ticket_ids": ["1", "2"]},
        "handoffReportDeployment": {"merge_sha": "9fceb02", "outcome": "deployed"},
        "helpdeskCreateTicket": {
            "title": "Login fails",
            "description": "500 on /login since this morning.",
            "priority": "high",
            "tags": ["login"],
        },
        "helpdeskUpdateTicket": {"title": "Login fails for new accounts"},
        "helpdeskCloseTicket": {"resolution_note": "The certificate was renewed."},
        "helpdeskCreateComment": {"body": "It works again."},
        "helpdeskCreateSlaPolicy": {
            "name": "Problems",
            "priority": "medium",
            "applies_to": ["problem"],
            "resolution_minutes": 240,
        },
        "helpdeskUpdateCalendar": {"time_zone": "Europe/Berlin"},
        "itsmCreateTicket": {
            "subject": "Laptop does not wake up",
            "description": "It stays dark after lunch.",
            "priority": "high",
            "requester_email": "ann@example.com",
            "metadata": {"category": "Hardware", "floor": 3},
        },
        "itsmUpdateTicket": {"status": "closed"},
        "itsmCreateWebhook": {"url": "https://example.com/tickets", "events": ["ticket.created", "ticket.closed"]},
    }
