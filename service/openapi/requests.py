"""The schemas of requests: what the commands' sections say (pydantic), in the words of the typed requests."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from service.fields import Creation, Section, other_names
from service.jsontext import JsonText
from service.openapi.answers import Schema, nullable
from service.openapi.words import in_json
from service.transport.view_types import Descriptor

# What a schema of pydantic's says that is of no use to a reader.
_NOISE = frozenset({"title"})
_REFERENCE = "#/components/schemas/"


class Generator(GenerateJsonSchema):
    """Pydantic's, which also knows how defaults that are JSON texts look."""

    def encode_default(self, value: Any) -> Any:
        """The default as JSON."""
        return json.loads(value.text) if isinstance(value, JsonText) else super().encode_default(value)

    def emit_warning(self, kind: Any, detail: str) -> None:
        """Raise TypeError: what has no schema is not left out."""
        raise TypeError(f"{kind}: {detail}")


class Requests:
    """The schemas of one API's requests; bodies and what is in them are collected under their names."""

    def __init__(self, api: str, schemas: dict[str, Schema], words: Mapping[str, str]) -> None:
        """`schemas` is where they are collected; `words` are the comments of the protos."""
        self._api = api
        self._schemas = schemas
        self._words = words

    def body(self, section: type[Section], message: Descriptor) -> Schema:
        """A reference to the schema of a body."""
        name = f"{self._api}{section.__name__}"
        if name not in self._schemas:
            self._schemas[name] = self._section(section, message)
        return {"$ref": _REFERENCE + name}

    def parameters(self, section: type[Section], where: str, message: Descriptor, members_of: str) -> Iterator[Schema]:
        """The parameters of a path, a query or the headers."""
        schema = self._section(section, message, is_body=False)
        for name, found in schema["properties"].items():
            if name == members_of:
                yield _by_members(name, found)
                continue
            member = dict(found)
            about = member.pop("description", "")
            if where == "path":
                member.pop("default", None)  # it is always there
            is_list = member.get("type") == "array"
            yield {
                "name": name,
                "in": where,
                "required": where == "path" or name in schema.get("required", ()),
                **({"description": about} if about else {}),
                "schema": self._alternatives(name, member) if "anyOf" in member else member,
                **({"style": "form", "explode": False} if is_list else {}),
            }

    def _alternatives(self, parameter: str, schema: Schema) -> Schema:
        """A reference to them: oapi-codegen makes no type, and so no value, of alternatives without a name."""
        name = self._api + "".join(word.capitalize() for word in parameter.split("_"))
        if self._schemas.setdefault(name, schema) != schema:
            raise ValueError(f"{parameter} of the {self._api} API has two meanings")
        return {"$ref": _REFERENCE + name}

    def _section(self, section: type[Section], message: Descriptor, *, is_body: bool = True) -> Schema:
        schema: Schema = section.model_json_schema(
            ref_template=_REFERENCE + self._api + "{model}", schema_generator=Generator
        )
        inner = schema.pop("$defs", {})
        for name, found in inner.items():
            self._schemas.setdefault(self._api + name, _tidy(found))
        schema = _tidy(schema)
        fields = {field.name.removesuffix("_json"): field for field in message.fields}
        properties = schema.setdefault("properties", {})
        for name, member in properties.items():
            if about := self._about(fields.get(name.replace("-", "_"))):
                # A list is never null.
                is_list = member.get("type") == "array"
                member["description"] = about.replace("Null clears", "An empty one clears") if is_list else about
            if issubclass(section, Creation) and name not in schema.get("required", ()):
                properties[name] = _or_null(member)
            elif is_body and not issubclass(section, Creation):
                member.pop("default", None)  # what a change leaves out stays as it is
            elif not is_body:
                properties[name] = _never_null(member)
        self._add_other_names(section, schema)
        for name in sorted(getattr(section, "stamped", ())) if is_body else ():
            properties.setdefault(name, {"readOnly": True, "description": "Ignored: the service makes it."})
        return schema

    def _about(self, field: Descriptor | None) -> str:
        return "" if field is None else in_json(self._words.get(field.full_name, ""))

    @staticmethod
    def _add_other_names(section: type[Section], schema: Schema) -> None:
        properties = schema["properties"]
        for other, name in other_names(section).items():
            same = {key: value for key, value in properties[name].items() if key not in ("default", "description")}
            properties[other] = {**same, "deprecated": True, "description": f"Another name of `{name}`."}
            if name in schema.get("required", ()):
                about, words = properties[name].get("description", ""), f"Required, here or as `{other}`"
                properties[name]["description"] = about if words in about else words + about.removeprefix("Required")
                _require_one(schema, name, other)


def _require_one(schema: Schema, name: str, other: str) -> None:
    """Require a member or else its other name.

    As a condition, which generators pass over: of alternatives with members required they make types of their own, or
    leave the members out. So they take both for optional.
    """
    schema["required"].remove(name)
    schema |= {"if": {"required": [other]}, "else": {"required": [name]}}


def _tidy(schema: Any) -> Any:
    """The schema without noise; an alternative of one kind and null is said as two types."""
    if isinstance(schema, list):
        return [_tidy(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "properties" in schema:
        properties = {name: _tidy(member) for name, member in schema["properties"].items()}
        schema = {**schema, "properties": properties}
    tidy = {
        name: value if name in ("properties", "default", "enum") else _tidy(value)
        for name, value in schema.items()
        # openapi-python-client leaves out a schema with an object for a default, and each call with it: words say it.
        if name not in _NOISE and not (name == "default" and (value is None or isinstance(value, dict)))
    }
    kinds = tidy.get("anyOf", ())
    if len(kinds) == 2 and {"type": "null"} in kinds:
        (kind,) = (one for one in kinds if one != {"type": "null"})
        rest = {name: value for name, value in tidy.items() if name != "anyOf"}
        return {**nullable(kind), **rest}
    if "const" in tidy:
        tidy["enum"] = [tidy.pop("const")]
    return tidy


def _or_null(member: Schema) -> Schema:
    is_null = "null" in member.get("type", ()) or {"type": "null"} in member.get("anyOf", ())
    return member if is_null else {**nullable(member), **_about(member)}


def _about(member: Schema) -> Schema:
    return {"description": member["description"]} if "description" in member else {}


def _never_null(member: Schema) -> Schema:
    """A parameter cannot say null: it is absent then."""
    if "anyOf" in member:
        kinds = [kind for kind in member["anyOf"] if kind != {"type": "null"}]
        rest = {name: value for name, value in member.items() if name != "anyOf"}
        return {**rest, **kinds[0]} if len(kinds) == 1 else {**rest, "anyOf": kinds}
    if isinstance(member.get("type"), list):
        (kind,) = (kind for kind in member["type"] if kind != "null")
        words = {"enum": [word for word in member["enum"] if word is not None]} if "enum" in member else {}
        return {**member, "type": kind, **words}
    return member


def _by_members(name: str, member: Schema) -> Schema:
    """A parameter for each member of an object, `metadata.floor=3`: an exploded form whose names have a prefix."""
    return {
        "name": name,
        "in": "query",
        "required": False,
        "description": f"{member.get('description', '')} Each is a parameter of its own: `{name}.floor=3`.".strip(),
        "style": "form",
        "explode": True,
        "schema": {
            "type": "object",
            "propertyNames": {"pattern": rf"^{name}\..+$"},
            "additionalProperties": member["additionalProperties"],
            "maxProperties": member["maxProperties"],
        },
    }
