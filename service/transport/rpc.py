"""gRPC servicers: a typed message into a command, a view into a typed message, a failure into a status with details."""

from collections.abc import AsyncIterator, Callable, Container, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, NoReturn, TypeAlias

import grpc
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from service import jsontext
from service.errors import ECHO_LENGTH, REASONS, TicketError, invalid
from service.fields import Command
from service.jsontext import JsonText
from service.operation import CALL, Answer, Call, Operation, View
from service.transport.dialect import Servicer
from service.transport.status_details import details_of, message_of
from service.transport.view_types import Descriptor, Field, check_view, enum_prefix
from service.watch import Watch

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Sections = Mapping[str, Any]

_JSON = "_json"
# A precondition and not a member to change, so no mask names it.
_CONDITION = "etag"
_TIMESTAMP = "google.protobuf.Timestamp"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def unary(operation: Operation[Any], request: type[Message], response: type[Message], *, wrap: str = "") -> Any:
    """The method of a typed service that runs an operation.

    `wrap` names the response's field that holds the view, where the documented JSON is the bare resource.
    """
    read, write = _reader(operation.command, request.DESCRIPTOR), writer(response)
    answer = response.DESCRIPTOR.fields_by_name[wrap].message_type if wrap else response.DESCRIPTOR
    check_view(operation.view, answer)

    async def method(self: Servicer, request: Any, context: Context) -> Message:
        call = CALL.get()
        view = await operation(self.dependencies, call, read(request, call))
        if call.replayed:
            context.set_trailing_metadata((("x-request-id", call.request_id), ("idempotent-replayed", "true")))
        if call.etag is not None:
            view = {**view, "etag": call.etag}
        return write({wrap: view} if wrap else view)

    return method


def watch(watch: Watch[Any], request: type[Message], response: type[Message]) -> Any:
    """The method of a typed service that streams a watch."""
    read, write = _reader(watch.command, request.DESCRIPTOR), writer(response)
    check_view(watch.view, response.DESCRIPTOR)

    async def method(self: Servicer, request: Any, context: Context) -> AsyncIterator[Message]:
        call = CALL.get()
        async for view in watch(self.dependencies.feed, call, read(request, call)):
            yield write(view)

    return method


class Failures:
    """How failures leave a typed service: a status with `google.rpc` details."""

    def begin(self, context: Context, request_id: str) -> None:
        """Put the request's id into the trailing metadata."""
        context.set_trailing_metadata((("x-request-id", request_id),))

    async def fail(self, context: Context, error: TicketError, answer: Answer) -> NoReturn:
        """Abort the call with the failure's status and details."""
        trailing = (*(context.trailing_metadata() or ()), ("grpc-status-details-bin", details_of(error)))
        await context.abort(REASONS[error.reason].status, message_of(error), trailing)

    async def break_off(self, context: Context, error: TicketError) -> NoReturn:
        """Fail as usual: the status comes last anyway."""
        await self.fail(context, error, CALL.get().answer)


def _reader(command: type[Command], descriptor: Descriptor) -> Callable[[Any, Call], Sections]:
    """Returns what sorts a typed request into the sections of a command: the members set, by their documented names."""
    sections = command.sections()
    section_of = {name: section for section, names in sections.items() for name in names if section != "header"}
    # A filter is never ignored: one that is set to UNSPECIFIED is rejected, like a word that its vocabulary lacks.
    unspecified = {name: "unspecified" for name, section in section_of.items() if section == "query"}
    readers = {
        field.name: (_name(field), _field_reader(field, unspecified.get(_name(field)))) for field in descriptor.fields
    }
    has_mask = readers.pop("update_mask", None) is not None
    unknown = [name for name, _ in readers.values() if name not in section_of]
    if unknown:
        raise TypeError(f"{command.__name__} has no place for {unknown} of {descriptor.full_name}")
    maskable = {
        field: name for field, (name, _) in readers.items() if section_of[name] == "body" and name != _CONDITION
    }

    def read(request: Any, call: Call) -> Sections:
        found: dict[str, Any] = {section: {} for section in sections}
        for name, field_reader in readers.values():
            value = field_reader(request)
            if value is not None:
                found[section_of[name]][name] = value
        if has_mask and request.HasField("update_mask"):
            given = found["body"]
            found["body"] = _masked(descriptor, request.update_mask.paths, maskable, given)
            if _CONDITION in given:
                found["body"][_CONDITION] = given[_CONDITION]
        if "header" in sections:
            found["header"] = call.headers()
        call.body = found.get("body")
        return found

    return read


def _masked(
    descriptor: Descriptor, paths: Iterable[str], fields: Mapping[str, str], given: Mapping[str, Any]
) -> dict[str, Any]:
    """The members that the mask names: what is named and not given is null, what is given and not named is left out.

    A member of a member (`role_status.blocking_reason`) is null when it is named and not given.
    """
    members: dict[str, Any] = {}
    for path in paths:
        field, dot, inner = path.partition(".")
        if field not in fields or (dot and inner not in _inner_names(descriptor, field)):
            raise invalid(
                "body", "update_mask", f"Input should name fields that can be changed, not {path[:ECHO_LENGTH]}"
            )
        name = fields[field]
        members.setdefault(name, given.get(name, [] if descriptor.fields_by_name[field].is_repeated else None))
        if inner:
            members[name] = {inner: None} | (members[name] or {})
    return members


def _inner_names(descriptor: Descriptor, field: str) -> Container[str]:
    """The members of a member; none of a list or an instant, which are replaced whole."""
    message = descriptor.fields_by_name[field].message_type
    is_whole = message is None or message.full_name == _TIMESTAMP or descriptor.fields_by_name[field].is_repeated
    return () if is_whole else message.fields_by_name


def _name(field: Field) -> str:
    name: str = field.name.removesuffix(_JSON)
    return name


def _field_reader(field: Field, unspecified: str | None = None) -> Callable[[Any], Any]:
    """Reads one field of a message; None when it is absent. An implicit default (empty, 0, false) is absent too.

    `unspecified` is what the first value of an enum means: absent, unless it is given.
    """
    name, value = field.name, _value_reader(field, unspecified)
    if field.is_repeated and field.message_type is not None and field.message_type.GetOptions().map_entry:
        return lambda message: dict(getattr(message, name)) or None
    if field.is_repeated:
        return lambda message: [value(item) for item in getattr(message, name)] or None
    if field.has_presence:
        return lambda message: value(getattr(message, name)) if message.HasField(name) else None
    return lambda message: value(getattr(message, name)) if getattr(message, name) else None


def _value_reader(field: Field, unspecified: str | None) -> Callable[[Any], Any]:
    if field.enum_type is not None:
        prefix = enum_prefix(field)
        words = {value.number: value.name.removeprefix(prefix).lower() for value in field.enum_type.values}
        words[0] = unspecified
        # A number that the enum does not have is rejected like a word that the vocabulary does not have.
        return lambda number: words.get(number, str(number))
    if field.message_type is not None and field.message_type.full_name == _TIMESTAMP:
        return lambda stamp: _datetime(field.name, stamp)
    if field.name.endswith(_JSON):
        return lambda text: _json(field.name, text)
    if field.message_type is not None:
        members = [(_name(member), _field_reader(member)) for member in field.message_type.fields]
        return lambda message: {name: value for name, read in members if (value := read(message)) is not None}
    return lambda value: value


def _datetime(name: str, stamp: Any) -> Any:
    try:
        return stamp.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise invalid("body", name, "Input should be a valid datetime", "datetime_parsing") from None


def _json(name: str, text: str) -> Any:
    try:
        value = jsontext.parse_request(text.encode())
    except jsontext.TooManyValuesError as error:
        raise TicketError("payload_too_large", f"The member {name} has {error}") from None
    except ValueError:
        raise invalid("body", name, "Input should be the text of a JSON value", "json_invalid") from None
    if value is None:
        raise invalid("body", name, "Input should be the text of a JSON value that is not null", "json_invalid")
    return value


def writer(message: type[Message]) -> Callable[[View], Message]:
    """Makes messages of one type out of views. A member that is null or absent in the view stays unset."""
    write = _fields_writer(message.DESCRIPTOR)
    return lambda view: message(**write(view))


def _fields_writer(descriptor: Descriptor) -> Callable[[View], dict[str, Any]]:
    """Makes the constructor arguments of a message: inner messages stay dicts, so that none is built twice."""
    fields = [(_name(field), field.name, _field_writer(field)) for field in descriptor.fields]

    def write(view: View) -> dict[str, Any]:
        written = {}
        for name, field, value_of in fields:
            value = view.get(name)
            if value is not None:
                written[field] = value if value_of is None else value_of(value)
        return written

    return write


def _field_writer(field: Field) -> Callable[[Any], Any] | None:
    """What converts a view's value for a field; None when no conversion is needed."""
    value = _value_writer(field)
    if field.is_repeated and value is not None:
        return lambda items: [value(item) for item in items]
    return value


def _value_writer(field: Field) -> Callable[[Any], Any] | None:
    if field.enum_type is not None:
        prefix = enum_prefix(field)
        numbers = {value.name.removeprefix(prefix).lower(): value.number for value in field.enum_type.values}
        return numbers.__getitem__
    if field.message_type is not None:
        return _stamp if field.message_type.full_name == _TIMESTAMP else _fields_writer(field.message_type)
    if field.name.endswith(_JSON):
        return _json_text
    return str if field.type == FieldDescriptor.TYPE_STRING else None


def _json_text(value: Any) -> str:
    text: str = value.text if isinstance(value, JsonText) else jsontext.dump(value).decode()
    return text


def _stamp(instant: datetime | str) -> dict[str, int]:
    # A stored answer of an idempotency key has instants as text.
    since = (datetime.fromisoformat(instant) if isinstance(instant, str) else instant) - _EPOCH
    return {"seconds": since.days * 86400 + since.seconds, "nanos": since.microseconds * 1000}
