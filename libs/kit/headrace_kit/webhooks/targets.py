"""Which servers may be called: those of the internet, and what the operator named; never what is near this process.

Without that, whoever may name a URL could have the platform call what only it can reach: its own services, the hosts
of its network, a cloud's metadata (server-side request forgery).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from yarl import URL

from headrace_kit.errors import InvalidArgument
from headrace_kit.names import require_text

MAX_URL: Final = 2000
Address = IPv4Address | IPv6Address
_HOST: Final = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,251}[a-z0-9])?")
_NAT64: Final = ip_network("64:ff9b::/96")
_NEVER: Final = (
    (ip_network("2002::/16"), "6to4, which holds another address"),
    (ip_network("2001::/32"), "Teredo, which holds another address"),
    (ip_network("::/96"), "IPv4-compatible, which holds another address"),
    (ip_network("64:ff9b:1::/48"), "a local translation to IPv4"),
    (ip_network("fec0::/10"), "site-local"),
)


@dataclass(frozen=True, slots=True)
class Allowed:
    """What the operator allows beside the internet.

    Attributes:
        hosts: Names of hosts, lower-case, whatever addresses they have.
        networks: Addresses, whatever leads to them.
    """

    hosts: frozenset[str] = frozenset()
    networks: tuple[IPv4Network | IPv6Network, ...] = ()

    @staticmethod
    def parse(text: str) -> Allowed:
        """From ``hooks.example.org,10.1.0.0/16,::1``. Raises ValueError for anything else."""
        hosts: set[str] = set()
        networks: list[IPv4Network | IPv6Network] = []
        for each in filter(None, (part.strip().lower() for part in text.split(","))):
            try:
                networks.append(ip_network(each))
            except ValueError:
                if not _HOST.fullmatch(each) or each.replace(".", "").isdecimal():
                    raise ValueError(f"{each} is no host or network, such as hooks.corp or 10.1.0.0/16") from None
                hosts.add(each)
        return Allowed(frozenset(hosts), tuple(networks))


@dataclass(frozen=True, slots=True)
class Target:
    """A URL that may be called, once the addresses of its host were looked at.

    Attributes:
        url: As it is requested.
        host: Its host as it is looked up: ASCII, without brackets.
        port: Its port.
    """

    url: URL
    host: str
    port: int

    @property
    def origin(self) -> str:
        """Scheme, host and port: nothing that would let its holder in."""
        return str(self.url.origin())


def parse_target(text: str, *, field: str) -> Target:
    """A URL of ``http`` or ``https`` with a host and without a user. Raises InvalidArgument with field and reason."""
    require_text(text, field=field, most=MAX_URL)
    try:
        if " " in text or "\\" in text:
            raise ValueError
        url = URL(text)
        host, port = url.raw_host, url.port
    except ValueError:
        raise InvalidArgument("give a URL such as https://hooks.example.org/models", field=field) from None
    if url.scheme not in ("http", "https"):
        raise InvalidArgument("a webhook is called by http or https", field=field, reason="TARGET_SCHEME")
    if not host or not port or "%" in host:
        raise InvalidArgument("the URL has no host that can be looked up", field=field)
    if url.raw_user is not None or url.raw_password is not None:
        raise InvalidArgument("the URL names a user: a webhook is known by its signature", field=field)
    return Target(url.with_fragment(None), host, port)


def refusal(text: str, *, host: str, allowed: Allowed) -> str:
    """Why an address of a host may not be called, in a few words; empty when it may."""
    address = ip_address(text)
    inner = _inner(address)
    if host.lower().rstrip(".") in allowed.hosts or _within(address, allowed) or _within(inner, allowed):
        return ""
    return _kind(inner)


def _within(address: Address, allowed: Allowed) -> bool:
    return any(address.version == each.version and address in each for each in allowed.networks)


def _inner(address: Address) -> Address:
    """The IPv4 address that an IPv6 one only wraps, or the address itself."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address


def _kind(address: Address) -> str:
    kinds = (
        (address.is_unspecified, "unspecified"),
        (address.is_loopback, "loopback"),
        (address.is_link_local, "link-local"),
        (address.is_multicast, "multicast"),
        *((address.version == network.version and address in network, kind) for network, kind in _NEVER),
        (address.is_reserved, "reserved"),
        (address.is_private, "private"),
        (not address.is_global, "not public"),
    )
    return next((kind for applies, kind in kinds if applies), "")
