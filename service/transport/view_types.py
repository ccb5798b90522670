"""Checks, when a service is imported, that its views and its typed messages have the same members and types."""

import re
from collections.abc import Collection, Mapping
from datetime import datetime
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    TypeAlias,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)
from uuid import UUID

from google.protobuf.descriptor import FieldDescriptor

from service.jsontext import JsonText

# protobuf's two implementations (C and Python) have descriptor classes of their own.
Descriptor: TypeAlias = Any
Field: TypeAlias = Any

_JSON = "_json"
# In typed messages alone: over REST it is a header.
_ETAG = "etag"
_TIMESTAMP = "google.protobuf.Timestamp"
_SCALARS: Mapping[type, Collection[int]] = {
    str: (FieldDescriptor.TYPE_STRING,),
    UUID: (FieldDescriptor.TYPE_STRING,),
    bool: (FieldDescriptor.TYPE_BOOL,),
    int: (
        FieldDescriptor.TYPE_INT32,
        FieldDescriptor.TYPE_INT64,
        FieldDescriptor.TYPE_UINT32,
        FieldDescriptor.TYPE_UINT64,
    ),
    float: (FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT),
}


def check_view(view: type, descriptor: Descriptor) -> None:
    """Raise TypeError unless a TypedDict has the members of a message, each of a type that the field can carry.

    A member that may be null or absent is a field with presence; a vocabulary is the enum's values.
    """
    where = f"{view.__name__} and {descriptor.full_name}"
    if not is_typeddict(view):
        raise TypeError(f"{where}: the view is not a TypedDict")
    members = get_type_hints(view, include_extras=True)
    fields = {field.name.removesuffix(_JSON): field for field in descriptor.fields if field.name != _ETAG}
    if members.keys() != fields.keys():
        raise TypeError(f"{where} differ in {sorted(members.keys() ^ fields.keys())}")
    for name, member in members.items():
        _check_member(f"{where}, {name}", member, fields[name])


def _check_member(where: str, member: Any, field: Field) -> None:
    kind, may_lack = _without_none(member)
    if may_lack and not (field.has_presence or field.is_repeated):
        raise TypeError(f"{where}: may be null or absent, but the field cannot say so")
    if field.name.endswith(_JSON):
        if kind not in (JsonText, Any) and get_origin(kind) not in (dict, list, Mapping):
            raise TypeError(f"{where}: {kind} is no JSON value")
        return
    if field.is_repeated:
        if get_origin(kind) is not list:
            raise TypeError(f"{where}: the field is repeated, {kind} is no list")
        (kind,) = get_args(kind)
    _check_value(where, kind, field)


def _without_none(member: Any) -> tuple[Any, bool]:
    """A member's type without NotRequired and None, and whether it may be one of them."""
    may_lack = False
    if get_origin(member) is NotRequired:
        (member,), may_lack = get_args(member), True
    if get_origin(member) is Annotated:
        member = get_args(member)[0]
    if get_origin(member) in (Union, UnionType):
        kinds = [kind for kind in get_args(member) if kind is not NoneType]
        may_lack = may_lack or len(kinds) < len(get_args(member))
        member = kinds[0] if len(kinds) == 1 else Union[tuple(kinds)]  # noqa: UP007 - made at run time
    return member, may_lack


def _check_value(where: str, kind: Any, field: Field) -> None:
    if get_origin(kind) is Literal:
        _check_words(where, get_args(kind), field)
    elif field.enum_type is not None:
        raise TypeError(f"{where}: the field is an enum, {kind} is no Literal")
    elif is_typeddict(kind):
        if field.message_type is None:
            raise TypeError(f"{where}: the field is no message")
        check_view(kind, field.message_type)
    elif field.message_type is not None:
        if field.message_type.full_name != _TIMESTAMP or kind is not datetime:
            raise TypeError(f"{where}: {kind} is no {field.message_type.full_name}")
    elif field.type not in _SCALARS.get(kind, ()):
        raise TypeError(f"{where}: {kind} does not fit the field")


def _check_words(where: str, words: Collection[str], field: Field) -> None:
    if field.enum_type is None:
        if field.type != FieldDescriptor.TYPE_STRING:
            raise TypeError(f"{where}: a vocabulary is an enum or a string")
        return
    prefix = enum_prefix(field)
    values = {value.name.removeprefix(prefix).lower() for value in field.enum_type.values if value.number}
    if set(words) != values:
        raise TypeError(f"{where}: the vocabularies differ in {sorted(set(words) ^ values)}")


def enum_prefix(field: Field) -> str:
    """What every value of a field's enum begins with: `REQUEST_TYPE_` for RequestType."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", field.enum_type.name).upper() + "_"
