"""Messages are signed as the Standard Webhooks specification says, by its own example."""

import pytest

from service.webhooks.signatures import signature_headers

# The example that the specification and its libraries are tested with.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
MESSAGE_ID, TIMESTAMP, BODY = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
# And by a key of 32 bytes of our own, computed with `openssl dgst -sha256 -mac HMAC`.
OTHER_SECRET = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
OTHER_SIGNATURE = "v1,O4Gjv1HqPqsMrjmczoggs/sWA8gZD0VyHG+fLh4+ktI="


@pytest.mark.parametrize(
    ("secrets", "signature"),
    [
        ([SECRET], SIGNATURE),
        ([OTHER_SECRET], OTHER_SIGNATURE),
        # Each valid secret, the newest first.
        ([OTHER_SECRET, SECRET], f"{OTHER_SIGNATURE} {SIGNATURE}"),
    ],
    ids=["the specification's", "ours", "both"],
)
def test_the_headers_are_those_of_the_specification(secrets: list[str], signature: str) -> None:
    assert signature_headers(MESSAGE_ID, TIMESTAMP, BODY, secrets) == {
        "webhook-id": MESSAGE_ID,
        "webhook-timestamp": "1614265330",
        "webhook-signature": signature,
    }


@pytest.mark.parametrize(
    ("message_id", "timestamp", "body"),
    [
        (MESSAGE_ID + "x", TIMESTAMP, BODY),
        (MESSAGE_ID, TIMESTAMP + 1, BODY),
        (MESSAGE_ID, TIMESTAMP, BODY + b"\n"),
    ],
    ids=["id", "timestamp", "body"],
)
def test_all_that_is_sent_is_signature_headers(message_id: str, timestamp: int, body: bytes) -> None:
    assert signature_headers(message_id, timestamp, body, [SECRET])["webhook-signature"] != SIGNATURE
