"""Field types that only this API has, and what all of its bodies have in common."""

import re
from datetime import date
from functools import cache
from typing import Annotated, Any, ClassVar, TypeVar
from zoneinfo import available_timezones

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    StringConstraints,
    model_validator,
)
from pydantic_core import PydanticCustomError

from service.fields import Section, comma_list, json_text, whole, without_nul
from service.jsontext import JsonText

_MAX_TAGS_BYTES = 16 * 1024


class Body(Section):
    """A body. Members that it does not know are refused, but for those that the service stamps: these are ignored.

    So what was read may be sent back.
    """

    model_config = ConfigDict(extra="forbid")

    stamped: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="before")
    @classmethod
    def _without_stamps(cls, body: Any) -> Any:
        if not isinstance(body, dict) or cls.stamped.isdisjoint(body):
            return body
        return {name: value for name, value in body.items() if name not in cls.stamped}


def _tags(value: Any) -> JsonText:
    return json_text([] if value is None else value, _MAX_TAGS_BYTES)


# Any JSON value up to 16 KiB, kept as its text.
Tags = Annotated[JsonText, PlainValidator(_tags)]


# As it is written, and no other way; any number of eighteen digits fits a bigint.
_NUMBER = re.compile(r"TKT-(0[0-9]{3}|[1-9][0-9]{3,17})")


def parse_number(text: str) -> int | None:
    """Of `TKT-0001` the 1; None for text that is not a ticket's number."""
    number = _NUMBER.fullmatch(text)
    return None if number is None else int(number[1])


def _number(text: str) -> str:
    if parse_number(text) is None:
        raise PydanticCustomError("ticket_number", "Input should be the number of a ticket, such as TKT-0001")
    return text


TicketNumber = Annotated[str, AfterValidator(_number)]

Title = Annotated[str, StringConstraints(min_length=1, max_length=255), without_nul]
Description = Annotated[str, StringConstraints(max_length=65_536), without_nul]
Category = Annotated[str, StringConstraints(max_length=255), without_nul]
Source = Annotated[str, StringConstraints(min_length=1, max_length=64), without_nul]
CommentBody = Annotated[str, StringConstraints(min_length=1, max_length=65_536), without_nul]
ResolutionNote = Annotated[str, StringConstraints(max_length=5_000), without_nul]

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def _iso_date(value: Any) -> Any:
    if not isinstance(value, str) or not _DATE.fullmatch(value):
        raise PydanticCustomError("date_parsing", "Input should be a date, such as 2030-12-25")
    return value


@cache
def _time_zones() -> frozenset[str]:
    # `localtime` is where this machine stands, and another one may stand elsewhere.
    return frozenset(available_timezones() - {"localtime"})


def _iana(name: str) -> str:
    if name not in _time_zones():
        raise PydanticCustomError("time_zone", "Input should be an IANA time zone, such as Europe/Berlin")
    return name


Holiday = Annotated[date, BeforeValidator(_iso_date), Field(strict=False)]
TimeZone = Annotated[str, AfterValidator(_iana)]
# Local times; as text they sort by time.
Time = Annotated[str, StringConstraints(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]
EndTime = Annotated[str, StringConstraints(pattern=r"^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$")]
# At most a year.
Minutes = Annotated[int, Field(ge=1, le=525_600), whole]

T = TypeVar("T")
# A filter for any of several values.
AnyOf = Annotated[list[T], comma_list, Field(min_length=1, max_length=50)]
Flag = Annotated[bool, Field(strict=False)]
FilterText = Annotated[str, StringConstraints(min_length=1, max_length=255), without_nul]
