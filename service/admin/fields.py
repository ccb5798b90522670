"""The texts that operators name things by, and the forms they have."""

import re
from typing import Annotated

import httpx2
import idna
from pydantic import AfterValidator, Field, StringConstraints
from pydantic_core import PydanticCustomError

from service.directory import RoleName
from service.fields import distinct, without_nul


def _matching(pattern: str, words: str) -> AfterValidator:
    """The validator of texts of this form, which it names in words: few operators read patterns."""
    expression = re.compile(pattern)

    def check(text: str) -> str:
        if expression.fullmatch(text) is None:
            raise PydanticCustomError("string_pattern_mismatch", "Input should be {words}", {"words": words})
        return text

    return AfterValidator(check)


Name = Annotated[str, StringConstraints(min_length=1, max_length=255), without_nul]
TenantName = Annotated[
    str,
    StringConstraints(min_length=1, max_length=64),
    _matching(r"[\x21-\x7e]+", "printable ASCII characters without spaces"),
]


def _printable(text: str) -> str:
    if not text.isprintable():
        raise PydanticCustomError("printable", "Input should have printable characters alone")
    return text


# Whatever a token may have for its tenant, so that each of them can be suspended.
SignedTenant = Annotated[str, StringConstraints(min_length=1, max_length=64), AfterValidator(_printable)]
Slug = Annotated[
    str,
    _matching(
        "[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?",
        "1-64 lower-case letters, digits and hyphens, the first and the last of them no hyphen",
    ),
]
_OWNER, _REPO = "[A-Za-z0-9][A-Za-z0-9-]{0,38}", "[A-Za-z0-9_-][A-Za-z0-9._-]{0,98}"
# Not only dots: such a name would be a relative path in the URL of an issue.
GithubRepo = Annotated[
    str, _matching(rf"{_OWNER}/(\.?{_REPO}|[A-Za-z0-9_-][A-Za-z0-9._-]{{99}})", "a repository of GitHub: owner/name")
]


def _reachable(url: str) -> str:
    """The URL, if it has a host and a port that can be connected to."""
    try:
        parts = httpx2.URL(url)
        if "xn--" in parts.host:  # an international name that cannot be decoded
            idna.decode(parts.host)
        can_be_called = bool(parts.host) and 0 < (parts.port or 1) < 65536
    except (httpx2.InvalidURL, idna.IDNAError):
        can_be_called = False
    if not can_be_called:
        raise PydanticCustomError("url_parsing", "Input should be a URL with a valid host and port")
    return url


# Without user, path, query or fragment: each vendor's code appends its own paths.
ProviderUrl = Annotated[
    str,
    Field(max_length=255),
    _matching(r"https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?/?", "https://host or https://host:port, without user and path"),
    AfterValidator(_reachable),
]
DefaultRoles = Annotated[list[RoleName], Field(min_length=1, max_length=7), distinct]
