"""What generators and readers find in the protos: options, what callers must set and may not, vocabularies."""

import re
from collections.abc import Collection, Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NotRequired, Union, get_args, get_origin, get_type_hints, is_typeddict

import pytest
from google.api import field_behavior_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from support.fuzz import Endpoint, endpoints

from service.fields import Section, other_names
from service.handoff.commands import RoleChange
from service.helpdesk.commands import Hours

ROOT = Path(__file__).parents[2]
FILES = {
    file.name: file
    for file in FileDescriptorSet.FromString((ROOT / "gen/tickets.binpb").read_bytes()).file
    if file.package.startswith("tickets.")
}


def options(file: FileDescriptorProto) -> dict[str, str | bool]:
    """What a file says to each generator: packages by the language's own custom, one for all files of a package.

    Java's outer class would else be named after the file, and be in the way of its first message.
    """
    words = file.package.split(".")
    names = [word.capitalize() for word in words]
    stem = "".join(word.capitalize() for word in Path(file.name).stem.split("_"))
    return {
        "csharp_namespace": ".".join(names),
        "go_package": f"github.com/tickets-service/tickets/gen/go/{'/'.join(words)};{''.join(words[1:])}",
        "java_multiple_files": True,
        "java_outer_classname": f"{stem}Proto",
        "java_package": ".".join(["io.github.tickets_service", *words[1:]]),
        "objc_class_prefix": "".join(names[:-1]),
        "php_metadata_namespace": "\\".join([*names, "GPBMetadata"]),
        "php_namespace": "\\".join(names),
        "ruby_package": "::".join(names),
    }


@pytest.mark.parametrize("name", FILES)
def test_a_proto_says_where_its_code_goes_in_every_language(name: str) -> None:
    assert {option.name: value for option, value in FILES[name].options.ListFields()} == options(FILES[name])


ENDPOINTS = {(endpoint.api, endpoint.name): endpoint for endpoint in endpoints()}
# Members of members.
NESTED = [
    (ENDPOINTS["handoff", "UpdateTicket"].typed.input_type.fields_by_name["role_status"].message_type, RoleChange),
    (ENDPOINTS["helpdesk", "UpdateCalendar"].typed.input_type.fields_by_name["hours"].message_type, Hours),
]


def marked(message: Any, behavior: int) -> set[str]:
    """The documented names of a message's members with this behavior."""
    return {
        field.name.removesuffix("_json")
        for field in message.fields
        if behavior in field.GetOptions().Extensions[field_behavior_pb2.field_behavior]
    }


def required(section: type[Section], message: Any) -> set[str]:
    """What the section of a command cannot do without; a member that may come by another name is not it."""
    others = {name for other, name in other_names(section).items() if other in message.fields_by_name}
    return {name for name, field in section.model_fields.items() if field.is_required()} - others


@pytest.mark.parametrize("endpoint", ENDPOINTS.values(), ids=lambda endpoint: f"{endpoint.api}.{endpoint.name}")
def test_a_request_marks_what_its_command_requires_and_nothing_else(endpoint: Endpoint) -> None:
    message, sections = endpoint.typed.input_type, endpoint.command.model_fields
    # A path has all of its variables: there is no address without one.
    asked = set(endpoint.command.sections().get("path", ()))
    for section in ("query", "body"):
        if section in sections:
            kind: Any = sections[section].annotation
            asked |= required(kind, message)
    assert marked(message, field_behavior_pb2.REQUIRED) == asked


@pytest.mark.parametrize(("message", "section"), NESTED, ids=["RoleChange", "BusinessHours"])
def test_a_member_of_a_request_marks_what_is_required_of_it(message: Any, section: type[Section]) -> None:
    assert marked(message, field_behavior_pb2.REQUIRED) == required(section, message)


# What callers write too, and the methods that write it; the member of their answers that has it.
WRITTEN: dict[tuple[str, str], Collection[str]] = {
    ("handoff", "ticket"): ("CreateTicket", "UpdateTicket", "ReportDeployment"),
    ("helpdesk", "ticket"): ("CreateTicket", "UpdateTicket"),
    ("helpdesk", "comment"): ("CreateComment", "UpdateComment"),
    ("helpdesk", "sla_policy"): ("CreateSlaPolicy", "UpdateSlaPolicy"),
    ("helpdesk", "calendar"): ("UpdateCalendar",),
    ("itsm", "ticket"): ("CreateTicket", "UpdateTicket"),
    ("itsm", "webhook"): ("CreateWebhook", "UpdateWebhook"),
    ("admin", "account"): ("CreateAccount",),
    ("admin", "api_key"): ("CreateApiKey",),
    ("admin", "project"): ("CreateProject", "UpdateProject"),
    ("admin", "member"): ("AddMember",),
    ("admin", "tenant"): ("CreateTenant",),
    ("admin", "link"): ("LinkProvider",),
}
# Members of requests that are conditions.
NOT_SET = {"etag", "updated_at"}


@pytest.mark.parametrize(("api", "member"), WRITTEN)
def test_a_resource_marks_what_no_request_sets(api: str, member: str) -> None:
    sets: set[str] = set()
    for name in WRITTEN[api, member]:
        sections = ENDPOINTS[api, name].command.sections()
        # The id in a path names what there is already; the others name what it is made in.
        sets |= {*sections["body"], *(set(sections.get("path", ())) - {"id"})} - NOT_SET
    message = ENDPOINTS[api, name].typed.output_type.fields_by_name[member].message_type
    members = {field.name.removesuffix("_json") for field in message.fields}
    assert marked(message, field_behavior_pb2.OUTPUT_ONLY) == members - sets


def test_a_role_marks_what_its_change_does_not_set() -> None:
    role = ENDPOINTS["handoff", "GetTicket"].typed.output_type.fields_by_name["ticket"].message_type
    role = role.fields_by_name["roles"].message_type
    members = {field.name for field in role.fields}
    assert marked(role, field_behavior_pb2.OUTPUT_ONLY) == members - RoleChange.model_fields.keys()


# A word that is an identifier in every language.
IDENTIFIER = re.compile("[a-z][a-z_]*")


def words(kind: Any) -> frozenset[str]:
    """The vocabulary of a member, or of the items of a list; empty where other values may stand beside its words."""
    if get_origin(kind) in (Annotated, NotRequired):
        return words(get_args(kind)[0])
    if get_origin(kind) is list:
        return words(get_args(kind)[0])
    if get_origin(kind) is Literal:
        return frozenset(get_args(kind))
    if get_origin(kind) in (Union, UnionType):
        kinds = [words(one) for one in get_args(kind) if one is not NoneType]
        return frozenset().union(*kinds) if all(kinds) else frozenset()
    return frozenset()


def vocabularies() -> Iterator[tuple[Any, frozenset[str]]]:
    """Each field of a request or a response whose values have a vocabulary, with its words."""
    for endpoint in ENDPOINTS.values():
        for section in ("query", "body"):
            if section in endpoint.command.model_fields:
                kind: Any = endpoint.command.model_fields[section].annotation
                yield from _of(kind, endpoint.typed.input_type)
        yield from _of(endpoint.view, _resource(endpoint))
    for message, section_of in NESTED:
        yield from _of(section_of, message)


def _resource(endpoint: Endpoint) -> Any:
    """The message of the view: the answer, or the one resource in it."""
    answer = endpoint.typed.output_type
    names = {field.name.removesuffix("_json") for field in answer.fields}
    return answer if names == get_type_hints(endpoint.view).keys() else answer.fields[0].message_type


def _of(kind: Any, message: Any) -> Iterator[tuple[Any, frozenset[str]]]:
    fields = {field.name.removesuffix("_json"): field for field in message.fields}
    for name, member in get_type_hints(kind, include_extras=True).items():
        if name in fields and words(member):
            yield fields[name], words(member)
        for inner in (member, *get_args(member)):
            if is_typeddict(inner) and name in fields:
                yield from _of(inner, fields[name].message_type)


VOCABULARIES = {(field.full_name, told): field for field, told in vocabularies()}


def comment(message: str, field: str) -> str:
    """What a proto says above a field."""
    package, _, name = message.rpartition(".")
    for path in (ROOT / "protos" / package.replace(".", "/")).glob("*.proto"):
        block = re.search(rf"^message {name} {{\n(.*?)^}}", path.read_text(), re.MULTILINE | re.DOTALL)
        said = block and re.search(rf"((?:^  //[^\n]*\n)+)^  [^\n/]* {field} = ", block[1], re.MULTILINE)
        if said:
            return said[1]
    raise LookupError(f"{message}.{field}")


def test_there_are_vocabularies() -> None:
    assert {field.name for field in VOCABULARIES.values()} >= {"status", "resolution_type", "sort", "events", "weekday"}


@pytest.mark.parametrize(("name", "told"), VOCABULARIES, ids=lambda part: part if isinstance(part, str) else "")
def test_a_vocabulary_is_an_enum_where_it_can_be_and_is_listed_where_not(name: str, told: frozenset[str]) -> None:
    field = VOCABULARIES[name, told]
    if all(IDENTIFIER.fullmatch(word) for word in told):
        assert field.enum_type is not None, "its words are identifiers"
        prefix = field.enum_type.values[0].name.removesuffix("UNSPECIFIED")
        assert {value.name.removeprefix(prefix).lower() for value in field.enum_type.values if value.number} == told
    else:
        said = comment(field.containing_type.full_name, field.name)
        other = re.search(r"\bCreate\w+", said)
        if other:
            said = comment(f"{field.file.package}.{other[0]}Request", field.name)
        assert told <= set(re.findall(r"`(.*?)`", said))
