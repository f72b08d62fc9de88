"""Which addresses a webhook may call: public ones, and the networks that the operator allows. Nothing of our own.

A name is resolved once and the connection goes to the very address that was checked, so that a name which answers
differently the second time (DNS rebinding) gains nothing.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from urllib.parse import urlsplit

from mien.errors import UnprocessableError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

LONGEST_URL = 2000
_NAT64 = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48"))
_PORTS = {"http": 80, "https": 443}


class AddressRefusedError(Exception):
    """The address may not be called, or the name has none. The message says which and why."""


def check_url(url: str) -> None:
    """Refuse an address that no webhook can have, whatever its name resolves to.

    Raises:
        UnprocessableError: ``bad_webhook_url``.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise _bad(f"it cannot be read ({error})") from None
    if len(url) > LONGEST_URL:
        raise _bad(f"it is longer than {LONGEST_URL} characters")
    if any(ord(character) <= 0x20 or ord(character) == 0x7F for character in url):
        raise _bad("it holds spaces or control characters")
    if not url.isascii():
        raise _bad("write other letters than ASCII percent-encoded, and names in their xn-- form")
    if parts.scheme not in _PORTS or not parts.hostname:
        raise _bad("it has to begin with https:// and a host")
    if parts.username is not None or parts.password is not None:
        raise _bad("names and passwords do not belong in it; check the signature instead")
    if parts.fragment:
        raise _bad("it must not have a # part")
    if port == 0:
        raise _bad("port 0 cannot be called")


def resolve(url: str, allowed: Sequence[str]) -> tuple[str, int]:
    """Resolve the host of a checked URL and give the (address, port) to connect to.

    Every address that the name has must be allowed: one that is not shows what the name is for. Plain http goes to
    allowed networks only.

    Raises:
        AddressRefusedError: why not.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or _PORTS[parts.scheme]
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise AddressRefusedError(f"the name {host} has no address") from None
    networks = [ipaddress.ip_network(network) for network in allowed]
    addresses = [str(entry[4][0]).partition("%")[0] for entry in found]
    for text in addresses:
        address = ipaddress.ip_address(text)
        inside = any(_is_in(address, network) for network in networks)
        if not inside and not is_public(address):
            raise AddressRefusedError(
                f"{host} is {text}, which is not a public address; MIEN_WEBHOOK_NETWORKS can allow its network"
            )
        if not inside and parts.scheme == "http":
            raise AddressRefusedError("plain http goes to the networks of MIEN_WEBHOOK_NETWORKS only; use https")
    return addresses[0], port


def is_public(address: Address) -> bool:
    """Whether the whole internet knows this address: not private, loopback, link-local, shared, multicast or reserved.

    IPv6 addresses that stand for an IPv4 address are judged by that one.
    """
    inner = _embedded(address)
    if inner is not None:
        return is_public(inner)
    return address.is_global and not address.is_multicast and not address.is_reserved


def _embedded(address: Address) -> ipaddress.IPv4Address | None:
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if any(address in network for network in _NAT64):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return None


def _is_in(address: Address, network: Network) -> bool:
    inner = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (inner or address) in network  # False where the versions differ


def _bad(why: str) -> UnprocessableError:
    return UnprocessableError(
        f"The webhook's address cannot be used: {why}.", code="bad_webhook_url", field="url"
    )  # fmt: skip
