"""Running ``gdn-aot keys``."""

from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import Done, gdn_aot
from keyrings import file_of, first, private

from gdn_aot.trust import places

Keys = Callable[..., Done]


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    """Run ``gdn-aot keys`` in ``tmp_path/home`` with keyrings in ``tmp_path/known``."""

    def keys(*words: object, code: int = 0) -> Done:
        return gdn_aot("keys", *words, home=tmp_path / "home", extra={places.KEYS: str(tmp_path / "known")}, code=code)

    return keys


@pytest.fixture
def pem(tmp_path: Path) -> Callable[[int], Path]:
    """Return the file of a private key."""
    from cryptography.hazmat.primitives import serialization as forms

    def pem(number: int) -> Path:
        path = tmp_path / f"key-{number}.pem"
        path.write_bytes(
            private(number).private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, forms.NoEncryption())
        )
        return path

    return pem


@pytest.fixture
def v1(tmp_path: Path) -> Path:
    """The file of a sound keyring."""
    path = tmp_path / "v1.json"
    path.write_bytes(file_of(first(), 1, 2))
    return path
