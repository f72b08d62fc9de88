"""What a webhook may call, and how its messages are signed."""

from __future__ import annotations

import ipaddress
import socket

import pytest

from mien.errors import UnprocessableError
from mien.webhook_addresses import AddressRefusedError, check_url, is_public, resolve
from mien.webhook_signature import new_secret, secret_key, sign, signature_header


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.8.9.1", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254"),  # noqa: S104
        *("100.64.0.1", "192.0.2.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "198.18.0.1"),
        *("::", "::1", "fe80::1", "fc00::1", "fd12::1", "ff02::1", "2001:db8::1", "::ffff:127.0.0.1"),
        *("::ffff:10.0.0.1", "2002:7f00:1::", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::7f00:1"),
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "64:ff9b::101:101"])
def test_addresses_that_are_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "url",
    [
        *("", "nothing", "ftp://example.org/", "file:///etc/passwd", "https://", "https:///path", "http://[::1"),
        *("https://user:secret@example.org/", "https://example.org/#part", "https://example.org:0/"),
        *("https://example.org:99999/", "https://exam ple.org/", "https://example.org/\r\nX: y", "https://bücher.de/"),
        "https://example.org/" + "x" * 2000,
    ],
)
def test_what_is_no_address_of_a_webhook(url: str) -> None:
    with pytest.raises(UnprocessableError) as caught:
        check_url(url)
    assert (caught.value.code, caught.value.field) == ("bad_webhook_url", "url")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1"])
def test_this_machine_is_refused_however_it_is_written(host: str) -> None:
    with pytest.raises(AddressRefusedError):
        resolve(f"https://{host}/", ())
    if not host.startswith("["):
        assert resolve(f"http://{host}:81/x", ("127.0.0.0/8", "::1/128"))[1] == 81


def test_plain_http_is_for_allowed_networks() -> None:
    with pytest.raises(AddressRefusedError, match="https"):
        resolve("http://1.1.1.1/", ("127.0.0.0/8",))
    assert resolve("https://1.1.1.1/", ()) == ("1.1.1.1", 443)


def test_one_private_address_of_several_refuses_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def both(*_: object, **__: object) -> list[tuple[object, ...]]:
        return [(2, 1, 6, "", ("1.1.1.1", 443)), (2, 1, 6, "", ("10.0.0.7", 443))]

    monkeypatch.setattr(socket, "getaddrinfo", both)
    with pytest.raises(AddressRefusedError, match=r"10\.0\.0\.7"):
        resolve("https://two-faced.example/", ())


def test_the_signature_is_that_of_the_specification() -> None:
    # the example of https://docs.svix.com/receiving/verifying-payloads/how-manual, whose scheme the standard took over
    secret = "whsec_plJ3nmyCDGBKInavdOK15jsl"
    body = b'{"event_type":"ping","data":{"success":true}}'
    signed = sign(secret, "msg_loFOjxBNrRLzqYUf", 1731705121, body)
    assert signed == "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0="
    other = new_secret()
    header = signature_header([other, secret], "msg_loFOjxBNrRLzqYUf", 1731705121, body)
    assert header.split() == [sign(other, "msg_loFOjxBNrRLzqYUf", 1731705121, body), signed]


@pytest.mark.parametrize("secret", ["", "whsec_", "plain", "whsec_***", "whsec_c2hvcnQ=", "whsec_" + "A" * 200])
def test_what_is_no_secret(secret: str) -> None:
    with pytest.raises(UnprocessableError) as caught:
        secret_key(secret)
    assert caught.value.code == "bad_webhook_secret"
    assert len(secret_key(new_secret())) == 32
