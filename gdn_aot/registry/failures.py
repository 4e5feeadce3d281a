"""What goes wrong in a request to the Hub, in our own words: classes, causes, hints, and no secrets."""

from __future__ import annotations

import errno
import logging
import os
import re
import sys
import traceback
from typing import TYPE_CHECKING, Any

from gdn_aot._text import printable, shown
from gdn_aot.errors import (
    AccessDeniedError,
    ConflictError,
    EntryMissingError,
    GdnAotError,
    NetworkError,
    NotWritableError,
    OfflineMissError,
    RegistryError,
    RepositoryMissingError,
    RevisionMissingError,
    StaleParentError,
    UsageError,
)
from gdn_aot.registry.ways import variables, way_to

if TYPE_CHECKING:
    from types import ModuleType

    from gdn_aot.registry.ways import Way

_SECRETS = (
    (re.compile(r"\bhf_[A-Za-z0-9_.\-]{3,}"), "hf_***"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[^\s'\"]+"), r"\1 ***"),
    (re.compile(r"//[^/\s@]+@"), "//***@"),
    (re.compile(r"(https?://[^\s?'\"]+)\?[^\s'\"]+"), r"\1?***"),
)
"""Tokens, credentials in addresses, and the query of addresses, which may be a signature."""
_USERINFO = re.compile(r"(?:(?<=://)|^)[^/\s]*@(?=.)", re.DOTALL)
"""What comes before the host of an address, or of one that lacks its scheme."""
_AGAIN = frozenset({408, 429, 500, 502, 503, 504})
"""Answers that may be another one soon."""
_ASKED = frozenset({408, 429})
"""Those after which ``hf_hub_download`` asks for the file itself again."""
_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.EIO})
_UNKNOWN_AUTHORITY = "let SSL_CERT_FILE name the certificates of the proxy or mirror"
_LONGEST = 300
"""Characters of a foreign message."""


def check_token(token: str) -> str:
    """Return a token that can be sent.

    Raises:
        UsageError: It is empty or has characters that no header may have; the message does not show it.
    """
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise UsageError("the token is empty or has characters that no token has", hint="copy the token again")
    return token


def mask_repo(repo: str) -> str:
    """Return what ``--repo`` or ``$GDN_AOT_REPO`` held in a form that may be shown: no credentials, no token."""
    return Secrets(None).clean(_USERINFO.sub("***@", repo))


def http_of(errors: ModuleType) -> ModuleType:
    """Return httpx for huggingface_hub 1, httpx2 for 2: whatever its own ``errors`` are made from."""
    return sys.modules[errors.HfHubHTTPError.__mro__[1].__module__.partition(".")[0]]


class Secrets(logging.Filter):
    """What no message may show, neither ours nor one that huggingface_hub logs: tokens, those in addresses too."""

    def __init__(self, token: str | None) -> None:
        super().__init__()
        own = (token, os.environ.get("HF_TOKEN"), os.environ.get("HUGGING_FACE_HUB_TOKEN"))
        self._tokens = {found.strip() for found in own if found and found.strip()}

    def add(self, token: str) -> None:
        """Know one more, from wherever huggingface_hub has it."""
        self._tokens.add(token)

    def clean(self, text: str) -> str:
        """Return a text without tokens and other secrets."""
        for token in sorted(self._tokens, key=len, reverse=True):
            text = text.replace(token, "***")
        for pattern, instead in _SECRETS:
            text = pattern.sub(instead, text)
        return text

    def filter(self, record: logging.LogRecord) -> bool:
        """Take secrets, as addresses of uploads are signed, and what steers a terminal out of what is to be logged."""
        record.msg, record.args = self._logged(record.getMessage()), None
        if record.exc_info:
            record.exc_text = self._logged(logging.Formatter().formatException(record.exc_info))
        return True

    def _logged(self, text: str) -> str:
        return printable(self.clean(text), "\n")

    def watch(self) -> None:
        """Do that wherever huggingface_hub's messages go."""
        for logger in (logging.getLogger("huggingface_hub"), logging.getLogger()):
            for handler in logger.handlers:
                handler.addFilter(self)


class Failures:
    """Translates the exceptions of one request for ``what`` to the registry ``name``.

    ``errors`` is the module ``huggingface_hub.errors``, ``endpoint`` the Hub's address, ``cache`` the directory of
    huggingface_hub's cache.
    """

    def __init__(
        self, name: str, what: str, secrets: Secrets, errors: ModuleType, *, endpoint: str, cache: str
    ) -> None:
        self._name, self._what, self._errors = name, what, errors
        self._endpoint, self._cache = endpoint, cache
        self._clean = secrets.clean
        self._http = http_of(errors)

    def trace(self, error: BaseException) -> str:
        """Return the traceback of an exception and its causes without secrets, for the debug log."""
        return self._clean("".join(traceback.format_exception(error)))

    def retry_after(self, error: Exception, *, download: bool) -> float | None:
        """Return how many seconds to wait at least before asking again, or None if that would not help.

        ``hf_hub_download``, of which ``download`` says that it raised, asks again by itself, but not after every
        failure.
        """
        if isinstance(error, self._errors.HfHubHTTPError):
            status = error.response.status_code
            if status not in _AGAIN or (download and status in _ASKED):
                return None
            return float(self._header(error, "retry-after") or 0)
        hopeless = (self._http.UnsupportedProtocol, self._http.LocalProtocolError, self._http.ProxyError)
        if not isinstance(error, self._http.TransportError) or isinstance(error, hopeless):
            return None
        return None if download and self._asked(error) else 0.0

    def _asked(self, error: Any) -> bool:
        """Say whether ``hf_hub_download`` has asked again where no answer came, or half of one.

        It does where there is no connection and where nothing comes in time; where a connection is closed before all
        has come it does for the file itself, not for what it asks about the file before; after a reset it does not.
        """
        if isinstance(error, self._http.RemoteProtocolError):
            try:
                return error.request.method == "GET"  # type: ignore[no-any-return]
            except RuntimeError:  # it knows no request
                return True
        return isinstance(error, (self._http.ConnectError, self._http.TimeoutException))

    def translate(self, error: Exception) -> GdnAotError:
        """Return the error of ours that says what happened."""
        if isinstance(error, GdnAotError):
            return error
        error = self._innermost(error)
        if isinstance(error, (self._errors.OfflineModeIsEnabled, self._errors.LocalEntryNotFoundError)):
            return OfflineMissError(f"offline mode is on, and {self._what} of {self._name} is not in the cache")
        if isinstance(error, self._errors.HfHubHTTPError):
            return self._answered(error)
        if isinstance(error, (getattr(self._errors, "OIDCError", ()), self._errors.LocalTokenNotFoundError)):
            hint = "check permissions: id-token: write, HF_OIDC_RESOURCE and the trusted publisher of the repository"
            return AccessDeniedError(f"{self._name}: no token was obtained: {self._said(error)}", hint=hint)
        if isinstance(error, (UnicodeEncodeError, self._http.LocalProtocolError)):
            return AccessDeniedError(f"{self._name}: the token has characters that no token has")
        return self._misnamed(error) or self._not_answered(error)

    def _innermost(self, error: Exception) -> Exception:
        """Return what an exception was raised for, where it only wraps that."""
        wrappers = (RuntimeError, self._errors.LocalEntryNotFoundError, getattr(self._errors, "XetDownloadError", ()))
        while isinstance(error, wrappers) and isinstance(error.__cause__, Exception):
            error = error.__cause__
        return error

    def _way(self, error: Any) -> Way:
        """Return the way of the request that failed."""
        try:
            address = str(error.request.url)
        except (AttributeError, RuntimeError):  # it knows no request
            address = self._endpoint
        return way_to(address, self._endpoint)

    def _asked_for(self, way: Way) -> str:
        elsewhere = f", which is at {way.host}," if way.host not in self._endpoint else ""
        asked = f"{self._name}: asked {way.named(self._clean(self._endpoint))} for {self._what}"
        return f"{asked}{self._clean(f'{elsewhere}{way}')}"

    def _not_answered(self, error: Exception) -> GdnAotError:
        way = self._way(error)
        asked, advice = self._asked_for(way), self._clean(way.advice())
        if isinstance(error, (self._http.TimeoutException, TimeoutError)):
            more = "HF_HUB_DOWNLOAD_TIMEOUT and HF_HUB_ETAG_TIMEOUT say how many seconds to wait"
            return NetworkError(f"{asked}, and no answer came in time", hint=f"{advice}; {more}")
        number = getattr(error, "errno", None) if isinstance(error, OSError) else None
        full = "No space left on device" in str(error) or "os error 28" in str(error)
        if number in _DISK or (full and not isinstance(error, self._http.HTTPError)):
            place = getattr(error, "filename", None) or self._cache
            why = os.strerror(number) if number else os.strerror(errno.ENOSPC)
            hint = "free some space, or let HF_HOME name a directory you may write"
            return NotWritableError(f"cannot write {self._clean(str(place))}: {why}", hint=hint)
        if isinstance(error, (self._http.HTTPError, OSError)):
            refused = isinstance(error, self._http.ProxyError)
            who = (
                "the proxy"
                if way.proxy and isinstance(error, (self._http.ConnectError, self._http.ProxyError))
                else "it"
            )
            hint = self._clean(way.refused()) if refused and "407" in str(error) else advice
            hint = _UNKNOWN_AUTHORITY if "CERTIFICATE_VERIFY_FAILED" in str(error) else hint
            what = "refused" if refused else "was not reached"
            return NetworkError(f"{asked}, and {who} {what}: {self._said(error)}", hint=hint)
        if isinstance(error, (ValueError, KeyError, TypeError)):
            why = f"it did not answer as the Hub does: {self._said(error)}"
            return NetworkError(f"{asked}, and {why}", hint=advice)
        return RegistryError(f"{asked}, and huggingface_hub failed: {type(error).__name__}: {self._said(error)}")

    def _misnamed(self, error: Exception) -> NetworkError | None:
        """Return what is wrong where the variables hold no address that can be asked: nothing was sent then."""
        text, named = str(error), variables()
        socks = isinstance(error, ImportError) and "SOCKS" in text
        scheme = isinstance(error, (ValueError, self._http.UnsupportedProtocol)) and "roxy" in text
        if not (socks or scheme or isinstance(error, self._http.InvalidURL)):
            return None
        hint = "pip install socksio, or name a proxy that speaks HTTP" if socks else "write http://HOST:PORT"
        asked = f"{self._name}: {self._what} could not be asked for"
        return NetworkError(f"{asked}: see {named or 'the address'}: {self._said(error)}", hint=hint)

    def _answered(self, error: Any) -> GdnAotError:
        status: int = error.response.status_code
        if missing := self._missing(error, status):
            return missing
        if status in (401, 402, 403, 407) or isinstance(error, self._errors.GatedRepoError):
            return self._denied(error, status)
        if status == 409:  # noqa: PLR2004
            return ConflictError(f"{self._name}: {self._what} exists already: {self._said(error)}")
        if status == 412:  # noqa: PLR2004
            return StaleParentError(f"{self._name}: somebody else published meanwhile")
        if status in _AGAIN or status >= 500:  # noqa: PLR2004
            return self._troubled(error, status)
        return RegistryError(f"{self._name} refused {self._what}: {status}: {self._said(error)}")

    def _missing(self, error: Any, status: int) -> GdnAotError | None:
        if isinstance(error, self._errors.RevisionNotFoundError):
            return RevisionMissingError(f"{self._name} has no such revision: {self._what}")
        if isinstance(error, self._errors.EntryNotFoundError):
            return EntryMissingError(f"{self._name} has no {self._what}")
        if status != 404:  # noqa: PLR2004
            return None
        private = "the token may not see it" if self._sent_token(error) else "no token was given"
        return RepositoryMissingError(f"there is no repository {self._name}, or it is private and {private}")

    def _troubled(self, error: Any, status: int) -> GdnAotError:
        if status == 429:  # noqa: PLR2004
            after = self._header(error, "retry-after")
            hint = f"try again in {after} seconds" if after else "try again later, or with a token, which may ask more"
            return NetworkError(f"{self._name} was asked too often (429): {self._said(error)}", hint=hint)
        way = self._way(error)
        if way.proxy or way.mirror:
            return NetworkError(f"{self._asked_for(way)}, and the answer was {status}", hint=self._clean(way.advice()))
        return NetworkError(f"{self._name} failed on its side: {status} for {self._what}", hint="try again later")

    def _denied(self, error: Any, status: int) -> GdnAotError:
        way = self._way(error)
        asked, elsewhere = self._asked_for(way), bool(way.proxy or way.mirror)
        if status == 407:  # noqa: PLR2004
            who = "the proxy" if way.proxy else "it"
            return NetworkError(
                f"{asked}, and {who} refused (407): {self._said(error)}", hint=self._clean(way.refused())
            )
        who, more = (f"{asked}, and it", f"; {self._clean(way.advice())}") if elsewhere else (self._name, "")
        if isinstance(error, self._errors.GatedRepoError):
            hint = "ask for access on its page, and give a token of that account: HF_TOKEN or hf auth login"
            what = "is gated" if who == self._name else "says that it is gated"
            return AccessDeniedError(f"{who} {what} ({status}): its owner decides who may read it", hint=hint + more)
        if self._sent_token(error):
            message = f"{who} does not let the token have {self._what} ({status}): {self._said(error)}"
            return AccessDeniedError(message, hint=AccessDeniedError.default_hint + more)
        why = "it is private, or there is no such repository" if status == 401 else self._said(error)  # noqa: PLR2004
        hint = "check the name, or give a token: HF_TOKEN or hf auth login"
        return AccessDeniedError(f"{who} refuses {self._what} without a token ({status}): {why}", hint=hint + more)

    def _sent_token(self, error: Any) -> bool:
        return "authorization" in error.response.request.headers

    def _header(self, error: Any, name: str) -> str:
        """Return a header that is a number of seconds, or nothing."""
        value = str(error.response.headers.get(name, "")).strip()
        return value if value.isascii() and value.isdigit() and len(value) <= 6 else ""  # noqa: PLR2004

    def _said(self, error: Any) -> str:
        """Return what a foreign exception says: one line, not long, no secrets, nothing that steers a terminal."""
        text = getattr(error, "server_message", None) or str(error) or type(error).__name__
        return shown(self._clean(text), _LONGEST)
