"""What the indexes of tickets are asked for: terms of their texts and numbers, of their tags and of other members."""

from collections.abc import Mapping
from typing import Any

from service import jsontext
from service.helpdesk import tables
from service.jsontext import JsonText
from service.search import any_of_each, tsvector
from service.storage.statement import Row

_MAX_TAG_LENGTH = 500


def search_scope(tenant_id: str | None) -> str:
    """The index term of a tenant's tickets."""
    return f"@{tenant_id}"


def search_terms(row: Row) -> str:
    """The index terms of a ticket's texts, and of its number where it has one."""
    number = f"TKT-{row['number']:04d}" if "number" in row else ""
    return tsvector(search_scope(row["tenant_id"]), row["title"], row["description"] or "", constant=number)


def tag_terms(tags: JsonText) -> list[str]:
    """The index terms of a ticket's tags: a string, the strings of an array, the names and the strings of an object.

    Cut to a length that PostgreSQL accepts; the `#` keeps them apart from the words of texts.
    """
    value = jsontext.parse(tags.text.encode())
    found = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else [value]
    return [f"#{tag[:_MAX_TAG_LENGTH]}" for tag in found if isinstance(tag, str)]


def facet_terms(scope: str, wanted: Mapping[str, Any]) -> str:
    """What asks the index for tickets by their tags and by the members that it has (tables.py); nothing by others."""
    groups = [[scope]]
    if (tag := wanted.get("tag")) is not None:
        groups.append([f"#{tag}"])
    for name in tables.FACETS:
        values = wanted.get(f"any_{name}", [wanted[name]] if name in wanted else [])
        groups += [[f"{name}={value}" for value in values]] if values else []
    return any_of_each(*groups)
