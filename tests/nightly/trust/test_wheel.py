"""The keyring that the makers of a package put into it."""

import subprocess
import sys
import zipfile
from pathlib import Path

from helpers import ROOT, python
from signing import Publisher

_SAY = """
import json
from gdn_aot.trust.known import newest
print(json.dumps([[known.source, known.signed.verify().repo] for known in newest("hf://gdn-aot/kernels", "")]))
"""


def test_a_keyring_in_the_package_is_known_where_that_is_installed(tmp_path: Path) -> None:
    """A wheel of these sources with a keyring in its place has it, and whoever installs the wheel knows it."""
    subprocess.run(["git", "clone", "-q", ROOT, tmp_path / "sources"], check=True)
    folder = tmp_path / "sources/gdn_aot/trust/keyrings"
    folder.mkdir()
    owner = Publisher("hf://gdn-aot/kernels")
    (folder / "gdn-aot--kernels.json").write_bytes(owner.signed().envelope.encode())
    words = ("wheel", "--no-deps", "--no-build-isolation", "-q", "-w", tmp_path / "dist", tmp_path / "sources")
    subprocess.run([sys.executable, "-m", "pip", *words], check=True, capture_output=True, cwd=tmp_path)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    said = python(_SAY, home=tmp_path, extra={"PYTHONPATH": str(tmp_path / "installed")})
    assert said == [["wheel", "hf://gdn-aot/kernels"]]
