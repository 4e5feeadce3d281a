"""Real bundles of Sigstore and what is done to them. ``tests/trust/data/README.md`` says where they are from."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from helpers import ROOT
from sigstore.models import Bundle

from gdn_aot.errors import ProvenanceError
from gdn_aot.trust.provenance import Expected, Provenance, verify_provenance

DATA = ROOT / "tests/trust/data"
BUNDLE = (DATA / "provenance.sigstore.json").read_bytes().rstrip()
SHA256 = "9bb1add04b1b4e182be6b0b80931593f7a291eb49d69b4fd728a5d4cbcdc4bd3"
"""Of the file that `BUNDLE` is for."""
EXPECTED = Expected(
    repository="trailofbits/pypi-attestations", workflow=".github/workflows/release.yml", refs=("refs/tags/v*",)
)
BUILT = Provenance(
    repository="trailofbits/pypi-attestations",
    workflow=".github/workflows/release.yml",
    ref="refs/tags/v0.0.19",
    commit="08802efe1f8e5fec4ad842d6b8ce97656092ee72",
    run="https://github.com/trailofbits/pypi-attestations/actions/runs/12169989787/attempts/1",
    event="release",
    runner="github-hosted",
)
LOG = rb"\\u2014 (rekor\.sigstore\.dev) "
"""The name of the log before its signature of a checkpoint: the one text of a bundle that nobody signed."""


def bundle(name: str) -> bytes:
    return (DATA / f"{name}.sigstore.json").read_bytes()


def accepted(data: bytes) -> bool:
    """Say whether bytes are taken for the bundle. They then say what it says, and else they are refused."""
    with suppress(ProvenanceError):
        assert verify_provenance(SHA256, data, EXPECTED) == BUILT
        return True
    return False


def flips(step: int) -> tuple[int, set[int]]:
    """Flip every `step`th bit of `BUNDLE`, one at a time; return how many, and where it was accepted nevertheless."""
    bits = range(0, 8 * len(BUNDLE), step)
    return len(bits), {bit // 8 for bit in bits if accepted(flip(bit))}


def flip(bit: int) -> bytes:
    data = bytearray(BUNDLE)
    data[bit // 8] ^= 1 << bit % 8
    return bytes(data)


def free() -> set[int]:
    """Return where a bit of `BUNDLE` may not matter.

    That is in `LOG`, and in the last digit of a text in base64 whose length is no multiple of three: some of its bits
    are not used.
    """
    name = re.search(LOG, BUNDLE)
    assert name
    return {*range(*name.span(1)), *(found.start() for found in re.finditer(rb'[A-Za-z0-9+/]==?(?="|\\n)', BUNDLE))}


def changed(where: list[str | int], change: Callable[[Any, Any], None]) -> bytes:
    """Return `BUNDLE` with one change, of what is inside of it at a path: of a container and a key in it."""
    document = json.loads(BUNDLE)
    inner = document
    for key in where[:-1]:
        inner = inner[key]
    change(inner, where[-1])
    return json.dumps(document).encode()


def paths(value: Any = None, before: tuple[str | int, ...] = ()) -> Iterator[list[str | int]]:
    """Yield the path of everything in `BUNDLE`."""
    value = json.loads(BUNDLE) if value is None else value
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield [*before, key]
        yield from paths(value[key], (*before, key))


def beside(file: Path) -> Path:
    """Return where the bundle of a file is looked for."""
    return file.with_name(file.name.removesuffix(".tar.zst") + ".sigstore.json")


def certificate(**fields: bytes) -> x509.Certificate:
    """A certificate that nobody vouches for, with the fields of the one in `BUNDLE`, and others."""
    real = Bundle.from_json(BUNDLE).signing_certificate
    key = ec.generate_private_key(ec.SECP256R1())
    start = x509.CertificateBuilder().subject_name(real.issuer).issuer_name(real.issuer).public_key(key.public_key())
    made = start.serial_number(1).not_valid_before(real.not_valid_before_utc).not_valid_after(real.not_valid_after_utc)
    for one in real.extensions:
        if isinstance(one.value, x509.UnrecognizedExtension):
            number = one.oid.dotted_string.rpartition(".")[2]
            made = made.add_extension(
                x509.UnrecognizedExtension(one.oid, fields.get(f"n{number}", one.value.value)), critical=False
            )
    return made.sign(key, hashes.SHA256())


def text(value: str) -> bytes:
    """A text in DER."""
    data = value.encode()
    return bytes([12, *([] if len(data) < 128 else [0x81]), len(data)]) + data
