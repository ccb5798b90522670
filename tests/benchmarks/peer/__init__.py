"""The ITSM API as a careful team would build it with FastAPI, SQLAlchemy (async, asyncpg) and uvicorn.

It answers what the service answers, from the same tables, and writes the same rows. Where idiomatic code has a choice,
the quicker way is taken: Core on a connection (an ORM session costs more for the same statements), statements built
once, a connection for every caller, orjson for JSON columns, a pure ASGI middleware, no thread-pool dependencies, no
access log. It does less than the service around a call: no rate limit, no log line, no deadline, no check for NUL.
"""
