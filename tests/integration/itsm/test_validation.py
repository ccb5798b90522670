"""contracts/itsm.md, Validation errors: over REST they are FastAPI's, with pydantic's own messages."""

import json
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from pydantic import BaseModel, EmailStr, Field, ValidationError
from support.system import World
from support.transports import Reply, Rest, rest_reply

Status = Literal["open", "pending", "resolved", "closed"]
Priority = Literal["low", "medium", "high", "urgent"]

TICKET = {"subject": "VPN is down", "description": "Since nine."}


class Body(BaseModel):
    """As FastAPI would have it declared, from the contract; so are the others."""

    subject: Annotated[str, Field(min_length=1, max_length=255)]
    description: Annotated[str, Field(min_length=1)]
    status: Status = "open"
    priority: Priority | None = None
    requester_email: EmailStr | None = None
    metadata: dict[str, Any] = {}


class Path(BaseModel):
    ticket_id: UUID


class Query(BaseModel):
    status: Status | None = None
    priority: Priority | None = None
    requester_email: EmailStr | None = None
    start_date: datetime | None = None
    end_date: datetime | None = None
    limit: Annotated[int, Field(ge=1, le=100)] = 20
    offset: Annotated[int, Field(ge=0)] = 0


class Header(BaseModel):
    idempotency_key: Annotated[str | None, Field(alias="idempotency-key", min_length=1, max_length=255)] = None


SECTIONS: dict[str, type[BaseModel]] = {"body": Body, "path": Path, "query": Query, "header": Header}


def pydantics(section: str, given: Any) -> list[dict[str, Any]]:
    """Pydantic's errors for a section of a request, as FastAPI passes them on."""
    with pytest.raises(ValidationError) as failure:
        SECTIONS[section].model_validate(given, from_attributes=True)
    return [{**error, "loc": [section, *error["loc"]]} for error in failure.value.errors(include_url=False)]


async def answer(rest: Rest, world: World, section: str, given: Any) -> Reply:
    """The reply to a call with this section."""
    who = (await world.program()).credential
    match section:
        case "path":
            return await rest.call("itsm.get", who, path=given)
        case "query":
            return await rest.call("itsm.list", who, query=given)
        case "header":
            return await rest.call("itsm.create", who, body=TICKET, headers=given)
        case _:
            return await rest.call("itsm.create", who, body=given)


MISSING = "Field required"
TOO_SHORT, NO_STRING = "String should have at least 1 character", "Input should be a valid string"
NO_STATUS = "Input should be 'open', 'pending', 'resolved' or 'closed'"
NO_PRIORITY = "Input should be 'low', 'medium', 'high' or 'urgent'"
NO_DICTIONARY = "Input should be a valid dictionary"
NO_EMAIL = "value is not a valid email address: "
NO_INTEGER = "Input should be a valid integer, unable to parse string as an integer"
NO_UUID, NO_TIME = "Input should be a valid UUID, ", "Input should be a valid datetime"


@pytest.mark.parametrize(
    ("section", "given", "kind", "message"),
    [
        ("body", {"subject": ""}, "string_too_short", TOO_SHORT),
        ("body", {"subject": "x" * 256}, "string_too_long", "String should have at most 255 characters"),
        ("body", {"subject": 5}, "string_type", NO_STRING),
        ("body", {"subject": None}, "string_type", NO_STRING),
        ("body", {"description": ""}, "string_too_short", TOO_SHORT),
        ("body", {"description": ["x"]}, "string_type", NO_STRING),
        ("body", {"status": "reopened"}, "literal_error", NO_STATUS),
        ("body", {"priority": "LOW"}, "literal_error", NO_PRIORITY),
        ("body", {"priority": 1}, "literal_error", NO_PRIORITY),
        ("body", {"requester_email": "nobody"}, "value_error", NO_EMAIL),
        ("body", {"requester_email": "jane@"}, "value_error", NO_EMAIL),
        ("body", {"requester_email": "jane doe@example.com"}, "value_error", NO_EMAIL),
        ("body", {"requester_email": ""}, "value_error", NO_EMAIL),
        ("body", {"requester_email": 1}, "string_type", NO_STRING),
        ("query", {"priority": "critical"}, "literal_error", NO_PRIORITY),
        ("query", {"requester_email": "nobody"}, "value_error", NO_EMAIL),
        ("query", {"end_date": "2026-02-30"}, "datetime_from_date_parsing", NO_TIME),
        ("body", {"metadata": []}, "dict_type", NO_DICTIONARY),
        ("body", {"metadata": "{}"}, "dict_type", NO_DICTIONARY),
        ("path", {"ticket_id": "17"}, "uuid_parsing", NO_UUID),
        ("path", {"ticket_id": "ticket"}, "uuid_parsing", NO_UUID),
        ("path", {"ticket_id": "2c1d8a51-3f3c-4f0e-9a52-6d6f3b0d5a1"}, "uuid_parsing", NO_UUID),
        ("query", {"limit": "ten"}, "int_parsing", NO_INTEGER),
        ("query", {"limit": ""}, "int_parsing", NO_INTEGER),
        ("query", {"limit": "1.5"}, "int_parsing", NO_INTEGER),
        ("query", {"limit": "0"}, "greater_than_equal", "Input should be greater than or equal to 1"),
        ("query", {"limit": "101"}, "less_than_equal", "Input should be less than or equal to 100"),
        ("query", {"limit": "9" * 40}, "less_than_equal", "Input should be less than or equal to 100"),
        ("query", {"offset": "-1"}, "greater_than_equal", "Input should be greater than or equal to 0"),
        ("query", {"offset": "x"}, "int_parsing", NO_INTEGER),
        ("query", {"status": "new"}, "literal_error", NO_STATUS),
        ("query", {"status": ""}, "literal_error", NO_STATUS),
        ("query", {"start_date": "yesterday"}, "datetime_from_date_parsing", NO_TIME),
        ("query", {"start_date": ""}, "datetime_from_date_parsing", NO_TIME),
        ("query", {"start_date": "2026-02-30"}, "datetime_from_date_parsing", NO_TIME),
        ("query", {"end_date": "2026-02-30T00:00:00Z"}, "datetime_from_date_parsing", NO_TIME),
        ("query", {"end_date": "2026-01-01T25:00:00Z"}, "datetime_from_date_parsing", NO_TIME),
        ("query", {"end_date": "2026-01-01T00:00:00+25:00"}, "datetime_from_date_parsing", NO_TIME),
        ("header", {"idempotency-key": ""}, "string_too_short", TOO_SHORT),
        ("header", {"idempotency-key": "x" * 256}, "string_too_long", "String should have at most 255 characters"),
    ],
    ids=lambda value: str(value)[:60],
)
async def test_an_error_has_pydantics_message(
    rest: Rest, world: World, section: str, given: dict[str, Any], kind: str, message: str
) -> None:
    [name] = given
    given = {**TICKET, **given} if section == "body" else given
    [error] = (await answer(rest, world, section, given)).failed("validation_error")["detail"]
    assert error["type"] == kind
    assert error["loc"] == [section, name]
    assert error["msg"].startswith(message)
    assert [error] == pydantics(section, given)


async def test_an_error_has_pydantics_context(rest: Rest, world: World) -> None:
    given = {"subject": "x" * 256, "status": "new", "requester_email": "nobody"}
    reply = await answer(rest, world, "body", given)
    no_at = "An email address must have an @-sign."
    assert reply.failed("validation_error") == {
        "detail": [
            {
                "type": "string_too_long",
                "loc": ["body", "subject"],
                "msg": "String should have at most 255 characters",
                "input": "x" * 256,
                "ctx": {"max_length": 255},
            },
            {"type": "missing", "loc": ["body", "description"], "msg": MISSING, "input": given},
            {
                "type": "literal_error",
                "loc": ["body", "status"],
                "msg": NO_STATUS,
                "input": "new",
                "ctx": {"expected": NO_STATUS.removeprefix("Input should be ")},
            },
            {
                "type": "value_error",
                "loc": ["body", "requester_email"],
                "msg": NO_EMAIL + no_at,
                "input": "nobody",
                "ctx": {"reason": no_at},
            },
        ]
    }


@pytest.mark.parametrize(
    "given", [{}, {"subject": "x"}, {"metadata": {"a": 1.5}}, {"title": "x", "subject": ""}], ids=str
)
async def test_all_errors_are_reported_in_order(rest: Rest, world: World, given: dict[str, Any]) -> None:
    errors = (await answer(rest, world, "body", given)).failed("validation_error")["detail"]
    assert errors == pydantics("body", given)
    assert "missing" in {error["type"] for error in errors}


async def post(rest: Rest, world: World, content: bytes) -> list[dict[str, Any]]:
    """The errors of a POST of these bytes."""
    headers = {**(await world.program()).credential, "content-type": "application/json"}
    response = await rest.client.post("/api/v1/tickets", content=content, headers=headers)
    errors: list[dict[str, Any]] = rest_reply("itsm", response).failed("validation_error")["detail"]
    return errors


async def test_a_missing_body_is_missing_as_a_whole(rest: Rest, world: World) -> None:
    missing = {"type": "missing", "loc": ["body"], "msg": MISSING, "input": None}
    assert await post(rest, world, b"") == [missing]


@pytest.mark.parametrize("content", [b"{", b"{'subject': 'x'}", b'{"subject": "x",}', b"subject=x", b"\xff"])
async def test_a_body_that_is_not_json_is_refused(rest: Rest, world: World, content: bytes) -> None:
    [error] = await post(rest, world, content)
    assert (error["type"], error["loc"], error["msg"]) == ("json_invalid", ["body"], "JSON decode error")
    assert error["input"] == {}
    assert set(error) == {"type", "loc", "msg", "input", "ctx"}
    assert error["ctx"]["error"]


NO_OBJECT = ("model_attributes_type", ["body"], "Input should be a valid dictionary or object to extract fields from")


@pytest.mark.parametrize("given", [[], ["x"], "x", 12, True, 1.5], ids=str)
async def test_a_body_that_is_not_an_object_is_refused(rest: Rest, world: World, given: Any) -> None:
    [error] = await post(rest, world, json.dumps(given).encode())
    assert (error["type"], error["loc"], error["msg"]) == NO_OBJECT
    assert "ctx" not in error


@pytest.mark.parametrize("given", [[], ["x"], "x", 12], ids=str)
async def test_a_body_that_is_not_an_object_is_shown(rest: Rest, world: World, given: Any) -> None:
    assert await post(rest, world, json.dumps(given).encode()) == pydantics("body", given)


@pytest.mark.parametrize("given", [[], "x", 12, True, 1.5], ids=str)
async def test_a_change_that_is_not_an_object_is_refused(rest: Rest, world: World, given: Any) -> None:
    who = (await world.program()).credential
    made = (await rest.call("itsm.create", who, body=TICKET)).succeeded(201)
    reply = await rest.call("itsm.update", who, path={"ticket_id": made["id"]}, body=given)
    [error] = reply.failed("validation_error")["detail"]
    assert (error["type"], error["loc"], error["msg"]) == NO_OBJECT
