"""The index of a registry, names of registries and of revisions."""

import json
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from making import changed, indexed, make

from gdn_aot.artifact.archive import Written
from gdn_aot.artifact.names import MAX_FILE, make_identifier
from gdn_aot.artifact.verify import open_artifact
from gdn_aot.errors import UnknownFormatError, UsageError, VerificationError
from gdn_aot.registry import layout
from gdn_aot.registry.base import check_revision
from gdn_aot.registry.layout import INDEX_FORM, EntryModel, Provenances, RegistryIndex, make_index
from gdn_aot.registry.open import default_repo, locate, open_registry, shown_repo


@pytest.fixture(scope="module")
def index(sm_90: Written, sm_120: Written) -> RegistryIndex:
    return make_index([indexed(sm_90), indexed(sm_120)])


def test_entry_says_what_the_manifest_says(tmp_path: Path) -> None:
    made = make(tmp_path, "sm_90", dirty=True)
    entry = layout.entry_of(open_artifact(made.path))
    assert (entry.identifier, entry.sha256, entry.size) == (made.identifier, made.sha256, made.path.stat().st_size)
    assert (entry.target, entry.provider, entry.distribution) == ("sm_90", "fla", "fla-core")
    assert (entry.version, entry.triton, entry.ptxas, entry.license) == ("0.6.0", "3.6.0", "12.9.86", "MIT")
    assert entry.models == (EntryModel(name="qwen3.5-9b", tp=1, dtype="bf16"),)
    assert entry.choices == Provenances(measured=2, transferred=0, default=2)
    assert (entry.kernels, entry.binaries, entry.not_covered) == (2, 3, 1)
    assert (entry.numerics.status, entry.dirty, entry.commit) == ("not run", True, "c" * 40)


def test_round_trip(index: RegistryIndex) -> None:
    for tree in (None, "v1"):
        whole = msgspec.structs.replace(index, tree=tree)
        data = INDEX_FORM.encode(whole)
        assert INDEX_FORM.decode(data) == whole
        assert INDEX_FORM.encode(make_index([*reversed(whole.entries)], tree=tree)) == data


def refused(index: RegistryIndex | dict[str, Any]) -> list[str]:
    """Return the paths of what is wrong with an index."""
    raw = index if isinstance(index, dict) else msgspec.to_builtins(index)
    with pytest.raises(VerificationError) as caught:
        INDEX_FORM.decode(json.dumps(raw, indent=1, ensure_ascii=False).encode() + b"\n")
    assert all(str(problem).isprintable() for problem in caught.value.problems)
    return [problem.where for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("place", "value", "where"),
    [
        (("tree",), "main", "tree"),
        (("entries", 0, "sha256"), "A" * 64, "entries[0].sha256"),
        (("entries", 0, "size"), 0, "entries[0].size"),
        (("entries", 0, "size"), MAX_FILE + 1, "entries[0].size"),
        (("entries", 1, "target"), "../sm", "entries[1].target"),
        (("entries", 1, "target"), "sm_120\n", "entries[1].target"),
        (("entries", 1, "mode"), "both", "entries[1].mode"),
        (("entries", 1, "dirty"), 0, "entries[1].dirty"),
        (("entries", 1, "commit"), "HEAD", "entries[1].commit"),
        (("entries", 1, "max_tokens"), -1, "entries[1].max_tokens"),
        (("entries", 1, "choices", "measured"), -1, "entries[1].choices.measured"),
        (("entries", 1, "models", 0, "tp"), 0, "entries[1].models[0].tp"),
        (("entries", 1, "more"), 1, "entries[1].more"),
        (("entries", 0, "identifier"), "../../x", "entries[0].identifier"),
        (("entries", 0, "identifier"), "fla0.6.0-triton3.6.0-sm_121", "entries[0].identifier"),
    ],
)
def test_what_is_wrong_has_its_path(index: RegistryIndex, place: tuple[Any, ...], value: Any, where: str) -> None:
    assert where in refused(changed(INDEX_FORM, index, place, value))


@pytest.mark.parametrize("text", ["\x1b[2J", "a\nb", "a\u202eb", "\x9b1m"])
def test_no_text_steers_a_terminal(index: RegistryIndex, text: str) -> None:
    """All texts of an entry at once: each has its path."""
    raw = changed(INDEX_FORM, index, ("entries", 1, "numerics"), {"status": text, "detail": text})
    entry = raw["entries"][1]
    own = ("provider", "distribution", "version", "license", "triton", "ptxas", "tool")
    entry.update(dict.fromkeys(own, text), models=[{"name": text, "tp": 1, "dtype": text}])
    where = {*own, "numerics.status", "numerics.detail", "models[0].name", "models[0].dtype"}
    assert {f"entries[1].{name}" for name in where} <= {*refused(raw)}


def test_a_provider_cannot_make_the_identifier_a_path(index: RegistryIndex) -> None:
    identifier = make_identifier("../", "0.6.0", "3.6.0", "sm_120")
    bad = msgspec.structs.replace(index.entries[0], provider="../", identifier=identifier)
    assert refused(RegistryIndex(tree=None, entries=(bad,))) == ["entries[0].identifier"]


@pytest.mark.parametrize(("order", "what"), [((1, 0), "out of order"), ((0, 0), "twice")])
def test_entries_are_sorted_and_unique(index: RegistryIndex, order: tuple[int, int], what: str) -> None:
    entries = tuple(index.entries[number] for number in order)
    with pytest.raises(VerificationError) as caught:
        INDEX_FORM.decode(INDEX_FORM.encode(RegistryIndex(tree=None, entries=entries)))
    assert what in caught.value.problems[0].what


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{", b'{"format": 1, "format": 1}', "ä".encode(), b"null", b"[" * 100000]
)
def test_what_is_no_index(data: bytes) -> None:
    with pytest.raises(VerificationError):
        INDEX_FORM.decode(data)


def test_too_large_is_not_parsed() -> None:
    with pytest.raises(VerificationError) as caught:
        INDEX_FORM.decode(b" " * (layout.MAX_INDEX + 1))
    assert "larger" in caught.value.problems[0].what


@pytest.mark.parametrize("version", [0, 2, 10**30])
def test_other_format_is_its_own_error(version: int) -> None:
    with pytest.raises(UnknownFormatError):
        INDEX_FORM.decode(json.dumps({"format": version, "new": True}).encode())


@pytest.mark.parametrize(
    ("repo", "hub", "place", "revision"),
    [
        ("hf://gdn-aot/kernels", True, "gdn-aot/kernels", None),
        ("hf://a/b@v1.2.0", True, "a/b", "v1.2.0"),
        ("some/where", True, "some/where", None),
        ("/abs/dir/../x", False, "/abs/x", None),
        ("file:///abs/dir", False, "/abs/dir", None),
        ("/a@b", False, "/a@b", None),
    ],
)
def test_locate(repo: str, hub: bool, place: str, revision: str | None) -> None:
    found = locate(repo)
    assert (found.hub, found.place, found.revision) == (hub, place, revision)
    assert found.name == (f"hf://{place}" if hub else place)
    assert open_registry(repo).name == found.name


def test_locate_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    (tmp_path / "org/name").mkdir(parents=True)
    assert locate("org/name").place == f"{tmp_path}/org/name"
    assert locate("hf://org/name").hub
    assert locate("./new").place == f"{tmp_path}/new"
    assert locate(".").place == str(tmp_path)
    assert locate("~/x").place == "/home/me/x"


NO_REPOSITORIES = (
    *("", " ", "name", "a\0b/c", "a/b.git", "file://relative", "s3://a/b", "https://huggingface.co/a/b", "hf://name"),
    *("hf://a/b/c", "hf://a/../b", "hf://a/b@", "hf://a/b@..", "hf://-a/b", "hf://a/b?x=1", "hf://a/b#c"),
)
NO_REVISIONS = (
    *("", "-v", "a..b", "../x", "/x", "x/", "a//b", ".x"),
    *("x/.y", "x.lock", "a b", "a?b", "a\nb", "ä", "x/-y", "a" * 300),
)


@pytest.mark.parametrize("repo", NO_REPOSITORIES)
def test_locate_refuses(repo: str) -> None:
    with pytest.raises(UsageError):
        locate(repo)


WITH_SECRETS = (
    "https://user:hf_mytopsecret@huggingface.co/org/name",
    "https://user:my-topsecret@huggingface.co/org/name",
    "user:my-p@topsecret@huggingface.co/org/name",
    "hf://hf_mytopsecret@org/name",
    "hf://user:topsecret@org/name@v1",
    "hf_mytopsecret@org/name",
    "hf://org/name/hf_mytopsecret",
    "file://hf_mytopsecret@host/name",
    f"hf://org/name@hf_{'topsecret' * 4}",
    f"hf://hf_{'topsecret' * 4}/name",
    f"hf_{'topsecret' * 4}/name",
    "hf://org/name@ hf_mytopsecret",
)


@pytest.mark.parametrize("repo", WITH_SECRETS)
def test_no_message_shows_credentials(repo: str) -> None:
    with pytest.raises(UsageError) as caught:
        locate(repo)
    assert "topsecret" not in caught.value.message + caught.value.hint
    assert "***" in caught.value.message
    assert "topsecret" not in shown_repo(repo)


@pytest.mark.parametrize("repo", ["hf://org/hf_kernels@v1", "./hf_kernels", "/data/hf_kernels", "hf://org/name"])
def test_what_names_a_registry_is_shown(repo: str) -> None:
    assert shown_repo(repo) == repo


def test_default_repo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GDN_AOT_REPO", raising=False)
    assert default_repo() == layout.DEFAULT_REPO
    monkeypatch.setenv("GDN_AOT_REPO", "./mirror")
    assert default_repo() == "./mirror"
    assert default_repo("hf://a/b") == "hf://a/b"


@pytest.mark.parametrize("revision", ["main", "v1", "v1.2.0", "a" * 40, "refs/pr/3", "feature/x_y", "v1.0.0+cu12"])
def test_revisions(revision: str) -> None:
    assert check_revision(revision) == revision


@pytest.mark.parametrize("revision", NO_REVISIONS)
def test_revisions_refused(revision: str) -> None:
    with pytest.raises(UsageError):
        check_revision(revision)


@given(st.text(alphabet="av1.-/_+\\%\0 ", max_size=12))
def test_a_revision_stays_in_its_folder(text: str) -> None:
    try:
        revision = check_revision(text)
    except UsageError:
        return
    parts = PurePosixPath("refs", revision).parts
    assert len(parts) == 1 + len(revision.split("/"))
    assert not set(parts) & {"", ".", ".."}
    assert not set(revision) & set("\\%\0 ")
