"""What only development has: a data folder with a key that signs tokens, and demo data with its credentials."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import jwt
import orjson
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from service.admin import operations as admin
from service.admin.direct import run_as_operator
from service.local.docs import CREDENTIALS
from service.operation import Operation
from service.settings import Settings

ISSUER = "tickets-development"
AUDIENCE = "tickets"
DATABASE_URL_FILE = "database-url"
DEMO_TOKEN_SECONDS = 30 * 24 * 3600

_ALGORITHM = "ES256"
_KEY_FILE = "development-key.pem"
_ENCRYPTION_KEY_FILE = "encryption-key"
_JWKS_FILE = "jwks.json"
CREDENTIALS_FILE = "credentials.json"
# What was chosen when the demo data was made, and is in no other file.
_KEPT = {"itsm_api_key", "handoff_user_id", "handoff_project_id", "helpdesk_tenant_id"}
_HELPDESK_SCOPES = "helpdesk:read helpdesk:write helpdesk:agent"


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    fresh.rename(path)


def kept_text(path: Path) -> str:
    """The text of a file of the data folder. Raises RuntimeError for one that is empty or no text."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        text = ""
    if not text:
        raise damaged(path)
    return text


def damaged(path: Path) -> RuntimeError:
    """The failure of a command that needs this file of the data folder."""
    return RuntimeError(f"{path} is damaged: it is not what `tickets up` wrote")


class DevelopmentKey:
    """The key pair of one data directory. The service trusts its JWKS; never use it beyond one machine."""

    def __init__(self, data_dir: Path) -> None:
        self._pem = data_dir / _KEY_FILE
        self.jwks = data_dir / _JWKS_FILE

    def make(self) -> None:
        """Write the key, unless there is one, and its JWKS."""
        if not self._pem.exists():
            private = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            key = ec.generate_private_key(ec.SECP256R1())
            write_private(self._pem, key.private_bytes(serialization.Encoding.PEM, *private))
        public = self._load().public_key()
        jwk = jwt.algorithms.ECAlgorithm.to_jwk(public, as_dict=True)
        self.jwks.write_bytes(orjson.dumps({"keys": [{**jwk, "kid": "development", "alg": _ALGORITHM, "use": "sig"}]}))

    def token(self, subject: str, *, seconds: int = 3600, **claims: str | None) -> str:
        """A signed token. Claims that are None are left out.

        Raises FileNotFoundError without a key, RuntimeError for a damaged one.
        """
        now = int(time.time())
        more = {name: value for name, value in claims.items() if value is not None}
        payload = {"sub": subject, "iss": ISSUER, "aud": AUDIENCE, "iat": now, "exp": now + seconds, **more}
        return jwt.encode(payload, self._load(), _ALGORITHM, headers={"kid": "development"})

    def _load(self) -> ec.EllipticCurvePrivateKey:
        try:
            key = serialization.load_pem_private_key(self._pem.read_bytes(), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: it has a password
            raise damaged(self._pem) from None
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise damaged(self._pem)
        return key


def encryption_key(data_dir: Path) -> str:
    """The key that encrypts the secrets of a data directory, made by the first call."""
    path = data_dir / _ENCRYPTION_KEY_FILE
    if not path.exists():
        write_private(path, Fernet.generate_key())
    return kept_text(path)


async def demo_credentials(
    settings: Settings, data_dir: Path, key: DevelopmentKey, grpc_target: str, rest_url: str
) -> Mapping[str, Any]:
    """The credentials of the demo data, which the first call makes; each call signs new tokens."""
    path = data_dir / CREDENTIALS_FILE
    kept = kept_credentials(data_dir) or await _make_demo(settings)
    if not kept.keys() >= _KEPT:
        raise damaged(path)
    credentials = {
        **kept,
        "handoff_token": key.token(kept["handoff_user_id"], seconds=DEMO_TOKEN_SECONDS),
        "helpdesk_token": key.token(
            "per_demo", seconds=DEMO_TOKEN_SECONDS, tenant_id=kept["helpdesk_tenant_id"], scope=_HELPDESK_SCOPES
        ),
        "grpc_target": grpc_target,
        "rest_url": rest_url,
    }
    write_private(path, orjson.dumps(credentials, option=orjson.OPT_INDENT_2))
    return credentials


def kept_credentials(data_dir: Path) -> dict[str, Any]:
    """What the last start wrote of the demo data; empty where there is none. Raises RuntimeError for a damaged file."""
    path = data_dir / CREDENTIALS_FILE
    try:
        kept = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError:
        raise damaged(path) from None
    if not isinstance(kept, dict):
        raise damaged(path)
    return kept


def write_page_credentials(folder: Path, credentials: Mapping[str, Any]) -> None:
    """Write what the gateway's page fills in, by the names of its security schemes, and the demo project."""
    folder.mkdir(mode=0o700, exist_ok=True)
    schemes = {
        "handoffToken": credentials["handoff_token"],
        "helpdeskToken": credentials["helpdesk_token"],
        "itsmKey": credentials["itsm_api_key"],
    }
    page = {"schemes": schemes, "path": {"project_id": credentials["handoff_project_id"]}}
    write_private(folder / CREDENTIALS, orjson.dumps(page))


async def _make_demo(settings: Settings) -> Mapping[str, Any]:
    async def make(operation: Operation[Any], **body: Any) -> Mapping[str, Any]:
        return await run_as_operator(settings, operation, body)

    user_id = str(uuid4())
    account = (await make(admin.create_account, name="Demo account"))["account"]
    scopes = ["tickets:read", "tickets:write", "webhooks:manage"]
    key = await make(admin.create_api_key, account_id=account["id"], scopes=scopes)
    # A slug of its own, so that demo data can be made again after the credentials file was lost.
    slug = f"demo-{user_id[:8]}"
    project = (await make(admin.create_project, name="Demo project", slug=slug, account_id=account["id"]))["project"]
    await make(admin.add_member, project_id=project["id"], user_id=user_id, role="owner")
    tenant = (await make(admin.create_tenant, name="Demo tenant"))["tenant"]
    return {
        "itsm_api_key": key["key"],
        "handoff_user_id": user_id,
        "handoff_project_id": str(project["id"]),
        "helpdesk_tenant_id": tenant["id"],
    }
