"""What the Hub's client raises, in our words, and what its cache answers; the wire is tested in ``test_hub_*.py``."""

import errno
import importlib
import logging
import os
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants, errors
from huggingface_hub.utils import hf_raise_for_status  # type: ignore[attr-defined]

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
from gdn_aot.registry.base import Snapshot, read_index
from gdn_aot.registry.failures import Failures, Secrets
from gdn_aot.registry.layout import INDEX
from gdn_aot.registry.remote import RemoteRegistry

TOKEN = "hf_abcdefsecret"  # noqa: S105 - of nobody
COMMIT = "ab" * 20
http = importlib.import_module(errors.HfHubHTTPError.__mro__[1].__module__.partition(".")[0])
"""httpx, or what huggingface_hub 2 has in its place."""

PLACES = {"endpoint": "https://huggingface.co", "cache": "/cache"}


@pytest.fixture
def failures() -> Failures:
    return Failures("hf://org/name", "revision v1", Secrets(TOKEN), errors, **PLACES)


def answered(status: int, *, sent_token: bool = True, text: str = "", **headers: str) -> Exception:
    """Return what huggingface_hub raises for an answer of the Hub."""
    sent = {"authorization": f"Bearer {TOKEN}"} if sent_token else {}
    request = http.Request("GET", "https://huggingface.co/api/models/org/name/revision/v1?q=1", headers=sent)
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    with pytest.raises(errors.HfHubHTTPError) as caught:
        hf_raise_for_status(http.Response(status, request=request, headers=names, text=text))
    return caught.value


def wrapped(kind: type[Exception], cause: Exception) -> Exception:
    error = kind("something went wrong")
    error.__cause__ = cause
    return error


TABLE: list[tuple[str, Exception, type[GdnAotError], str]] = [
    ("404", answered(404, x_error_code="RepoNotFound"), RepositoryMissingError, "token may not see it"),
    ("no-token", answered(404, sent_token=False, x_error_code="RepoNotFound"), RepositoryMissingError, "no token was"),
    ("404-of-a-proxy", answered(404, text="<html>"), RepositoryMissingError, "there is no repository"),
    ("401", answered(401, sent_token=False), AccessDeniedError, "private, or there is no such"),
    ("401-token", answered(401, x_error_message="Invalid credentials"), AccessDeniedError, "Invalid cred"),
    ("403", answered(403, x_error_message="you need write access"), AccessDeniedError, "you need write access"),
    ("402", answered(402), AccessDeniedError, "402"),
    ("gated", answered(403, x_error_code="GatedRepo"), AccessDeniedError, "gated"),
    ("revision", answered(404, x_error_code="RevisionNotFound"), RevisionMissingError, "v1"),
    ("entry", answered(404, x_error_code="EntryNotFound"), EntryMissingError, "v1"),
    ("400", answered(400, text='{"error": "bad card"}'), RegistryError, "bad card"),
    ("409", answered(409, text='{"error": "Reference exists"}'), ConflictError, "Reference exists"),
    ("412", answered(412), StaleParentError, "meanwhile"),
    ("429", answered(429, retry_after="120"), NetworkError, "too often"),
    ("500", answered(500), NetworkError, "500"),
    ("timeout", http.ReadTimeout("timed out"), NetworkError, "in time"),
    ("refused", http.ConnectError("[Errno 111] Connection refused"), NetworkError, "Connection refused"),
    ("dns", http.ConnectError("[Errno -2] Name or service not known"), NetworkError, "Name or service"),
    ("cut", http.RemoteProtocolError("peer closed connection"), NetworkError, "peer closed"),
    ("redirects", http.TooManyRedirects("too many"), NetworkError, "too many"),
    ("short", OSError("Consistency check failed: file should be of size 5 but has size 4"), NetworkError, "size 5"),
    ("no-etag", errors.FileMetadataError("has no ETag"), NetworkError, "no ETag"),
    ("not-json", ValueError("Expecting value: line 1 column 1"), NetworkError, "did not answer as the Hub"),
    ("no-key", KeyError("sha"), NetworkError, "did not answer as the Hub"),
    ("offline", errors.OfflineModeIsEnabled("offline"), OfflineMissError, "offline"),
    ("not-cached", errors.LocalEntryNotFoundError("not there"), OfflineMissError, "offline"),
    ("behind", wrapped(errors.LocalEntryNotFoundError, answered(503)), NetworkError, "503"),
    ("upload", wrapped(RuntimeError, answered(403, x_error_message="no space")), AccessDeniedError, "no space"),
    ("login", errors.LocalTokenNotFoundError("no token"), AccessDeniedError, "no token"),
    ("full", OSError(errno.ENOSPC, "No space left on device", "/cache/x"), NotWritableError, "/cache/x: No space"),
    ("full-xet", RuntimeError("No space left on device (os error 28)"), NotWritableError, "/cache: No space"),
    ("read-only", OSError(errno.EROFS, "Read-only file system", "/cache/x"), NotWritableError, "Read-only"),
    ("rights", PermissionError(errno.EACCES, "Permission denied", "/cache/x"), NotWritableError, "/cache/x"),
    ("new", Exception("a new kind"), RegistryError, "a new kind"),
]
if hasattr(errors, "OIDCError"):  # from huggingface_hub 1.19 on
    TABLE.append(("oidc", errors.OIDCError("id-token: write is missing"), AccessDeniedError, "id-token"))
EXIT = {OfflineMissError: 8, NotWritableError: 9}


@pytest.mark.parametrize(("error", "kind", "words"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_every_failure_has_its_class(failures: Failures, error: Exception, kind: type[GdnAotError], words: str) -> None:
    found = failures.translate(error)
    assert type(found) is kind
    assert words in found.message
    assert found.exit_code == EXIT.get(kind, 7)
    assert found.hint
    assert "\n" not in found.message + found.hint


def test_errors_of_ours_stay(failures: Failures) -> None:
    error = UsageError("x")
    assert failures.translate(error) is error


def test_how_long_to_wait(failures: Failures) -> None:
    def wait(error: Exception, *, download: bool = False) -> float | None:
        return failures.retry_after(error, download=download)

    assert wait(answered(429, retry_after="7")) == 7
    assert wait(answered(503, retry_after="Wed, 21 Oct 2026 07:28:00 GMT")) == 0
    assert wait(http.ConnectTimeout("x")) == wait(http.RemoteProtocolError("x")) == 0
    # What huggingface_hub has tried again by itself is not tried again by us.
    asked, about = (http.Request(method, "https://huggingface.co/org/name/resolve/v1/x") for method in ("GET", "HEAD"))
    assert wait(http.ConnectTimeout("x"), download=True) is None
    assert wait(http.ConnectError("x"), download=True) is None
    assert wait(http.RemoteProtocolError("x"), download=True) is None
    assert wait(http.RemoteProtocolError("x", request=asked), download=True) is None
    assert wait(http.RemoteProtocolError("x", request=about), download=True) == 0
    assert wait(http.ReadError("x", request=asked), download=True) == 0
    assert wait(answered(429), download=True) is None
    assert wait(answered(503), download=True) == 0
    for status in (400, 401, 403, 404, 409, 412):
        assert wait(answered(status)) is None
    others = (http.UnsupportedProtocol("x"), http.LocalProtocolError("x"), ValueError("x"), OSError(errno.ENOSPC, "x"))
    assert [wait(error) for error in others] == [None] * 4
    assert "120 seconds" in failures.translate(answered(429, retry_after="120")).hint


def test_no_secret_in_a_message(failures: Failures, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "other-secret")
    secrets = Failures("hf://org/name", "x", Secrets(TOKEN), errors, **PLACES)
    said = f"Illegal header value b'Bearer {TOKEN}' other-secret hf_thirdsecret https://me:pwsecret@h/x?sig=signsecret"
    shown = [Secrets(TOKEN).clean(said), secrets.trace(wrapped(ValueError, KeyError(said)))]
    for error in (
        ValueError(said),
        http.LocalProtocolError(said),
        answered(403, x_error_message=said),
        Exception(said),
    ):
        translated = secrets.translate(error)
        shown.append(translated.message + translated.hint)
    for text in shown:
        assert "secret" not in text


def test_no_secret_in_what_the_client_logs(capsys: pytest.CaptureFixture[str]) -> None:
    client = logging.getLogger("huggingface_hub.utils._http")
    stream = logging.StreamHandler()
    logging.getLogger("huggingface_hub").addHandler(stream)
    try:
        Secrets(TOKEN).watch()
        client.warning("HTTP Error 503 while requesting PUT %s", "https://me:pw@s3/x?X-Amz-Signature=signature")
        error = ValueError(f"Illegal header value b'Bearer {TOKEN}'")
        client.warning("%s failed", TOKEN, exc_info=error)
    finally:
        logging.getLogger("huggingface_hub").removeHandler(stream)
    shown = capsys.readouterr().err
    assert "PUT https://***@s3/x?***" in shown
    assert "ValueError: Illegal header" in shown
    assert TOKEN not in shown


def test_nothing_foreign_steers_a_terminal(failures: Failures) -> None:
    message = failures.translate(ValueError("\x1b[2J\r\nx\u202e" + "long " * 1000)).message
    assert message.isprintable()
    assert len(message) < 600


@pytest.mark.parametrize("token", ["", "hf_a b", "hf_a\n", "hf_ä", "hf_a\0"])
def test_tokens_refused(token: str) -> None:
    with pytest.raises(UsageError) as caught:
        RemoteRegistry("org/name", token=token)
    assert not token or token not in caught.value.message


# huggingface_hub's cache


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of a repository, in offline mode, with nothing in it."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub/models--org--name"


def fill(cache: Path, content: bytes, **refs: str) -> Path:
    for name, commit in refs.items():
        (cache / "refs").mkdir(parents=True, exist_ok=True)
        (cache / "refs" / name).write_text(commit)
    blob, link = cache / "blobs/1234", cache / "snapshots" / COMMIT / INDEX
    for place in (blob, link):
        place.parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(content)
    link.symlink_to(os.path.relpath(blob, link.parent))
    return link


def test_a_cache_that_names_no_commit(cache: Path) -> None:
    fill(cache, b"", v1="not a commit")
    with pytest.raises(OfflineMissError):
        RemoteRegistry("org/name").resolve("v1")


def test_a_wrong_index_is_not_kept(cache: Path) -> None:
    """Else it would be answered for ever: a commit's file is asked for only once."""
    link = fill(cache, b"wrong", v1=COMMIT)
    blob = link.resolve()
    with pytest.raises(GdnAotError):
        read_index(RemoteRegistry("org/name"), "v1")
    assert not link.is_symlink()
    assert not blob.exists()


def test_forget_removes_nothing_else(cache: Path, tmp_path: Path) -> None:
    link = fill(cache, b"x")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("kept")
    link.unlink()
    link.symlink_to(elsewhere)
    RemoteRegistry("org/name").forget(Snapshot(revision="v1", commit=COMMIT), INDEX)
    assert elsewhere.read_text() == "kept"
    assert not link.is_symlink()


def test_what_was_read_is_remembered(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only once the index is there: a name that leads to what is not in the cache would be worse than an older one."""
    registry = RemoteRegistry("org/name")
    old = "cd" * 20
    fill(cache, b"x", v1=old)
    new: Any = Snapshot(revision="v1", commit=COMMIT)
    assert registry.resolve("v1").commit == old
    registry.read(new, INDEX)
    assert registry.resolve("v1").commit == COMMIT
