"""Field types that the commands of all dialects share. A bound that more than one command has is said here."""

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    StringConstraints,
)
from pydantic.networks import validate_email
from pydantic_core import PydanticCustomError, PydanticKnownError

from service import jsontext
from service.jsontext import JsonText
from service.search import words

MAX_OBJECT_BYTES = 256 * 1024
MAX_WORDS = 20


class Command(BaseModel):
    """What comes in, by section: `path`, `query`, `body`, `header`. A section is a Section model of its own."""

    model_config = ConfigDict(strict=True, frozen=True)

    @classmethod
    def sections(cls) -> dict[str, tuple[str, ...]]:
        """The names of the members of each section."""
        return {
            name: tuple(field.annotation.model_fields)
            for name, field in cls.model_fields.items()
            if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
        }


class Section(BaseModel):
    """One part of a request. Types are not guessed: `"12"` is no integer. Unknown members are ignored."""

    # from_attributes only changes the message for a body that is no object to the one that FastAPI's clients know.
    model_config = ConfigDict(strict=True, frozen=True, from_attributes=True, extra="ignore")


class Resumable(Section):
    """The query of what goes on from a cursor: a watch, or a list page by page."""

    cursor: str | None = None


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise PydanticCustomError("nul_character", "NUL characters are not allowed")
    return text


def _only_text(value: Any) -> Any:
    # Numbers would pass as Unix times, bytes as UUIDs: neither is what the documents say.
    if isinstance(value, int | float | bytes):
        raise PydanticCustomError("string_type", "Input should be a valid string")
    return value


def _iso_8601(value: Any) -> Any:
    if isinstance(value, str) and value.strip().lstrip("+-").replace(".", "", 1).isdigit():
        raise PydanticCustomError("datetime_parsing", "Input should be a valid datetime, not a number")
    return _only_text(value)


def _in_utc(instant: datetime) -> datetime:
    try:
        return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
    except OverflowError:
        raise PydanticCustomError("datetime_parsing", "Input should be a valid datetime, out of range") from None


def _json_object(value: Any) -> JsonText:
    if not isinstance(value, dict):
        raise PydanticKnownError("dict_type")
    return _json_text(value)


def _json_tags(value: Any) -> JsonText:
    if not isinstance(value, dict) and not (isinstance(value, list) and all(isinstance(tag, str) for tag in value)):
        raise PydanticCustomError("tags_type", "Input should be an array of strings or an object")
    return _json_text(value)


def _json_text(value: Any) -> JsonText:
    text = jsontext.dump(value)
    if len(text) > MAX_OBJECT_BYTES:
        raise PydanticCustomError(
            "json_too_long", "JSON should be at most {max_bytes} bytes", {"max_bytes": MAX_OBJECT_BYTES}
        )
    # Only an escape can bring a NUL, but not every escape that ends so is one: `\\u0000` is a backslash and text.
    if b"\\u0000" in text and _has_nul(value):
        raise PydanticCustomError("nul_character", "NUL characters are not allowed")
    return JsonText(text.decode())


def _has_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any(_has_nul(part) for pair in value.items() for part in pair)
    return isinstance(value, list) and any(map(_has_nul, value))


# After the bounds of a text, so that those are reported in pydantic's own words.
without_nul = AfterValidator(_without_nul)

# Text that comes from a path or a query may be guessed from: there is nothing but text there.
Number = Annotated[int, Field(strict=False)]

# How many items a page has at most.
Limit = Annotated[Number, Field(ge=1, le=100)]


def _few_words(text: str) -> str:
    if len(set(words(text))) > MAX_WORDS:
        raise PydanticCustomError(
            "too_many_words", "Input should have at most {max_words} words", {"max_words": MAX_WORDS}
        )
    return text


# The words of a search. Each costs about as much as the whole list without it.
Words = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=200),
    without_nul,
    AfterValidator(_few_words),
]


class Page(Resumable):
    """The query of a list page by page."""

    limit: Limit = 20


_UUID = re.compile(
    r"(?:urn:uuid:)?(?P<brace>\{)?[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}(?(brace)\})", re.ASCII | re.IGNORECASE
)


def one_uuid_form(text: str) -> str:
    """A UUID in lower case, without braces and `urn:uuid:`; any other text as it is, one without hyphens too."""
    return str(UUID(text.lower())) if _UUID.fullmatch(text) else text


Uuid = Annotated[UUID, BeforeValidator(_only_text), Field(strict=False)]


def uuid_or(word: str) -> PlainValidator:
    """Validates text: a UUID, or this word."""

    def check(value: Any) -> UUID | str:
        if value == word:
            return word
        try:
            return UUID(_only_text(value))
        except (ValueError, AttributeError, TypeError):
            raise PydanticCustomError(
                "uuid_or_word", "Input should be a valid UUID or '{word}'", {"word": word}
            ) from None

    return PlainValidator(check)


# ISO 8601 with any offset, UTC where there is none; microseconds.
Instant = Annotated[datetime, BeforeValidator(_iso_8601), AfterValidator(_in_utc), Field(strict=False)]

# A JSON object up to 256 KiB, kept as its text.
JsonObject = Annotated[JsonText, PlainValidator(_json_object)]

# A JSON array of strings, or a JSON object, up to 256 KiB, kept as its text.
JsonTags = Annotated[JsonText, PlainValidator(_json_tags)]


@lru_cache(maxsize=4096)
def _email(text: str) -> str:
    return validate_email(text)[1]


# As pydantic's EmailStr. The same people write again and again, and one address takes as long as the rest of a ticket.
Email = Annotated[str, AfterValidator(_email)]


def _comma_list(value: Any) -> Any:
    return value.split(",") if isinstance(value, str) else value


# For a list in a query: comma separated.
comma_list = BeforeValidator(_comma_list)

OpaqueId = Annotated[str, StringConstraints(min_length=1, max_length=64), without_nul]
# A person's id, in the form that a token's `sub` is taken in.
PersonId = Annotated[OpaqueId, AfterValidator(one_uuid_form)]


class IdempotencyHeader(Section):
    """The header or metadata `idempotency-key`."""

    idempotency_key: Annotated[
        str | None, Field(alias="idempotency-key", min_length=1, max_length=255, pattern=r"^[\x20-\x7e]+$")
    ] = None


class WriteHeaders(IdempotencyHeader):
    """What says when a write counts: once for a key, and while the resource is as it was."""

    # `*`, or one ETag or several with commas between (RFC 9110, 13.1.1).
    if_match: Annotated[str | None, Field(alias="if-match", max_length=1000)] = None


def _distinct(items: list[str]) -> list[str]:
    if len(set(items)) < len(items):
        raise PydanticCustomError("duplicates", "Items should be unique")
    return items


# For a list: no duplicates.
distinct = AfterValidator(_distinct)
