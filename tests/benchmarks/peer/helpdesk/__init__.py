"""The helpdesk API: list, get, create, and update under `If-Match`."""
