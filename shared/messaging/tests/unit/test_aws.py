"""How the AWS adapter says what is wrong: each one sentence with cause and cure, and no credentials in it."""

import re
import sys

import pytest
from botocore.exceptions import ClientError
from ftgo_messaging.messages.message import Message
from ftgo_messaging.runtime.errors import TransientError
from ftgo_messaging.transports import transport_at
from ftgo_messaging.transports.aws import client
from ftgo_messaging.transports.aws.address import parse
from ftgo_messaging.transports.aws.client import Gone, Link
from ftgo_messaging.transports.aws.sqs.names import channel_queue, lane_queue, prefix_of, token
from ftgo_messaging.transports.aws.sqs.publisher import _text
from ftgo_messaging.transports.cloudevents import from_envelope
from ftgo_messaging.transports.port import BrokerRefuses


@pytest.fixture(autouse=True)
def _nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine that nobody has prepared for AWS."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_DEFAULT_REGION", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    client._session.cache_clear()


@pytest.mark.parametrize(
    ("url", "region", "endpoint"),
    [
        ("sqs://eu-central-1", "eu-central-1", ""),
        ("sqs://us-gov-west-1/?lanes=3", "us-gov-west-1", ""),
        ("sqs://", "", ""),
        ("sqs://127.0.0.1:9324?region=elasticmq", "elasticmq", "http://127.0.0.1:9324"),
        ("sqs://vpce-1.sqs.eu-central-1.vpce.amazonaws.com?region=eu-central-1", "eu-central-1", "https://"),
        ("sqs://127.0.0.1:9324?tls=yes", "", "https://127.0.0.1:9324"),
    ],
)
def test_an_address_is_a_region_or_a_server(url: str, region: str, endpoint: str) -> None:
    found = parse(url)
    assert found.region == region
    assert found.endpoint.startswith(endpoint)
    assert bool(found.endpoint) == bool(endpoint)


@pytest.mark.parametrize(
    "url",
    [
        *("sqs://h:x", "sqs://eu-central-1?lanes=0", "sqs://eu-central-1?lane=3", "sqs://eu-central-1?signed=maybe"),
        *("sqs://eu-central-1?wait=21", "sqs://eu-central-1/queue", "sqs://eu-central-1?visibility=1"),
    ],
)
def test_another_url_is_refused(url: str) -> None:
    with pytest.raises(BrokerRefuses, match=r"should look like sqs://eu-central-1\?lanes=12.*FTGO_BROKER_URL"):
        transport_at(url)


def test_credentials_in_a_url_are_refused_and_not_repeated() -> None:
    with pytest.raises(BrokerRefuses, match="AWS credentials do not belong there") as refused:
        transport_at("sqs://AKIAEXAMPLE:secret@eu-central-1")
    assert "AKIA" not in str(refused.value)
    assert "secret" not in str(refused.value)


async def refusal(url: str) -> str:
    link = Link(parse(url), "sqs", "test")
    with pytest.raises(BrokerRefuses) as refused:
        await link.ask("list_queues")
    await link.close()
    return str(refused.value)


async def test_no_region_no_credentials_and_a_region_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "No AWS region is named: put it into FTGO_BROKER_URL" in await refusal("sqs://")
    assert "No AWS credentials for eu-central-1: set AWS_ACCESS_KEY_ID" in await refusal("sqs://eu-central-1")
    assert "AWS has no region eu-middle-7 for sqs" in await refusal("sqs://eu-middle-7")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-middle-8")
    assert "AWS has no region eu-middle-8" in await refusal("sqs://")
    client._session.cache_clear()  # a process reads its profile once
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    assert "nobody" in await refusal("sqs://eu-central-1")


async def test_half_of_the_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    found = await refusal("sqs://eu-central-1")
    assert "No AWS credentials for eu-central-1" in found
    assert "AKIA" not in found


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("AWS.SimpleQueueService.NonExistentQueue", 400, Gone),
        ("QueueDoesNotExist", 400, Gone),
        ("ThrottlingException", 400, TransientError),
        ("RequestThrottled", 403, TransientError),
        ("OverLimit", 403, TransientError),
        ("AWS.SimpleQueueService.QueueDeletedRecently", 400, TransientError),
        ("InternalFailure", 500, TransientError),
        ("ServiceUnavailable", 503, TransientError),
        ("InvalidClientTokenId", 403, BrokerRefuses),
        ("ExpiredTokenException", 400, BrokerRefuses),
        ("AccessDeniedException", 400, BrokerRefuses),
        ("QueueNameExists", 400, BrokerRefuses),
    ],
)
def test_what_aws_says_as_what_the_port_says(code: str, status: int, kind: type[Exception]) -> None:
    said = {"Error": {"Code": code, "Message": "AKIAEXAMPLE"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    found = Link(parse("sqs://eu-central-1"), "sqs", "test")._refusal("send", ClientError(said, "SendMessage"))
    assert type(found) is kind
    assert "SQS at eu-central-1" in str(found)
    if status == 403 and kind is BrokerRefuses:
        assert "set AWS_ACCESS_KEY_ID" in str(found)
        assert "AKIA" not in str(found)


def test_a_client_that_is_missing_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("ftgo_messaging.transports.aws")]:
        monkeypatch.delitem(sys.modules, name)
    for name in [name for name in sys.modules if name.partition(".")[0] == "aiobotocore"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "aiobotocore", None)
    with pytest.raises(BrokerRefuses, match=r"sqs:// needs the Python package .*: pip install 'ftgo-messaging\[aws\]'"):
        transport_at("sqs://eu-central-1")


NAMES = [
    *(
        "a.b",
        "a_b",
        "a-b",
        "a--b",
        "-a",
        "a-",
        "ключ",
        "",
        ".",
        "..",
        "a" * 32,
        "a" * 33,
        "a" * 40,
        "A.b",
        "x/y",
        "x y",
    ),
    *("suite.01a216e5-0e53-7009-aa4c-49e97f209f85", "suite.01a216e5-0e53-7009-aa4c-49e97f209f86"),
]


def test_an_envelope_has_only_characters_that_sqs_takes_and_is_read_as_it_was() -> None:
    odd = "\ufffe \uffff \x00 \x1f \x7f \\ufffe 🐎"
    sent = Message("1", "channel", odd, {"id": "1", "odd": odd}, bytes(range(256)))
    text = _text(sent)
    assert re.fullmatch("[\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]+", text)
    key, headers, body, defect = from_envelope(text.encode())
    assert (key, dict(headers), body, defect) == (odd.encode(), {"id": b"1", "odd": odd.encode()}, sent.body, "")


def test_names_of_queues_are_valid_and_apart() -> None:
    assert len({token(name) for name in NAMES}) == len(NAMES)
    names = [lane_queue(channel, consumer, 999) for channel in NAMES for consumer in NAMES]
    names += [channel_queue(channel, 999) for channel in NAMES]
    assert len(set(names)) == len(names)
    for name in names:
        assert len(name) <= 80
        assert all(c.isascii() and (c.isalnum() or c in "-_") for c in name.removesuffix(".fifo"))
    for channel in NAMES:
        ours = {lane_queue(channel, consumer, 999) for consumer in NAMES} | {channel_queue(channel, 999)}
        assert {name for name in names if name.startswith(prefix_of(channel))} == ours
