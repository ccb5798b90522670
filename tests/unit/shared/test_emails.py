"""contracts/itsm.md, `requester_email`: an address by its form, kept exactly as it came."""

import pytest
from pydantic import TypeAdapter, ValidationError

from service.fields import MAX_EMAIL_LENGTH, Email

EMAIL = TypeAdapter(Email)


@pytest.mark.parametrize(
    "text",
    [
        "jane@example.com",
        # "Reserved domains such as `corp.local` too"
        "x@corp.local",
        "x@host.test",
        "x@nowhere.invalid",
        "x@printer.localhost",
        "x@server.home.arpa",
        "root@localhost",
        "root@server",
        # "Kept exactly as it came"
        "ALEX@Example.COM",
        "Postmaster@EXAMPLE.com",
        "jörg@bücher.example",
        "x@xn--bcher-kva.example",
        "x@BÜCHER.example",
        "o'brien+vpn!#$%&*/=?^_`{|}~-@example.com",
        "a.b.c@1and1.com",
    ],
)
def test_an_address_is_kept_as_it_came(text: str) -> None:
    assert EMAIL.validate_python(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nobody",
        "@example.com",
        "jane@",
        "jane@@example.com",
        "jane doe@example.com",
        "jane@exam ple.com",
        "jane@example..com",
        ".jane@example.com",
        "jane@-example.com",
        "jane@127.0.0.1",
        "jane@[127.0.0.1]",
        '"jane doe"@example.com',
        # "No display name"
        "Jane <jane@example.com>",
        "<jane@example.com>",
        "jane@example.com, joe@example.com",
        " jane@example.com",
        "jane@example.com ",
        "jane@example.com\n",
        "jane\0@example.com",
        "mailto:jane@example.com",
    ],
    ids=repr,
)
def test_anything_else_is_refused_in_pydantics_words(text: str) -> None:
    with pytest.raises(ValidationError) as failure:
        EMAIL.validate_python(text)
    [error] = failure.value.errors(include_url=False)
    assert error["type"] == "value_error"
    assert error["msg"] == f"value is not a valid email address: {error['ctx']['reason']}"


def test_it_is_bounded() -> None:
    domain = ".".join(["d" * 60] * 3) + ".example.com"
    longest = "a" * (MAX_EMAIL_LENGTH - len(domain) - 1) + "@" + domain
    assert EMAIL.validate_python(longest) == longest
    with pytest.raises(ValidationError, match="at most 254 characters"):
        EMAIL.validate_python("a" + longest)
