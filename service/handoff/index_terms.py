"""What the index of tickets is asked for: the terms of their texts."""

from uuid import UUID

from service.search import tsvector
from service.storage.statement import Row


def search_scope(project_id: UUID) -> str:
    """The index term of a project's tickets: enough of its id that hardly another one has the same."""
    return f"@{project_id.hex[-12:]}"


def search_terms(row: Row) -> str:
    """The index terms of a ticket's texts."""
    return tsvector(search_scope(row["project_id"]), row["title"], row["description"])
