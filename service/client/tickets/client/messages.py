"""Plain values into messages and messages into results, by the protobuf descriptors: nothing is listed twice.

A member has its documented name: `metadata` for the field `metadata_json`. Enums are words, JSON members are values,
instants are datetimes (one without a zone is UTC), and None is what is not there.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any, TypeAlias, TypeVar

from google.api import field_behavior_pb2
from google.protobuf import descriptor_pb2, message_factory
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

T = TypeVar("T")
# The two implementations of protobuf type their descriptors apart.
Descriptor: TypeAlias = Any
Field: TypeAlias = Any

_JSON = "_json"
_NO_SIDE_EFFECTS = descriptor_pb2.MethodOptions.NO_SIDE_EFFECTS
# What makes the result of a message, by the message's full name.
_RESULTS: dict[str, Callable[[Any], Any]] = {}


@dataclass(frozen=True, slots=True)
class Method:
    """One method of a service."""

    path: str
    request: Callable[..., Message]
    response: type[Message]
    # It changes nothing, so retrying it is safe.
    is_read: bool


def methods(*modules: Any) -> Mapping[str, Method]:
    """The methods of the services in generated modules, by name: no two services of an API share one."""
    return {
        method.name: Method(
            f"/{service.full_name}/{method.name}",
            message_factory.GetMessageClass(method.input_type),
            message_factory.GetMessageClass(method.output_type),
            method.GetOptions().idempotency_level == _NO_SIDE_EFFECTS,
        )
        for module in modules
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }


def result(message: type[Message]) -> Callable[[type[T]], type[T]]:
    """Register a dataclass as the result that callers get for a message: both have the same members.

    Register the results of nested messages first.
    """
    readers = {_name(field): _reader(field) for field in message.DESCRIPTOR.fields}

    def register(kind: type[T]) -> type[T]:
        # (That it is a dataclass, no type of `type[T]` can say.)
        differing = readers.keys() ^ {field.name for field in fields(kind)}  # type: ignore[arg-type]
        if differing:
            raise TypeError(f"{kind.__qualname__} and {message.DESCRIPTOR.full_name} differ in {sorted(differing)}")
        _RESULTS[message.DESCRIPTOR.full_name] = lambda sent: kind(
            **{name: read(sent) for name, read in readers.items()}
        )
        return kind

    return register


def read(kind: type[T], message: Message) -> T:
    """The result of a message. `kind` is the dataclass registered for it, and is there for type checkers only."""
    made: T = _RESULTS[message.DESCRIPTOR.full_name](message)
    return made


def write(
    make: Callable[..., Message], members: Mapping[str, object], changes: Mapping[str, object] | None = None
) -> Message:
    """A request of these members; None is left out. In `changes` None is null: `update_mask` names every one of them.

    One word stands for a sequence of it, and a result for the message that it was read from. Raises TypeError for an
    unknown member, a wrong type, or None where there must be a value; ValueError for a word that is in no vocabulary.
    """
    message: Any = make()
    _fill(message, {**members, **(changes or {})})
    if changes is not None:
        message.update_mask.paths.extend(_mask(message.DESCRIPTOR, changes))
    # protobuf's classes that are found by their descriptor have no types.
    return message  # type: ignore[no-any-return]


def _name(field: Field) -> str:
    name: str = field.name.removesuffix(_JSON)
    return name


def _words(field: Field) -> dict[int, str]:
    """The documented words of an enum: its values without the prefix that `…_UNSPECIFIED` has too."""
    prefix = field.enum_type.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return {value.number: value.name.removeprefix(prefix).lower() for value in field.enum_type.values}


def _is_timestamp(field: Field) -> bool:
    return field.message_type is not None and field.message_type.full_name == Timestamp.DESCRIPTOR.full_name


# Reading


def _reader(field: Field) -> Callable[[Any], Any]:
    name, value = field.name, _value_reader(field)
    if field.is_repeated:
        return lambda message: tuple(value(item) for item in getattr(message, name))
    if field.has_presence:
        return lambda message: value(getattr(message, name)) if message.HasField(name) else None
    return lambda message: value(getattr(message, name))


def _value_reader(field: Field) -> Callable[[Any], Any]:
    if field.enum_type is not None:
        words = _words(field)
        # A number of a later version of the vocabulary has no word in this one.
        return lambda number: words.get(number, str(number))
    if _is_timestamp(field):
        return lambda stamp: stamp.ToDatetime(tzinfo=UTC)
    if field.message_type is not None:
        return _RESULTS[field.message_type.full_name]
    if field.name.endswith(_JSON):
        return lambda text: json.loads(text) if text else None
    return lambda value: value


# Writing


def _fill(message: Any, members: Any) -> None:
    descriptor = message.DESCRIPTOR
    known = _members(descriptor)
    values = members if isinstance(members, Mapping) else asdict(members)
    for name, value in values.items():
        if name not in known:
            raise TypeError(f"{descriptor.full_name} has no member {name!r}")
        if value is not None:
            _set(message, known[name], value)
        elif _is_required(known[name]):
            raise _wrong_type(known[name], value)


def _is_required(field: Field) -> bool:
    return field_behavior_pb2.REQUIRED in field.GetOptions().Extensions[field_behavior_pb2.field_behavior]


def _members(descriptor: Descriptor) -> dict[str, Field]:
    return {_name(field): field for field in descriptor.fields if field.name != "update_mask"}


def _set(message: Any, field: Field, value: Any) -> None:
    if field.is_repeated and isinstance(value, Mapping):
        _update(getattr(message, field.name), field, value)
    elif field.is_repeated:
        is_sequence = isinstance(value, Iterable) and not isinstance(value, str | bytes)
        _extend(getattr(message, field.name), field, value if is_sequence else [value])
    elif _is_timestamp(field):
        if not isinstance(value, datetime):
            raise _wrong_type(field, value)
        getattr(message, field.name).FromDatetime(_in_utc(value))
    elif field.message_type is not None:
        getattr(message, field.name).SetInParent()
        _fill(getattr(message, field.name), value)
    else:
        given = _value(field, value)
        try:
            setattr(message, field.name, given)
        except TypeError:
            raise _wrong_type(field, value) from None


def _update(entries: Any, field: Field, words: Mapping[Any, Any]) -> None:
    for word in (*words, *words.values()):
        if not isinstance(word, str):
            raise _wrong_type(field, word)
    entries.update(words)


def _extend(repeated: Any, field: Field, items: Iterable[Any]) -> None:
    if field.message_type is None:
        for item in items:
            given = _value(field, item)
            try:
                repeated.append(given)
            except TypeError:
                raise _wrong_type(field, item) from None
    else:
        for item in items:
            _fill(repeated.add(), item)


def _value(field: Field, value: Any) -> Any:
    if field.enum_type is not None:
        return _number(field, value)
    if field.name.endswith(_JSON):
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    if isinstance(value, bytes):
        raise _wrong_type(field, value)  # which protobuf would take for text
    return value


def _wrong_type(field: Field, value: Any) -> TypeError:
    return TypeError(f"{_name(field)} takes no {type(value).__name__}")


def _number(field: Field, word: Any) -> int:
    numbers = {word: number for number, word in _words(field).items() if number}
    if not isinstance(word, str) or word not in numbers:
        raise ValueError(f"{_name(field)}: {word!r} is none of {', '.join(numbers)}")
    return numbers[word]


def _in_utc(instant: datetime) -> datetime:
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)


def _mask(descriptor: Descriptor, changes: Mapping[str, Any]) -> Iterable[str]:
    """The paths of what changes; what is null within a member is named too: `role_status.blocking_reason`."""
    known = _members(descriptor)
    for name, value in changes.items():
        field = known[name]
        yield field.name
        if field.message_type is not None and isinstance(value, Mapping):
            yield from (f"{field.name}.{inner}" for inner, item in value.items() if item is None)
