"""The three APIs as a careful team would build them with FastAPI, SQLAlchemy (async, asyncpg) and uvicorn.

What is measured of them, that is: it answers what the service answers, from the same tables, and writes the same rows.
Where idiomatic code has a choice, the quicker way is taken: Core on a connection (an ORM session costs more for the
same statements), statements built once, a connection for every caller, orjson for JSON columns, a pure ASGI middleware,
no thread-pool dependencies, no access log, and what was verified of a credential is remembered. It does less than the
service around a call: no rate limit, no log line, no deadline, no check for NUL, and no index terms for a search.

Of helpdesk and handoff it has list, get, create and update. Who calls the helpdesk is an agent; a ticket gets its
tenant's active SLA policy, with a due instant that counts every hour, and nothing is emitted by it. A handoff ticket's
roles are made with it, and stand in the way of closing it; they cannot be changed.
"""
