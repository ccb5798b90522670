"""The schemas of answers: what the views' TypedDicts say, in the words of their messages."""

from collections.abc import Mapping
from datetime import datetime
from types import NoneType, UnionType
from typing import Any, Literal, NotRequired, Union, get_args, get_origin, get_type_hints, is_typeddict
from uuid import UUID

from service.jsontext import JsonText
from service.openapi.words import in_json
from service.transport.view_types import Descriptor

Schema = dict[str, Any]

_JSON = "_json"
_SCALARS: Mapping[Any, Schema] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    UUID: {"type": "string", "format": "uuid"},
    datetime: {"type": "string", "format": "date-time"},
    # Any JSON that was sent, which is kept as it is.
    JsonText: {},
    Any: {},
}
# JSON that is kept as it came is an object, but for tags, which may be any value.
_OBJECTS = frozenset({"metadata", "evidence", "changes"})


class Answers:
    """The schemas of one API's answers, collected under their names."""

    def __init__(self, api: str, schemas: dict[str, Schema], words: Mapping[str, str]) -> None:
        """`schemas` is where they are collected; `words` are the comments of the protos."""
        self._api = api
        self._schemas = schemas
        self._words = words

    def of_method(self, view: type, output: Descriptor) -> Schema:
        """The schema of a view that a typed method answers with this message, or wraps in it."""
        members = set(get_type_hints(view))
        fields = {field.name.removesuffix(_JSON) for field in output.fields} - {"etag"}
        message = output if members == fields else output.fields[0].message_type
        return self.reference(view, message)

    def reference(self, view: type, message: Descriptor | None) -> Schema:
        """A reference to the schema of a TypedDict, which is made by the first one."""
        name = self._api + view.__name__
        if name not in self._schemas:
            self._schemas[name] = {}
            self._schemas[name].update(self._object(view, message))
        return {"$ref": f"#/components/schemas/{name}"}

    def without_required(self, reference: Schema, member: str, of: str) -> Schema:
        """A reference to the same schema with one member that may be absent, under the name of a method."""
        schema = self._schemas[reference["$ref"].rpartition("/")[2]]
        name = self._api + of
        self._schemas[name] = {**schema, "required": [name for name in schema["required"] if name != member]}
        return {"$ref": f"#/components/schemas/{name}"}

    def _object(self, view: type, message: Descriptor | None) -> Schema:
        hints = get_type_hints(view, include_extras=True)
        fields = {} if message is None else {field.name.removesuffix(_JSON): field for field in message.fields}
        about = (view.__doc__ or "") if message is None else self._words.get(message.full_name, view.__doc__ or "")
        required = [name for name, kind in hints.items() if get_origin(kind) is not NotRequired]
        properties = {name: self._member(name, kind, fields.get(name)) for name, kind in hints.items()}
        return {
            "type": "object",
            "description": about,
            "properties": properties,
            **({"required": required} if required else {}),
        }

    def _member(self, name: str, kind: Any, field: Descriptor | None) -> Schema:
        if get_origin(kind) is NotRequired:
            (kind,) = get_args(kind)
        schema = self._value(name, kind, field)
        is_null = not schema or "null" in schema.get("type", ()) or {"type": "null"} in schema.get("anyOf", ())
        about = "" if field is None else in_json(self._words.get(field.full_name, ""), is_null=is_null)
        return {**schema, "description": about} if about else schema

    def _value(self, name: str, kind: Any, field: Descriptor | None) -> Schema:
        if get_origin(kind) in (Union, UnionType):
            kinds = get_args(kind)
            (kind,) = (one for one in kinds if one is not NoneType)
            return nullable(self._value(name, kind, field))
        if get_origin(kind) is Literal:
            return {"type": "string", "enum": list(get_args(kind))}
        if get_origin(kind) is list:
            return {"type": "array", "items": self._value(name, get_args(kind)[0], field)}
        if is_typeddict(kind):
            return self.reference(kind, None if field is None else field.message_type)
        if get_origin(kind) in (dict, Mapping):
            return {"type": "object", "additionalProperties": self._value(name, get_args(kind)[1], None)}
        if kind is JsonText and name in _OBJECTS:
            return {"type": "object", "additionalProperties": True}
        return dict(_SCALARS[kind])


def nullable(schema: Schema) -> Schema:
    """The schema of the same or null."""
    if not schema:
        return schema  # anything: null too
    if "type" not in schema:
        return {"anyOf": [schema, {"type": "null"}]}
    words = {"enum": [*schema["enum"], None]} if "enum" in schema else {}
    return {**schema, "type": [schema["type"], "null"], **words}
