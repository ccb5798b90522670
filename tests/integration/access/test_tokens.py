"""Who is let in: bearer tokens."""

import hmac
import json
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from support import handoff, helpdesk, operators
from support.system import AUDIENCE, Credential, Issuer, World
from support.token_issuers import STRANGER, Forge, base64url, bearer, claims, later, token_of
from support.transports import Grpc, Rest, rest_reply

Transport = Rest | Grpc


def signed(algorithm: str, kid: str | None, key: Callable[[Issuer], Any]) -> Forge:
    """A token of good claims, signed with any key."""
    return lambda issuer: jwt.encode(claims(), key(issuer), algorithm, headers={"kid": kid} if kid else None)


def forged(algorithm: str, secret: Callable[[Issuer], bytes] | None = None) -> Forge:
    """A token that no library would make: with an HMAC under this secret, or with no signature at all."""

    def forge(issuer: Issuer) -> str:
        header = {"alg": algorithm, "typ": "JWT", "kid": "rsa"}
        head = ".".join(base64url(json.dumps(part).encode()) for part in (header, claims()))
        return f"{head}.{base64url(hmac.digest(secret(issuer), head.encode(), 'sha256')) if secret else ''}"

    return forge


def public_pem(issuer: Issuer) -> bytes:
    return issuer.rsa.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def tampered(part: int, change: Callable[[str], str]) -> Forge:
    """A good token with one of its three parts changed."""

    def forge(issuer: Issuer) -> str:
        parts = issuer.token(str(uuid4())).split(".")
        parts[part] = change(parts[part])
        return ".".join(parts)

    return forge


def headed(**changed: Any) -> Forge:
    """A good token whose header says otherwise."""
    header = {"alg": "ES256", "kid": "ec", "typ": "JWT", **changed}
    return tampered(0, lambda _: base64url(json.dumps(header).encode()))


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(lambda issuer: issuer.token(str(uuid4()), algorithm="RS256"), id="RS256"),
        pytest.param(lambda issuer: issuer.token(str(uuid4()), algorithm="ES256"), id="ES256"),
        pytest.param(signed("RS256", None, lambda issuer: issuer.rsa), id="no kid"),
        pytest.param(token_of(aud=["someone", AUDIENCE]), id="one audience of several"),
        pytest.param(later("exp", -2), id="expired within the leeway"),
        pytest.param(later("nbf", 8), id="not yet valid, within the leeway"),
        pytest.param(token_of(app_id="x" * 64, actor_role="y" * 64, tenant_id="z" * 64), id="claims of 64"),
        pytest.param(token_of(iat=None, email="jane@example.com", groups=["a"]), id="claims nobody asks for"),
    ],
)
async def test_good_tokens_are_accepted(transport: Transport, issuer: Issuer, token: Forge) -> None:
    (await transport.call("handoff.list", bearer(token(issuer)))).succeeded()


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer  "])
async def test_the_schemes_case_and_blanks_do_not_matter(transport: Transport, issuer: Issuer, scheme: str) -> None:
    (await transport.call("handoff.list", bearer(issuer.token(str(uuid4())), scheme))).succeeded()


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(lambda _: "garbled", id="garbled"),
        pytest.param(lambda _: "a.b.c", id="three parts of nothing"),
        pytest.param(tampered(0, lambda part: part[1:]), id="garbled header"),
        pytest.param(tampered(0, lambda _: base64url(b"[]")), id="header that is no object"),
        pytest.param(tampered(0, lambda _: base64url(b'{"a":' * 900)), id="header without end"),
        pytest.param(headed(kid=["ec"]), id="kid that is no text"),
        pytest.param(headed(alg=["ES256"]), id="alg that is no text"),
        pytest.param(headed(crit=["b64"], b64=False), id="header that nobody understands"),
        pytest.param(tampered(1, lambda _: base64url(json.dumps(claims()).encode())), id="tampered payload"),
        pytest.param(tampered(1, lambda _: base64url(b"[]")), id="payload that is no object"),
        pytest.param(tampered(2, lambda part: part[::-1]), id="tampered signature"),
        pytest.param(tampered(2, lambda _: ""), id="no signature"),
        pytest.param(forged("none"), id="alg none"),
        pytest.param(forged("None"), id="alg None"),
        pytest.param(forged("HS256", public_pem), id="HS256 with the public key's PEM"),
        pytest.param(forged("HS256", lambda issuer: public_pem(issuer).strip()), id="HS256 with the PEM trimmed"),
        pytest.param(forged("HS256", lambda issuer: issuer.jwks.read_bytes()), id="HS256 with the JWKS"),
        pytest.param(forged("HS256", lambda _: b""), id="HS256 with nothing"),
        pytest.param(forged("RS256", public_pem), id="HMAC that says RS256"),
        pytest.param(signed("ES256", "rsa", lambda issuer: issuer.ec), id="ES256 with the kid of the RSA key"),
        pytest.param(signed("RS256", "ec", lambda issuer: issuer.rsa), id="RS256 with the kid of the EC key"),
        pytest.param(signed("RS512", "rsa", lambda issuer: issuer.rsa), id="RS512 by the right key"),
        pytest.param(signed("PS256", "rsa", lambda issuer: issuer.rsa), id="PS256 by the right key"),
        pytest.param(signed("RS256", "rsa", lambda _: STRANGER), id="another's key"),
        pytest.param(signed("RS256", "other", lambda issuer: issuer.rsa), id="unknown kid"),
        pytest.param(token_of(iss="https://issuer.test/"), id="wrong issuer"),
        pytest.param(token_of(iss=None), id="no issuer"),
        pytest.param(token_of(aud="tickets"), id="wrong audience"),
        pytest.param(token_of(aud=[]), id="empty audience"),
        pytest.param(token_of(aud=None), id="no audience"),
        pytest.param(token_of(exp=None), id="no expiry"),
        pytest.param(token_of(exp="soon"), id="expiry that is no time"),
        pytest.param(later("nbf", 3600), id="not yet valid"),
        pytest.param(later("iat", 3600), id="issued in the future"),
        pytest.param(token_of(sub=None), id="no sub"),
        pytest.param(token_of(sub=""), id="empty sub"),
        pytest.param(token_of(sub="per_1"), id="sub that is no UUID"),
        pytest.param(token_of(scope=["a"]), id="scope that is no text"),
        pytest.param(token_of(app_id="x" * 65), id="app_id too long"),
        pytest.param(token_of(actor_role="x" * 65), id="actor_role too long"),
        pytest.param(token_of(tenant_id="x" * 65), id="tenant_id too long"),
        pytest.param(token_of(tenant_id=7), id="tenant_id that is no text"),
        pytest.param(token_of(app_id="a\0b"), id="app_id with a NUL"),
        pytest.param(token_of(padding="x" * 8192), id="token too long"),
    ],
)
async def test_other_tokens_are_not_valid(transport: Transport, issuer: Issuer, token: Forge) -> None:
    (await transport.call("handoff.list", bearer(token(issuer)))).failed("invalid_token")


NUMBERS: tuple[Any, ...] = (7, -1, 1.5, 1e18, 10**30, float("inf"), float("nan"), 4102444800, 4102444800.5, True)
OTHERS: tuple[Any, ...] = ("", "7", "4102444800", "4102444800.5", "soon", [], ["a"], {}, {"a": 1})


@pytest.mark.parametrize("claim", ["exp", "iat", "nbf", "scope", "sub", "tenant_id", "app_id", "aud", "jti"])
async def test_odd_claims_are_no_fault_of_the_services(transport: Transport, issuer: Issuer, claim: str) -> None:
    for value in NUMBERS + OTHERS:
        token = token_of(**{"scope": "helpdesk:read", "tenant_id": "ten_1", claim: value})(issuer)
        for operation in ("handoff.list", "helpdesk.list") * 2:  # the second time it may be remembered
            reply = await transport.call(operation, bearer(token))
            if reply.status not in (200, grpc.StatusCode.OK):
                assert reply.body["code"] in ("invalid_token", "token_expired", "missing_scope"), (value, reply)
                reply.failed(reply.body["code"])


@pytest.mark.parametrize("expiry", ["4102444800", 4102444800.5, 10**18, 1e18])
async def test_an_expiry_is_any_number_even_in_quotes(transport: Transport, issuer: Issuer, expiry: Any) -> None:
    credential = bearer(token_of(exp=expiry)(issuer))
    for _ in range(2):
        (await transport.call("handoff.list", credential)).succeeded()


@pytest.mark.parametrize("seconds", [11, 3600])
async def test_an_expired_token_says_so(transport: Transport, issuer: Issuer, seconds: int) -> None:
    (await transport.call("handoff.list", bearer(later("exp", -seconds)(issuer)))).failed("token_expired")


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Basic amFuZTpzZWNyZXQ=", "Token {}", "{}", "Basic {}", "{} Bearer"]
)
async def test_no_token_is_unauthenticated(transport: Transport, issuer: Issuer, header: str | None) -> None:
    credential = {} if header is None else {"authorization": header.format(issuer.token(str(uuid4())))}
    for operation in ("handoff.list", "helpdesk.list"):
        (await transport.call(operation, credential)).failed("unauthenticated", "Missing authentication credentials")


async def test_bytes_that_are_no_text_are_no_token(rest: Rest) -> None:
    for header in (b"Bearer \xff\xfe", b"\xc3\xa9"):
        response = await rest.client.get("/api/tickets", headers={b"authorization": header})
        rest_reply("handoff", response).failed("unauthenticated")


async def test_a_helpdesk_token_needs_a_tenant_and_no_uuid(transport: Transport, issuer: Issuer) -> None:
    scope = "helpdesk:read helpdesk:agent"
    (await transport.call("helpdesk.list", issuer.bearer("per_1", scope=scope))).failed("invalid_token")
    (await transport.call("helpdesk.list", issuer.bearer("per_1", scope=scope, tenant_id=""))).failed("invalid_token")
    (await transport.call("helpdesk.list", issuer.bearer("per_1", scope=scope, tenant_id="ten_1"))).succeeded()


# Scopes (RFC 6749, 3.3): names with U+0020 between them, and no other blank.
BLANKS = ("\u00a0", "\t", "\n", "\u2003", "\u0085", "\x1f")


@pytest.mark.parametrize("blank", BLANKS, ids=ascii)
async def test_only_a_space_separates_scopes(transport: Transport, issuer: Issuer, blank: str) -> None:
    def person(scope: str) -> Credential:
        return issuer.bearer("per_1", tenant_id="ten_1", scope=scope)

    for scope in ("x helpdesk:read", "helpdesk:read x", " helpdesk:read  x "):
        (await transport.call("helpdesk.list", person(scope))).succeeded()
        (await transport.call("helpdesk.list", person(scope.replace(" ", blank)))).failed("missing_scope")


@pytest.mark.parametrize("blank", BLANKS, ids=ascii)
async def test_only_a_space_makes_an_operator(rpc: Grpc, issuer: Issuer, blank: str) -> None:
    for scope in (f"x{blank}tickets:admin", f"tickets:admin{blank}x"):
        (await operators.call(rpc, issuer.bearer("o", scope=scope), "ListDeliveries")).failed("missing_scope")
        (await operators.call(rpc, issuer.bearer("o", scope=scope.replace(blank, " ")), "ListDeliveries")).succeeded()


# Forms of one UUID.
FORMS: dict[str, Callable[[str], str]] = {
    "lower case": str.lower,
    "upper case": str.upper,
    "braces": lambda sub: f"{{{sub.upper()}}}",
    "urn": lambda sub: f"urn:uuid:{sub.upper()}",
    "urn in capitals": lambda sub: f"URN:UUID:{sub}",
}


@pytest.mark.parametrize("form", FORMS)
async def test_a_sub_is_one_person_in_every_form_of_its_uuid(transport: Transport, world: World, form: str) -> None:
    project_id, sub = await world.project(), str(uuid4())
    await world.member(project_id, user_id=sub)
    who = world.issuer.bearer(FORMS[form](sub))
    made = await handoff.created(transport, who, project_id)
    assert (made["reported_by_user_id"], [event["actor"] for event in await handoff.history(transport, who, made)]) == (
        sub,
        [sub],
    )
    tenant_id = helpdesk.new_tenant_id()
    scopes = "helpdesk:read helpdesk:write"
    one, same = (
        world.issuer.bearer(text, tenant_id=tenant_id, scope=scopes) for text in (sub.upper(), FORMS[form](sub))
    )
    ticket = await helpdesk.create(transport, one)
    assert (ticket["created_by"], ticket["submitted_by_id"]) == (sub, sub)
    # The submitter may change it, in whatever form others name them.
    (await helpdesk.update(transport, same, ticket, title="New")).succeeded()
    other = await helpdesk.create(transport, world.person("agent", tenant_id=tenant_id), submitted_by_id=sub.upper())
    (await helpdesk.update(transport, same, other, title="New")).succeeded()
    listed = await transport.call("helpdesk.list", same, query={"submitted_by_id": FORMS[form](sub)})
    assert len(listed.succeeded()["tickets"]) == 2


async def test_a_sub_without_hyphens_is_no_users_uuid(transport: Transport, issuer: Issuer) -> None:
    for sub in (uuid4().hex, f"{{{uuid4()}", f"{uuid4()}}}", f"{uuid4()}-", str(uuid4()).replace("-", "", 1)):
        (await transport.call("handoff.list", issuer.bearer(sub))).failed("invalid_token")
