"""The document: paths from `google.api.http`, everything else from what serves them."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from google.api import annotations_pb2

from service.access.policy import POLICIES, Policy
from service.errors import REASONS
from service.fields import WriteHeaders
from service.openapi import examples, failures, webhooks
from service.openapi.answers import Answers, Schema
from service.openapi.requests import Requests
from service.openapi.words import first_sentence, in_json
from service.server import DIALECTS
from service.transport import rest
from service.transport.dialect import Service
from service.transport.documented import EVENTS, JSON, LINES, Documented
from service.transport.view_types import Descriptor

_TITLES = {"Handoff": "Handoff", "Helpdesk": "Helpdesk", "Itsm": "ITSM"}
_ABOUT = """Three ticket APIs in one service. Each has its own credentials and its own shape of failures.

- **Handoff** (`/api`): work handed between the roles of a project's team. `Authorization: Bearer <JWT>`.
- **Helpdesk** (`/api/v1/helpdesk`): tickets of tenants, with service levels. `Authorization: Bearer <JWT>`.
- **ITSM** (`/api/v1`): tickets and webhooks of an account. `X-API-Key: itsm_sk_…`.

Times are RFC 3339 in UTC. What is null is there as `null`; what is absent is not there at all. In a PATCH null clears
what can be cleared. A write with an `Idempotency-Key` is safe to repeat for an hour. HEAD answers as GET, without a
body. New members may appear in answers at any time.
"""
_HEADERS: Mapping[str, tuple[str, Schema]] = {
    "X-Request-Id": (
        "The request's id, in the log of the service too; that of the request if it had one.",
        {"type": "string"},
    ),
    "Cache-Control": (
        "`private, no-cache`: for the caller alone, who asks again each time. `no-store` for a watch.",
        {"type": "string"},
    ),
    "ETag": ("The version of what is in the body, for `If-Match` and `If-None-Match`.", {"type": "string"}),
    "Idempotent-Replayed": (
        "There, and `true`, when the answer is the stored one of an earlier request with the same key.",
        {"type": "string", "enum": ["true"]},
    ),
    "RateLimit": ("What is left of the caller's rate, and in how many seconds all of it is again.", {"type": "string"}),
    "RateLimit-Policy": ("The caller's rate.", {"type": "string"}),
    "Retry-After": ("Seconds to wait before the next try.", {"type": "integer"}),
    "WWW-Authenticate": ("The credential that is asked for (RFC 9110).", {"type": "string"}),
}
_HEADER_WORDS = {
    "Idempotency-Key": "Makes it safe to repeat: for an hour the same key and request get the first answer.",
    "If-Match": "Only if the resource still has this `ETag`; else 412.",
    "Last-Event-Id": "Of server-sent events, the last one that was received: the watch goes on after it.",
    "If-None-Match": "304 without a body if the resource still has this `ETag`.",
}
# Each API has a scheme of its own: a token for one of them need not be valid for the other.
_SCHEMES: Mapping[str, Schema] = {
    "handoffToken": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "Handoff: a token of a user (`sub`), who may work in the projects of a membership.",
    },
    "helpdeskToken": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "Helpdesk: a token of a person (`sub`) of a tenant (`tenant_id`), with scopes (`scope`).",
    },
    "itsmKey": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "ITSM: the API key of an account, with scopes.",
    },
}
_EVENTS = "Server-sent events, for those who accept just these: `id` is the cursor, `data` the JSON of a line."
_ALWAYS = ("X-Request-Id", "Cache-Control", "RateLimit", "RateLimit-Policy")
_STATUS = re.compile(r"\b[2-5][0-9]{2}\b")
_WORD = re.compile(r"(?<!^)(?=[A-Z])")
_NO_CONTENT, _NOT_MODIFIED, _STALE = 204, 304, 412


@dataclass(frozen=True, slots=True)
class _Method:
    """One method of a `…Rest` service, and its typed sister."""

    api: str
    name: str
    rest: Descriptor
    typed: Descriptor
    facts: Documented
    policy: Policy


def document(words: Mapping[str, str], version: str) -> Schema:
    """The whole document; `words` are the comments of the protos."""
    schemas: dict[str, Schema] = {**failures.SCHEMAS}
    responses: dict[str, Schema] = {}
    paths: dict[str, dict[str, Schema]] = {}
    tags: dict[str, str] = {}
    bodies = examples.bodies()
    for service in _rest_services():
        api = service.descriptor.full_name.split(".")[1].capitalize()
        failing = cast(rest.Failures, service.failures)
        found = failures.responses(api, failing)
        responses |= {f"{api}{status}": response for status, response in found.items()}
        page = _Page(
            Requests(api, schemas, words),
            Answers(api, schemas, words),
            words,
            bodies,
            set(found),
            failing.status_of(REASONS["validation_error"]),
        )
        for method in _methods(api, service):
            verb, path = _route(method.rest)
            paths.setdefault(path, {})[verb] = page.operation(method, verb)
            tags.setdefault(_tag(method), first_sentence(words.get(method.typed.containing_service.full_name, "")))
    schemas["ItsmWebhookMessage"] = webhooks.MESSAGE
    tags[webhooks.TAG] = webhooks.ABOUT
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tickets",
            "version": version,
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "This gateway"}],
        "tags": [{"name": name, "description": about} for name, about in tags.items()],
        "paths": paths,
        "webhooks": webhooks.webhooks(),
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "responses": responses,
            "headers": {name: {"description": about, "schema": schema} for name, (about, schema) in _HEADERS.items()},
            "securitySchemes": _SCHEMES,
        },
    }


def _rest_services() -> Iterator[Service]:
    return (service for dialect in DIALECTS for service in dialect.services if _is_rest(service))


def _is_rest(service: Service) -> bool:
    return ".rest." in service.descriptor.full_name


def _methods(api: str, service: Service) -> Iterator[_Method]:
    (dialect,) = (dialect for dialect in DIALECTS if service in dialect.services)
    typed = {m.name: m for other in dialect.services if not _is_rest(other) for m in other.descriptor.methods}
    for method in service.descriptor.methods:
        sister = typed[method.name]
        facts = getattr(service.servicer, method.name).documented
        policy = POLICIES[sister.containing_service.file.package, method.name]
        yield _Method(api, method.name, method, sister, facts, policy)


def _route(method: Descriptor) -> tuple[str, str]:
    rule = method.GetOptions().Extensions[annotations_pb2.http]
    verb = rule.WhichOneof("pattern")
    return verb, getattr(rule, verb).replace("{project}", "{project_id}")


def _tag(method: _Method) -> str:
    resource = method.typed.containing_service.name.removesuffix("Service")
    return f"{_TITLES[method.api]} {'SLA' if resource == 'Sla' else resource.lower() + 's'}"


@dataclass(frozen=True, slots=True)
class _Page:
    """What the operations of one API are written with."""

    requests: Requests
    answers: Answers
    words: Mapping[str, str]
    bodies: Mapping[str, Mapping[str, Any]]
    statuses: set[int]
    # The status of a request that is not valid.
    invalid: int

    def operation(self, method: _Method, verb: str) -> Schema:
        """One operation."""
        name = method.api.lower() + method.name
        has_etag = self._has_etag(method)
        return {
            "operationId": name,
            "tags": [_tag(method)],
            "summary": _WORD.sub(" ", method.name).capitalize().replace(" sla", " SLA"),
            "description": self._about(method),
            "security": _security(method),
            "parameters": [*self._parameters(method, reads_etag=has_etag and verb == "get")],
            **self._body(method, name),
            "responses": self._responses(method, verb, has_etag=has_etag),
        }

    def _about(self, method: _Method) -> str:
        what = in_json(first_sentence(self.words.get(method.typed.full_name, "")))
        return f"{what}\n\n{self.words.get(method.rest.full_name, '')}"

    def _has_etag(self, method: _Method) -> bool:
        if JSON not in method.facts.media_types:
            return False
        output = method.typed.output_type
        resources = [output, *(field.message_type for field in output.fields if not field.is_repeated)]
        return any(resource is not None and "etag" in resource.fields_by_name for resource in resources)

    def _parameters(self, method: _Method, *, reads_etag: bool) -> Iterator[Schema]:
        fields = method.facts.command.model_fields
        for where in ("path", "query", "header"):
            if where not in fields:
                continue
            section: Any = fields[where].annotation
            found = self.requests.parameters(section, where, method.typed.input_type, method.facts.members_of)
            found = map(_without_default_limit, found) if method.facts.complete else found
            yield from found if where != "header" else map(_header, found)
        if reads_etag:
            yield _header({"name": "if-none-match", "in": "header", "required": False, "schema": {"type": "string"}})
        if EVENTS in method.facts.media_types:
            yield _header({"name": "last-event-id", "in": "header", "required": False, "schema": {"type": "string"}})

    def _body(self, method: _Method, name: str) -> Schema:
        field = method.facts.command.model_fields.get("body")
        if field is None:
            return {}
        section: Any = field.annotation
        content = {"schema": self.requests.body(section, method.typed.input_type)}
        if name in self.bodies:
            content["example"] = {**self.bodies[name]}
        return {"requestBody": {"required": field.is_required(), "content": {"application/json": content}}}

    def _responses(self, method: _Method, verb: str, *, has_etag: bool) -> Schema:
        facts = method.facts
        found = {str(facts.status): self._success(method, has_etag=has_etag)}
        if has_etag and verb == "get":
            headers = {name: {"$ref": f"#/components/headers/{name}"} for name in (*_ALWAYS, "ETag")}
            found[str(_NOT_MODIFIED)] = {"description": "It is still as `If-None-Match` says.", "headers": headers}
        statuses = {int(status) for status in _STATUS.findall(self.words.get(method.rest.full_name, ""))}
        if method.policy.who != "none":
            statuses |= {*failures.WITH_CREDENTIAL}
        statuses |= {*failures.EVERYWHERE, *((failures.WITH_BODY,) if verb in ("post", "patch") else ())}
        if facts.command.model_fields:
            statuses.add(self.invalid)
        if _takes_condition(facts):
            statuses.add(_STALE)
        for status in sorted(statuses & self.statuses):
            found[str(status)] = {"$ref": f"#/components/responses/{method.api}{status}"}
        return found

    def _success(self, method: _Method, *, has_etag: bool) -> Schema:
        facts = method.facts
        names = [*_ALWAYS, *(["ETag"] if has_etag else ()), *(["Idempotent-Replayed"] if _takes_key(facts) else ())]
        success: Schema = {
            "description": self.words.get(method.typed.output_type.full_name, "Success."),
            "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in names},
        }
        if facts.status == _NO_CONTENT:
            return success
        schema = self.answers.of_method(facts.view, method.typed.output_type)
        if facts.complete:
            schema = self.answers.without_required(schema, "next_cursor", method.name)
        # OpenAPI has no words for the messages of a stream: the schema of lines is that of each.
        schemas = {JSON: schema, LINES: schema, EVENTS: {"type": "string", "description": _EVENTS}}
        return {**success, "content": {name: {"schema": schemas[name]} for name in facts.media_types}}


def _takes_key(facts: Documented) -> bool:
    return "header" in facts.command.model_fields


def _takes_condition(facts: Documented) -> bool:
    header: Any = facts.command.model_fields["header"].annotation if _takes_key(facts) else None
    return header is not None and issubclass(header, WriteHeaders)


def _without_default_limit(parameter: Schema) -> Schema:
    """Of a list that is complete without one: the command's default is for pages alone."""
    if parameter["name"] != "limit":
        return parameter
    schema = {name: value for name, value in parameter["schema"].items() if name != "default"}
    return {**parameter, "schema": schema}


def _header(parameter: Schema) -> Schema:
    name = "-".join(word.capitalize() for word in parameter["name"].split("-"))
    return {**parameter, "name": name, "description": _HEADER_WORDS[name]}


def _security(method: _Method) -> list[Schema]:
    """Any of the scopes will do."""
    scheme = "itsmKey" if method.policy.who == "program" else f"{method.api.lower()}Token"
    return [{scheme: [scope]} for scope in method.policy.scopes] or [{scheme: []}]
