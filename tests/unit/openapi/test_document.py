"""The OpenAPI document: made of the code as it is, valid, and with nothing left out."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pool import Default
from openapi_spec_validator import validate

from service.access.policy import POLICIES
from service.openapi.document import document
from service.openapi.words import first_sentence, in_json, read_words

ROOT = Path(__file__).parents[3]
PATH = ROOT / "gen" / "openapi.json"
DOCUMENT: Any = json.loads(PATH.read_text())
OPERATIONS = [(verb, path, operation) for path, item in DOCUMENT["paths"].items() for verb, operation in item.items()]


def test_it_is_what_make_gen_writes() -> None:
    buf = Path(sys.executable).with_name("buf")
    built = subprocess.run([buf, "build", "--output", "-"], cwd=ROOT / "protos", capture_output=True, check=True)
    assert document(read_words(built.stdout), DOCUMENT["info"]["version"]) == DOCUMENT


def test_it_is_valid() -> None:
    validate(DOCUMENT)


def test_it_has_every_method_and_says_who_may_call_it() -> None:
    methods = {
        (f"tickets.{api}.v1", method.name)
        for api in ("handoff", "helpdesk", "itsm")
        for method in Default().FindServiceByName(f"tickets.{api}.rest.v1.TicketRest").methods
    }
    found = {}
    for _, _, operation in OPERATIONS:
        api = next(api for api in ("handoff", "helpdesk", "itsm") if operation["operationId"].startswith(api))
        scopes = tuple(scope for one in operation["security"] for names in one.values() for scope in names)
        found[f"tickets.{api}.v1", operation["operationId"].removeprefix(api)] = scopes
    assert found == {method: POLICIES[method].scopes for method in methods}


@pytest.mark.parametrize(
    ("verb", "path", "operation"), OPERATIONS, ids=lambda value: "" if isinstance(value, dict) else value
)
def test_a_reader_finds_words_for_everything(verb: str, path: str, operation: Any) -> None:
    assert operation["summary"]
    assert operation["description"]
    own = {"id", "comment_id", "project_id", "ticket_id"}  # their path says what they are
    for parameter in operation["parameters"]:
        assert parameter.get("description") or parameter["name"] in own, parameter["name"]


def test_what_receivers_get_has_a_tag_of_its_own_as_generators_make_a_file_of_each() -> None:
    calls = {tag for _, _, operation in OPERATIONS for tag in operation["tags"]}
    received = {tag for item in DOCUMENT["webhooks"].values() for one in item.values() for tag in one["tags"]}
    assert not calls & received
    assert [tag["name"] for tag in DOCUMENT["tags"]] == [
        *dict.fromkeys(t for _, _, o in OPERATIONS for t in o["tags"]),
        *received,
    ]


def defaults(part: Any) -> Iterator[Any]:
    parts = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ()
    for name, value in parts:
        if name == "default" and "type" in part:
            yield value
        yield from defaults(value)


def test_no_default_is_an_object_for_which_openapi_python_client_leaves_out_the_call() -> None:
    found = list(defaults(DOCUMENT))
    assert found
    assert not [value for value in found if isinstance(value, dict)]


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("Reads one. NOT_FOUND: no such.", "Reads one."),
        ("One. `limit` says.\n\nMore.", "One."),
        ("Since version 1.2 of it\n\nMore.", "Since version 1.2 of it"),
        ("", ""),
    ],
)
def test_a_sentence_ends_where_another_begins(text: str, first: str) -> None:
    assert first_sentence(text) == first


@pytest.mark.parametrize(
    ("typed", "is_null", "json"),
    [
        ("The text of a JSON object; `{}` when absent.", False, "A JSON object; `{}` when absent."),
        ("Yours: the text of any JSON value.", False, "Yours: any JSON value."),
        ("As before. Cleared when named in `update_mask` and not set.", False, "As before. Null clears it."),
        ("Its etag. Not named in `update_mask`.", False, "Its etag."),
        ("Absent when there is none; never absent later.", True, "Null when there is none; never null later."),
        (
            "From then on. (In REST a date alone is its beginning.)",
            False,
            "From then on. A date alone is its beginning.",
        ),
        (
            "1–9; 5 when absent (in REST all of them, or 5 after it).",
            False,
            "1–9; all of them when absent, or 5 after it.",
        ),
        ("1–9. A typed page of large items is cut shorter.", False, "1–9."),
    ],
)
def test_words_of_typed_messages_are_said_of_json(typed: str, is_null: bool, json: str) -> None:
    assert in_json(typed, is_null=is_null) == json


@pytest.mark.parametrize(
    "word",
    ["update_mask", "Struct", "ABORTED", "INVALID_ARGUMENT", "NOT_FOUND", "gRPC", "In REST", "in REST", "yped page"],
)
def test_no_word_of_it_is_about_typed_messages(word: str) -> None:
    assert word not in json.dumps(DOCUMENT)
