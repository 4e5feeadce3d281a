"""Which way a request to the Hub takes: the proxy or mirror that the environment names, and which variable does.

httpx, by which huggingface_hub asks, reads the variables with `urllib.request.getproxies`: ``https_proxy`` before
``HTTPS_PROXY``, ``all_proxy`` where the scheme has none, ``no_proxy`` for the hosts that need none
(https://www.python-httpx.org/environment_variables/).
"""

from __future__ import annotations

import os
import urllib.request
from dataclasses import dataclass
from urllib.parse import urlsplit

from gdn_aot._text import shown

_ENDPOINT = "HF_ENDPOINT"
_LONGEST = 200
"""Characters of a host in a message."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Way:
    """How one address is reached."""

    host: str
    """Of the address."""
    mirror: str = ""
    """``HF_ENDPOINT`` where that names the address."""
    proxy: str = ""
    """Host and port of the proxy that is asked, without credentials."""
    variable: str = ""
    """What names the proxy."""
    spared: str = ""
    """The variable of a proxy that is not asked, since ``NO_PROXY`` names the host."""

    def __str__(self) -> str:
        return f" through the proxy {self.proxy} of {self.variable}" if self.proxy else ""

    def named(self, address: str) -> str:
        """Return an address with what names it."""
        return f"{address}, which {self.mirror} names," if self.mirror else address

    def advice(self) -> str:
        """Return what to do where nothing answers on this way, or what answers refuses."""
        if self.proxy:
            mirror = f", and {self.mirror}" if self.mirror else ""
            return f"check the proxy that {self.variable} names{mirror}; NO_PROXY={self.host} goes without the proxy"
        spared = f"; NO_PROXY keeps it from the proxy of {self.spared}" if self.spared else ""
        if self.mirror:
            return f"check the mirror that {self.mirror} names, or unset it to ask the Hub itself{spared}"
        if spared:
            return f"check the network{spared}"
        return "check the network, and try again; behind a proxy HTTPS_PROXY names it, a mirror HF_ENDPOINT"

    def refused(self) -> str:
        """Return what to do where the answer is that whoever asks must say who that is (407)."""
        if not self.proxy:
            return self.advice()
        return f"let {self.variable} say who asks, before its host: USER:PASSWORD and an @"


def way_to(address: str, endpoint: str) -> Way:
    """Return how an address is reached; ``endpoint`` is that of the Hub, which ``HF_ENDPOINT`` may name."""
    scheme, host = urlsplit(address).scheme, _host(address)
    mirror = _ENDPOINT if os.environ.get(_ENDPOINT) and host == _host(endpoint) else ""
    bare = host.rpartition(":")[0] or host
    proxies = urllib.request.getproxies()
    kind = next((kind for kind in (scheme, "all") if proxies.get(kind)), "")
    if not kind:
        return Way(host=bare, mirror=mirror)
    if urllib.request.proxy_bypass(host):
        return Way(host=bare, mirror=mirror, spared=_variable(kind))
    return Way(host=bare, mirror=mirror, proxy=_host(proxies[kind]), variable=_variable(kind))


def variables() -> str:
    """Return the variables that name proxies or a mirror, in words; nothing where there is none."""
    kinds = [kind for kind in ("https", "http", "all", "no") if urllib.request.getproxies().get(kind)]
    found = [*map(_variable, kinds), *[_ENDPOINT] * bool(os.environ.get(_ENDPOINT))]
    return ", ".join(found)


def _variable(kind: str) -> str:
    """Return the name of the variable that has the proxy of a kind, as `urllib.request.getproxies` prefers them."""
    found = [name for name, value in os.environ.items() if value and name.lower() == f"{kind}_proxy"]
    return min(found, key=lambda name: name != name.lower(), default="this system's settings")


def _host(address: str) -> str:
    """Return host and port of an address, which may lack its scheme, without credentials."""
    return shown(address.partition("://")[2] or address, 4 * _LONGEST).partition("/")[0].rpartition("@")[2][:_LONGEST]
