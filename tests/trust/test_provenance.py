"""Who built a file, by real bundles of Sigstore: what is taken, and that nothing else is."""

import base64
import hashlib
import json
import operator
import os
import re
import socket
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
from commands import contents
from provenances import (
    BUILT,
    BUNDLE,
    EXPECTED,
    LOG,
    SHA256,
    accepted,
    bundle,
    certificate,
    changed,
    flip,
    flips,
    free,
    paths,
    text,
)  # fmt: skip

from gdn_aot.errors import ProvenanceError, UsageError
from gdn_aot.trust import provenance
from gdn_aot.trust.provenance import MAX_BUNDLE, WORKFLOW, Expected, Provenance, read_bundle, verify_provenance


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
    ("signer", "workflow"),
    [
        ("trailofbits/pypi-attestations/.github/workflows/release.yml@refs/tags/v0.0.19", EXPECTED.workflow),
        (
            "trailofbits/pypi-attestations/.github/workflows/release.yml@refs/heads/x",
            f"{EXPECTED.workflow}@refs/heads/x",
        ),
        ("trailofbits/pypi-attestations2/.github/workflows/release.yml@refs/tags/v0.0.19", None),
        ("evil/workflows/trailofbits/pypi-attestations/.github/workflows/release.yml@refs/tags/v0.0.19", None),
    ],
)
def test_a_workflow_that_another_calls(signer: str, workflow: str | None) -> None:
    """GitHub names the one that has signed. It counts if it is of the repository and the ref that were built."""
    named = provenance._named(certificate(n9=text(f"https://github.com/{signer}")))
    assert named.workflow == (workflow or f"https://github.com/{signer}".removesuffix("@refs/tags/v0.0.19"))
    assert replace(named, workflow=BUILT.workflow) == BUILT
    assert bool([*EXPECTED.misfits(named)]) is (workflow != EXPECTED.workflow)


@pytest.mark.parametrize("value", [b"", b"\x0c", b"\x13\x01a", b"\x0c\x02\xff\xff", b"\x0c\x84\0\0\0\1a", b"abc"])
def test_a_field_that_is_no_text(value: bytes) -> None:
    with pytest.raises(ValueError, match=r"no text in its field 12|utf-8"):
        provenance._named(certificate(n12=value))


def test_an_odd_certificate_is_refused_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    """Its number is negative; a library would warn of that on stderr."""
    path = ["verificationMaterial", "certificate", "rawBytes"]
    der = bytearray(base64.b64decode(json.loads(BUNDLE)["verificationMaterial"]["certificate"]["rawBytes"]))
    assert der[13:15] == b"\x02\x14"
    der[15] |= 0x80
    warnings.simplefilter("always")
    assert not accepted(put(path, base64.b64encode(der).decode()))
    assert not recwarn.list


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
    with pytest.raises(ProvenanceError) as caught:
        verify_provenance(SHA256, bundle(name), EXPECTED)
    assert ("package sigstore" in caught.value.hint) is (name != "publication")


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
