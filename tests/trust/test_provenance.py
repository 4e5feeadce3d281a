"""Who built a file, by real bundles of Sigstore: what is taken, and that nothing else is."""

import base64
import hashlib
import json
import operator
import os
import re
import socket
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NoReturn

import factory
import pytest
from commands import contents
from helpers import Done
from provenances import (
    BUILT,
    BUNDLE,
    EXPECTED,
    LOG,
    SHA256,
    accepted,
    beside,
    bundle,
    changed,
    flip,
    flips,
    free,
    paths,
)

from gdn_aot.artifact import verify
from gdn_aot.errors import ProvenanceError, UsageError
from gdn_aot.trust import provenance
from gdn_aot.trust.provenance import MAX_BUNDLE, WORKFLOW, Expected, Provenance, read_bundle, verify_provenance

Command = Callable[..., Done]


@pytest.fixture
def one_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read the root once, for tests of many bundles."""
    known = provenance._verifier()
    monkeypatch.setattr(provenance, "_verifier", lambda: known)


def refusal(data: bytes, sha256: str = SHA256, expected: Expected = EXPECTED) -> list[str]:
    with pytest.raises(ProvenanceError) as caught:
        verify_provenance(sha256, data, expected)
    assert caught.value.exit_code == 5
    return [*map(str, caught.value.problems)]


def expecting(repository: str = EXPECTED.repository, workflow: str = EXPECTED.workflow, *refs: str) -> Expected:
    return Expected(repository=repository, workflow=workflow, refs=refs or EXPECTED.refs)


def test_a_real_bundle_says_who_built_the_file() -> None:
    assert verify_provenance(SHA256, BUNDLE, EXPECTED) == BUILT
    exactly = expecting(EXPECTED.repository, EXPECTED.workflow, "refs/heads/main", "refs/tags/v0.0.19")
    assert verify_provenance(SHA256, BUNDLE, exactly) == BUILT


def test_nothing_is_asked_of_the_network_or_of_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where the library would keep a root that it fetched lies one that knows no keys."""

    def refuse(*_args: object, **_kwargs: object) -> NoReturn:
        pytest.fail("the network was asked")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
        root = tmp_path / name / "sigstore-python/tuf" / provenance._INSTANCE / "trusted_root.json"
        root.parent.mkdir(parents=True)
        root.write_text("{}")
    before = contents(tmp_path)
    assert verify_provenance(SHA256, BUNDLE, EXPECTED) == BUILT
    assert contents(tmp_path) == before


def test_another_file() -> None:
    other = hashlib.sha256(b"another").hexdigest()
    assert refusal(BUNDLE, other) == [f"subject: is for other files: none has the SHA-256 {other}"]


@pytest.mark.parametrize(
    ("expected", "problems"),
    [
        (
            expecting("trailofbits/pypi-attestation"),
            ["repository: is trailofbits/pypi-attestations, expected trailofbits/pypi-attestation"],
        ),
        (
            expecting("evil/pypi-attestations"),
            ["repository: is trailofbits/pypi-attestations, expected evil/pypi-attest"],
        ),
        (
            expecting(EXPECTED.repository, "release.yml"),
            ["workflow: is .github/workflows/release.yml, expected release.yml"],
        ),
        (
            expecting(EXPECTED.repository, ".github/workflows/release.yml@refs/tags/v0.0.19"),
            ["workflow: is .github/workflows/release.yml, expected .github/workflows/release.yml@refs"],
        ),
        (
            expecting(EXPECTED.repository, EXPECTED.workflow, "refs/heads/*", "v0.0.19"),
            ["ref: is refs/tags/v0.0.19, expected refs/heads/* or v0.0.19"],
        ),
        (
            Expected(repository="acme/gdn-aot"),
            [
                "repository: is trailofbits",
                f"workflow: is .github/workflows/release.yml, expected {WORKFLOW}",
                "ref: is",
            ],
        ),
    ],
)
def test_another_builder_is_named_in_all_that_is_other(expected: Expected, problems: list[str]) -> None:
    found = refusal(BUNDLE, expected=expected)
    assert len(found) == len(problems)
    assert [one[: len(start)] for one, start in zip(found, problems, strict=True)] == problems


def test_what_artifacts_are_published_from() -> None:
    """Not from a pull request, nor from a branch or a tag that begins as those do."""
    wanted = ["refs/tags/artifacts-v1.2.0", "refs/heads/main"]
    others = ["refs/pull/1/merge", "refs/heads/main2", "refs/tags/v1.2.0", "refs/heads/artifacts-v1.2.0", ""]
    assert [ref for ref in wanted + others if not [*Expected(repository="a/b").misfits(built(ref))]] == wanted


def built(ref: str) -> Provenance:
    return replace(BUILT, repository="a/b", workflow=WORKFLOW, ref=ref)


@pytest.mark.parametrize(
    "name", ["", "a", "a/b/c", "https://github.com/a/b", "a/b@main", "../b", "a/", "a b/c", "a/b\n"]
)
def test_what_is_no_repository(name: str) -> None:
    with pytest.raises(UsageError, match="is no repository on GitHub"):
        Expected(repository=name)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        (
            "publication",
            "statement: is no provenance of SLSA, version 1: https://docs.pypi.org/attestations/publish/v1",
        ),
        ("gitlab", "bundle: Certificate's OIDCIssuerV2 does not match (got https://gitlab.com, expected https://token"),
        ("staging", "bundle: failed to build timestamp certificate chain"),
    ],
)
def test_real_bundles_that_say_something_else(name: str, problem: str) -> None:
    (found,) = refusal(bundle(name))
    assert found.startswith(problem)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\0", b"\xff\xfe", b"null", b"[]", b"0", b'""', b"{}", b"[" * 500_000, b'{"a":' * 200_000, b"1" * 5_000,
        BUNDLE + BUNDLE, BUNDLE + b"\n" + BUNDLE, BUNDLE[:-1], b"\xef\xbb\xbf" + BUNDLE[1:],
        BUNDLE.decode().encode("utf-16"),
        b'{"mediaType":"application/vnd.dev.sigstore.bundle.v0.4+json",' + BUNDLE[62:],
    ],
    ids=range(17),
)  # fmt: skip
def test_what_is_no_bundle(data: bytes) -> None:
    (problem,) = refusal(data)
    assert problem.startswith("bundle: ")
    assert len(problem) < 300
    assert problem.isprintable()


@pytest.mark.usefixtures("one_root")
def test_a_part_of_a_bundle() -> None:
    assert not [end for end in range(0, len(BUNDLE), 31) if accepted(BUNDLE[:end])]


@pytest.mark.usefixtures("one_root")
def test_a_bit_that_is_flipped() -> None:
    """Some matter to nobody, and change nothing of what is said; `tests/nightly/trust` flips each."""
    count, found = flips(97)
    assert count > 800
    assert found <= free()


@pytest.mark.usefixtures("one_root")
def test_what_nobody_signed() -> None:
    """The name of the log beside its signature; bits of base64 that mean nothing. All else that could be is little."""
    name = re.search(LOG, BUNDLE)
    assert name
    assert all(accepted(flip(8 * at)) for at in range(*name.span(1)))
    assert len(free()) < 50


@pytest.mark.usefixtures("one_root")
@pytest.mark.parametrize("value", [None, {}, [], "", "x", "AAAA", -1, 1 << 70, True, 1.5, [[]], "\ud800"], ids=repr)
def test_a_value_that_is_another(value: Any) -> None:
    found = [path for path in paths() if accepted(put(path, value))]
    assert found == ([TIMESTAMPS] if value in (None, {}) else [])


@pytest.mark.usefixtures("one_root")
def test_a_value_that_is_missing() -> None:
    assert [path for path in paths() if accepted(changed(path, operator.delitem))] == [TIMESTAMPS]


TIMESTAMPS = ["verificationMaterial", "timestampVerificationData"]
"""Empty in this bundle, whose time is that of the log."""


def put(path: list[str | int], value: Any) -> bytes:
    return changed(path, lambda inner, key: operator.setitem(inner, key, value))


@pytest.mark.usefixtures("one_root")
@pytest.mark.parametrize("other", ["publication", "gitlab", "staging"])
def test_a_part_of_another_real_bundle(other: str) -> None:
    """Also one that the same workflow signed for the same file, in the same run."""
    theirs = json.loads(bundle(other))
    entry = ["verificationMaterial", "tlogEntries", 0]
    for path in (
        ["dsseEnvelope"], ["dsseEnvelope", "payload"], ["dsseEnvelope", "signatures"], ["verificationMaterial"],
        ["verificationMaterial", "certificate"], ["verificationMaterial", "tlogEntries"], [*entry, "inclusionPromise"],
        [*entry, "inclusionProof"], [*entry, "canonicalizedBody"],
    ):  # fmt: skip
        inner = theirs
        for key in path:
            inner = inner[key]
        assert not accepted(put(path, inner)), path


@pytest.mark.parametrize("change", ["subject", "predicateType", "space"])
def test_a_statement_that_was_changed(change: str) -> None:
    payload = base64.b64decode(json.loads(BUNDLE)["dsseEnvelope"]["payload"])
    other = hashlib.sha256(b"another").hexdigest()
    new = {
        "subject": payload.replace(SHA256.encode(), other.encode()),
        "predicateType": payload.replace(b"slsa.dev/provenance/v1", b"slsa.dev/provenance/v2"),
        "space": payload + b" ",
    }[change]
    assert new != payload
    data = put(["dsseEnvelope", "payload"], base64.b64encode(new).decode())
    assert refusal(data, other) == ["bundle: DSSE: invalid signature"]


STATEMENT = {
    "_type": "https://in-toto.io/Statement/v1",
    "predicateType": "https://slsa.dev/provenance/v1",
    "subject": [{"digest": {"sha256": SHA256}}],
}


@pytest.mark.parametrize(
    "payload",
    [
        "", "null", "[]", "[" * 100_000, "\ud800", *({**STATEMENT, **other} for other in (
            {"_type": "https://in-toto.io/Statement/v0.1"}, {"predicateType": ["https://slsa.dev/provenance/v1"]},
            {"subject": []}, {"subject": None}, {"subject": [SHA256]}, {"subject": {"digest": {"sha256": SHA256}}},
            {"subject": [{"digest": {"sha512": SHA256}}]}, {"subject": [{"digest": {"sha256": SHA256.upper()}}]},
            {"subject": [{"digest": {"sha256": [SHA256]}}]}, {"subject": [{"digest": SHA256}]},
        )),
    ],
    ids=lambda payload: json.dumps(payload)[:60],
)  # fmt: skip
def test_a_statement_of_another_form(payload: Any) -> None:
    """Anybody's workflow may have GitHub attest any statement."""
    data = payload.encode(errors="surrogatepass") if isinstance(payload, str) else json.dumps(payload).encode()
    assert [*provenance._misfits("application/vnd.in-toto+json", data, SHA256)]


def test_one_statement_of_many_files() -> None:
    many = [{"digest": {"sha256": hashlib.sha256(b"%d" % number).hexdigest()}} for number in range(1_000)]
    data = json.dumps({**STATEMENT, "subject": [*many, *STATEMENT["subject"]]}).encode()
    assert not [*provenance._misfits("application/vnd.in-toto+json", data, SHA256)]
    assert len(base64.b64encode(data)) + len(BUNDLE) < MAX_BUNDLE / 4
    assert [one.where for one in provenance._misfits("text/plain", data, SHA256)] == ["statement", "subject"]


def test_a_bundle_that_cannot_be_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "large").write_bytes(bytes(MAX_BUNDLE + 1))
    for name, why in (
        ("none", "No such file"),
        ("fifo", "is not a regular file"),
        ("large", f"is larger than {MAX_BUNDLE} bytes"),
        ("", "is not a regular file"),
        ("a\0b", "null"),
    ):
        with pytest.raises(ProvenanceError, match=why) as caught:
            read_bundle(tmp_path / name)
        assert caught.value.problems
        assert "--bundle" in caught.value.hint


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """An artifact with the bundle of another file beside it."""
    path = tmp_path / "gdn-aot-x.tar.zst"
    path.write_bytes(factory.pack(factory.members()))
    beside(path).write_bytes(BUNDLE)
    return path


ASKED = ("--provenance", EXPECTED.repository, "--workflow", EXPECTED.workflow, "--ref", "refs/tags/v*")


def test_the_command_names_what_is_wrong(artifact: Path, command: Command) -> None:
    sha256 = factory.sha256(artifact.read_bytes())
    done = command("verify", artifact, "--json", "--provenance", "acme/gdn-aot", code=5)
    assert done.json["error"]["code"] == "provenance"
    assert done.json["ok"] is False
    assert done.json["provenance"] is None
    assert done.json["sha256"] == sha256
    assert [one["where"] for one in done.json["problems"]] == ["subject", "repository", "workflow", "ref"]
    done = command("verify", artifact, *ASKED, code=5)
    assert done.out == ""
    assert f"subject: is for other files: none has the SHA-256 {sha256}" in done.err
    assert command("verify", artifact).code == 0


def test_the_command_says_who_built_it(artifact: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """No artifact has a real bundle yet: this one is said to be the file that `BUNDLE` is for."""
    found = verify.examine(artifact)
    found.sha256 = SHA256
    monkeypatch.setattr(verify, "examine", lambda _path: found)
    fields = asdict(BUILT)
    assert command("verify", artifact, "--json", *ASKED).json["provenance"] == fields
    first, *lines = command("verify", artifact, *ASKED).out.splitlines()
    assert first.endswith(f"sha256 {SHA256}")
    assert lines == [f"  {name}: {text}" for name, text in fields.items()]
    moved = beside(artifact).rename(artifact.with_name("elsewhere"))
    command("verify", artifact, *ASKED, code=5)
    assert command("verify", artifact, *ASKED, "--bundle", moved).out.splitlines() == [first, *lines]


def test_a_bundle_that_is_missing(artifact: Path, command: Command) -> None:
    beside(artifact).unlink()
    error = command("verify", artifact, "--json", *ASKED, code=5).json["error"]
    assert error["code"] == "provenance"
    assert f"{beside(artifact)} cannot be read: No such file" in error["message"]


def test_an_artifact_that_is_not_sound_needs_no_bundle(artifact: Path, command: Command) -> None:
    artifact.write_bytes(artifact.read_bytes() + b"x")
    assert command("verify", artifact, "--json", *ASKED, code=5).json["error"]["code"] == "verification"


@pytest.mark.parametrize("module", ["sigstore", "sigstore.verify", "sigstore._store"])
def test_without_the_library(module: str, artifact: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "sigstore"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    error = command("verify", artifact, "--json", *ASKED, code=2).json["error"]
    assert error["code"] == "usage"
    assert error["hint"] == "pip install 'gdn-aot[provenance]'"
    assert command("verify", artifact).code == 0


@pytest.mark.parametrize("option", [("--workflow", "a.yml"), ("--ref", "main"), ("--bundle", "x")])
def test_options_that_need_another(option: tuple[str, str], artifact: Path, command: Command) -> None:
    assert "add --provenance" in command("verify", artifact, "--json", *option, code=2).json["error"]["hint"]
    assert command("verify", artifact, "--json", "--provenance", "x", code=2).json["error"]["code"] == "usage"
