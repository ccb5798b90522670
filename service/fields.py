"""Field types that the commands of all dialects share. A bound that several commands have is defined here."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, time
from decimal import Decimal
from functools import cache, lru_cache
from typing import Annotated, Any, ClassVar, Literal, get_args
from uuid import UUID

import email_validator
from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainValidator,
    StringConstraints,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, PydanticKnownError, core_schema

from service import jsontext
from service.jsontext import JsonText
from service.search import words

MAX_OBJECT_BYTES = 256 * 1024
MAX_WORDS = 20


class Command(BaseModel):
    """What comes in, by section: `path`, `query`, `body`, `header`. A section is a Section model of its own."""

    model_config = ConfigDict(strict=True, frozen=True)

    # Whether unknown query parameters are rejected; else they are ignored.
    refuses_unknown: ClassVar[bool] = False

    @classmethod
    def sections(cls) -> dict[str, tuple[str, ...]]:
        """The names of the members of each section, other names included."""
        return {
            name: (*field.annotation.model_fields, *other_names(field.annotation))
            for name, field in cls.model_fields.items()
            if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
        }

    @classmethod
    def lists(cls) -> frozenset[str]:
        """The members of the query that are lists."""
        return cls._query_with(comma_list)

    @classmethod
    def instants(cls) -> frozenset[str]:
        """The members of the query that are instants."""
        return cls._query_with(iso_8601)

    @classmethod
    def _query_with(cls, validator: BeforeValidator) -> frozenset[str]:
        query = cls.model_fields.get("query")
        members = {} if query is None else getattr(query.annotation, "model_fields", {})
        return frozenset(name for name, field in members.items() if _has_validator(field, validator))


class Section(BaseModel):
    """One part of a request. Types are not guessed: `"12"` is no integer. Unknown members are ignored."""

    # from_attributes only changes the message for a body that is no object: to the one that FastAPI gives.
    model_config = ConfigDict(strict=True, frozen=True, from_attributes=True, extra="ignore")


def other_name(name: str, other: str) -> Any:
    """For a member of an Aliased section: this other name means the same."""
    return Field(validation_alias=AliasChoices(name, other))


@cache
def other_names(section: type[Section]) -> Mapping[str, str]:
    """The other names of a section's members, with the members."""
    return {
        str(other): name
        for name, field in section.model_fields.items()
        if isinstance(field.validation_alias, AliasChoices)
        for other in field.validation_alias.choices[1:]
    }


class Aliased(Section):
    """A section with members that have another name as well: one may be given, or both with the same value."""

    @model_validator(mode="before")
    @classmethod
    def _by_one_name(cls, given: Any) -> Any:
        others = other_names(cls)
        if not isinstance(given, dict) or others.keys().isdisjoint(given):
            return given
        twice = {other: name for other, name in others.items() if other in given and name in given}
        issues = [
            InitErrorDetails(
                type=PydanticCustomError("other_name", "Input should be as {member}, which it means", {"member": name}),
                loc=(other,),
                input=given[other],
            )
            for other, name in twice.items()
            if given[other] != given[name]
        ]
        if issues:
            raise ValidationError.from_exception_data(cls.__name__, issues)
        return {name: value for name, value in given.items() if name not in twice}


class Creation(Section):
    """The body of what makes something: null is the same as an absent member, for every optional one."""

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, given: Any) -> Any:
        # The quick way out: hardly any body has a null.
        if not isinstance(given, dict) or None not in given.values():
            return given
        optional = _optional_names(cls)
        return {name: value for name, value in given.items() if value is not None or name not in optional}


@cache
def _optional_names(section: type[Section]) -> frozenset[str]:
    """The names of the members that may be left out; every alias is one, as its member has a name of its own."""
    optional = {name for name, field in section.model_fields.items() if not field.is_required()}
    return frozenset(optional | other_names(section).keys())


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise PydanticCustomError("nul_character", "NUL characters are not allowed")
    return text


# After the bounds of a text, so that those are reported in pydantic's own words.
without_nul = AfterValidator(_without_nul)

# Those that are given are much shorter; which of them a list or watch takes is found out by paging.py.
Cursor = Annotated[str, StringConstraints(max_length=1000), without_nul]


class Resumable(Section):
    """The query of what resumes at a cursor: a watch, or a list page by page."""

    cursor: Cursor | None = None


def _only_text(value: Any) -> Any:
    # pydantic would take a number for a Unix time, and bytes for a UUID; neither is documented.
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
    return json_text(value, MAX_OBJECT_BYTES)


def json_text(value: Any, max_bytes: int) -> JsonText:
    """The JSON text of a value, which is kept as it is. Raises PydanticCustomError: too long, or a NUL in it."""
    text = jsontext.dump(value)
    if len(text) > max_bytes:
        raise PydanticCustomError("json_too_long", "JSON should be at most {max_bytes} bytes", {"max_bytes": max_bytes})
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


_WHOLE_DIGITS = 20


def _whole(value: Any) -> Any:
    # What has a fraction, an exponent or many digits comes as a Decimal (jsontext.py), maybe too large to write out.
    is_whole = isinstance(value, Decimal) and value.adjusted() < _WHOLE_DIGITS and value == value.to_integral_value()
    return int(value) if is_whole else value


# For an integer of a body, after its bounds: it may be written `60`, `60.0`, `6e1`.
whole = BeforeValidator(_whole)

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


# The words of a search. Each word costs about as much as the list without a search.
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

    return PlainValidator(check, json_schema_input_type=UUID | Literal[word])


# What is read as an instant.
iso_8601 = BeforeValidator(_iso_8601)

# ISO 8601 with any offset, UTC where there is none; microseconds.
Instant = Annotated[datetime, iso_8601, AfterValidator(_in_utc), Field(strict=False)]

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def _to_the_end_of_a_day(value: Any, validate: ValidatorFunctionWrapHandler) -> datetime:
    instant: datetime = validate(value)
    is_day = isinstance(value, str) and _DATE.fullmatch(value)
    return datetime.combine(instant, time.max, UTC) if is_day else instant


# An end of a range that may be a date alone: contracts promise that here and nowhere else. (An Instant is lenient, and
# what it makes of a date, or of a time without a zone, is promised to nobody.)
_or_date = WithJsonSchema({"anyOf": [{"type": "string", "format": form} for form in ("date-time", "date")]})
# Of a date alone, the beginning of that day, as an Instant makes of it.
FirstInstant = Annotated[Instant, _or_date]
# Of a date alone, the end of that day.
LastInstant = Annotated[Instant, WrapValidator(_to_the_end_of_a_day), _or_date]

# A JSON object up to 256 KiB, kept as its text.
JsonObject = Annotated[JsonText, PlainValidator(_json_object, json_schema_input_type=dict[str, Any])]


# Domains such as `corp.local` are accepted, as private networks have them. (The library documents this way to do it.)
email_validator.SPECIAL_USE_DOMAIN_NAMES.clear()
MAX_EMAIL_LENGTH = 254


# Cached, as the same people write again and again, and one address takes as long as the rest of a ticket.
@lru_cache(maxsize=4096)
def _email(text: str) -> str:
    # `root@server` is accepted too; a domain with dots must end in letters, which excludes IPv4 addresses.
    has_dots = "." in text.rpartition("@")[2]
    try:
        email_validator.validate_email(text, check_deliverability=False, globally_deliverable=has_dots)
    except email_validator.EmailNotValidError as error:
        # The message of pydantic's own EmailStr.
        raise PydanticCustomError(
            "value_error", "value is not a valid email address: {reason}", {"reason": str(error)}
        ) from None
    return text


# An address by its form (RFC 5321, and RFC 6531 beyond ASCII), without a display name; kept as it came.
Email = Annotated[str, StringConstraints(max_length=MAX_EMAIL_LENGTH), AfterValidator(_email)]


# A comma that no backslash is before.
_COMMA = re.compile(r"(?<!\\),")


def _comma_list(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    parts = _COMMA.split(value)
    # Spaces around a comma are no part of a value; a value without commas keeps its own.
    return [part.replace("\\,", ",").strip(" " if len(parts) > 1 else "") for part in parts]


# For a list in a query: comma separated, and `\,` is a comma in a value. A parameter that is given more than once has
# one value each time (rest.py).
comma_list = BeforeValidator(_comma_list)


def _has_validator(field: FieldInfo, validator: BeforeValidator) -> bool:
    """Whether a field, or what is an alternative to its None, begins with this validator."""
    forms = [field, *map(FieldInfo.from_annotation, get_args(field.annotation))]
    return any(validator in form.metadata for form in forms)


OpaqueId = Annotated[str, StringConstraints(min_length=1, max_length=64), without_nul]
# A person's id, in the form that a token's `sub` is taken in.
PersonId = Annotated[OpaqueId, AfterValidator(one_uuid_form)]


class IdempotencyHeader(Section):
    """The header or metadata `idempotency-key`."""

    idempotency_key: Annotated[
        str | None, Field(alias="idempotency-key", min_length=1, max_length=255, pattern=r"^[\x20-\x7e]+$")
    ] = None


class WriteHeaders(IdempotencyHeader):
    """The headers of a conditional write: once for each key, and only if the resource is unchanged."""

    # `*`, or one ETag or several with commas between (RFC 9110, 13.1.1).
    if_match: Annotated[
        Annotated[str, StringConstraints(max_length=1000), without_nul] | None, Field(alias="if-match")
    ] = None


# A condition in a body or a query, as `If-Match`.
Etag = Annotated[str, StringConstraints(max_length=64), without_nul]


def _distinct(items: list[str]) -> list[str]:
    if len(set(items)) < len(items):
        raise PydanticCustomError("duplicates", "Items should be unique")
    return items


class _Distinct:
    """Validates that a list has no duplicates, and says so in its schema."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(_distinct, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {**handler(schema), "uniqueItems": True}


# For a list: no duplicates.
distinct = _Distinct()
