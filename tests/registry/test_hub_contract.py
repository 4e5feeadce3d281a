"""The loopback hub by itself: what it refuses, and what the unmodified client does not see."""

import hashlib
import random
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_download
from loopback import WRITER, Damage, LoopbackHub, Serve

pytestmark = [
    pytest.mark.usefixtures("client"),
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),  # the client's way to send a file
]

TARBALL = "targets/a.tar.zst"


@pytest.fixture
def big(name: str) -> bytes:
    """Content that the storage does not have yet."""
    return random.Random(name).randbytes(300_000)


@pytest.fixture
def api(name: str) -> HfApi:
    api = HfApi(token=WRITER)
    api.create_repo(name)
    return api


def add(api: HfApi, repo: str, files: dict[str, bytes]) -> None:
    operations = [CommitOperationAdd(path_in_repo=path, path_or_fileobj=content) for path, content in files.items()]
    api.create_commit(repo, operations, commit_message="add")


def test_bad_card(api: HfApi, name: str) -> None:
    with pytest.raises(ValueError, match="Invalid metadata in README"):
        add(api, name, {"README.md": b"---\nlicense mit\n---\n"})
    with pytest.warns(UserWarning, match="empty or missing yaml"):
        add(api, name, {"README.md": b"# Card\n"})


def test_upload_of_other_bytes_is_refused(hub: LoopbackHub, api: HfApi, name: str, big: bytes) -> None:
    addition = CommitOperationAdd(path_in_repo=TARBALL, path_or_fileobj=big)
    addition.path_or_fileobj = big[:-1] + b"!"
    with pytest.raises(RuntimeError, match="Error while uploading") as caught:
        api.create_commit(name, [addition], commit_message="add")
    assert "SHA-256" in str(caught.value.__cause__)
    assert hub.state.large.get(hashlib.sha256(big).hexdigest(), big) == big


def test_the_client_does_not_see_wrong_bytes(
    hub: LoopbackHub, api: HfApi, name: str, big: bytes, tmp_path: Path
) -> None:
    """Why nothing is installed that was not verified here."""

    def download(path: str, cache: str) -> bytes:
        found = hf_hub_download(name, path, endpoint=hub.url, token=WRITER, cache_dir=tmp_path / cache)
        return Path(found).read_bytes()

    add(api, name, {TARBALL: big, "index.json": b"{}"})
    hub.fault("GET", "/storage/", Damage())
    damaged = download(TARBALL, "damaged")
    assert len(damaged) == len(big)
    assert sum(left != right for left, right in zip(damaged, big, strict=True)) == 1
    hub.fault("HEAD|GET", TARBALL, Serve(b"another file"), times=None)
    hub.fault("HEAD|GET", "index.json", Serve(b"[1]"), times=None)
    assert download(TARBALL, "swapped") == b"another file"
    assert download("index.json", "swapped") == b"[1]"
