"""Publishing by the command; while others do so, or the network fails, nothing is lost."""

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import factory
import helpers
import pytest
from helpers import expect_error, gdn_aot
from loopback import Cut, LoopbackHub, Refuse
from making import SM_90, SM_120, TARGETS, WANTED, expected, make
from msgspec.structs import replace
from registries import branches, files, listed, send, uploads
from signing import Publisher, pem

from gdn_aot.artifact import archive, names
from gdn_aot.artifact import manifest as m
from gdn_aot.artifact.archive import Written
from gdn_aot.errors import ConflictError, NetworkError, RegistryError, UsageError
from gdn_aot.registry import card
from gdn_aot.registry.base import Addition, Registry
from gdn_aot.registry.directory import DirectoryRegistry
from gdn_aot.registry.layout import CARD, REPORT
from gdn_aot.registry.remote import RemoteRegistry

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the client's way to send a file


ON_THE_HUB = pytest.mark.parametrize("either", ["hub"], indirect=True)
STEPS = [("directory", "v1"), ("directory", "v1.0.0"), ("hub", "v1"), ("hub", "v1.0.0"), ("hub", "main")]


class Meddled:
    """A registry in which something happens once, just before a commit to a branch or a tag, or before the first."""

    def __init__(self, registry: Registry, meanwhile: Callable[[], object], before: str = "") -> None:
        self.registry, self.meanwhile, self.before = registry, [meanwhile], before

    def __getattr__(self, name: str) -> Any:
        return getattr(self.registry, name)

    def _once(self, what: str) -> None:
        if self.meanwhile and self.before in ("", what):
            self.meanwhile.pop()()

    def commit(self, branch: str, parent: str | None, additions: Sequence[Addition], message: str) -> str:
        self._once(branch)
        return self.registry.commit(branch, parent, additions, message)

    def tag(self, name: str, commit: str) -> None:
        self._once(name)
        self.registry.tag(name, commit)


def test_somebody_else_is_faster(hub: LoopbackHub, either: Registry, tmp_path: Path) -> None:
    """At either branch: the index is read again and merged, and neither loses anything. Nothing is sent twice."""
    made = [make(tmp_path, "sm_70", build=9)]
    send(either, *made)
    for number, branch in enumerate(branches(either)):
        mine, theirs = (make(tmp_path, TARGETS[1 + 2 * number + side], build=9) for side in (0, 1))
        meddled = Meddled(either, partial(send, either, theirs), branch)
        send(meddled, mine, tag=f"v1.0.{number}")
        assert not meddled.meanwhile
        made += [mine, theirs]
        for revision in branches(either):
            assert listed(either, revision) == expected(*made)
        assert expected(mine).items() <= listed(either, f"v1.0.{number}").items()
    if isinstance(either, RemoteRegistry):
        assert sorted(uploads(hub)) == sorted(one.sha256 for one in made)
        assert 412 in [record.status for record in hub.requests("POST", "/commit/v1$")]


def test_somebody_else_tags_later(either: Registry, sm_120: Written, sm_90: Written) -> None:
    """What a tag names is what was committed for it, also if the branch has moved on since."""
    send(Meddled(either, partial(send, either, sm_90), "v1.0.0"), sm_120, tag="v1.0.0")
    assert listed(either, "v1.0.0") == expected(sm_120)
    assert listed(either) == expected(sm_120, sm_90)


def test_somebody_else_publishes_the_same_identifier(
    either: Registry, sm_90: Written, sm_120: Written, tmp_path: Path
) -> None:
    theirs = make(tmp_path, build=1)
    result = send(Meddled(either, partial(send, either, sm_90)), sm_90)
    assert [item.action for item in result.plan.items] == ["unchanged"]
    with pytest.raises(ConflictError):
        send(Meddled(either, partial(send, either, theirs)), sm_120)
    assert listed(either) == expected(sm_90, theirs)


@pytest.mark.parametrize(("either", "step"), STEPS, indirect=["either"])
def test_cut_off_between_the_steps(either: Registry, sm_120: Written, step: str) -> None:
    def cut() -> None:
        raise NetworkError("cut off")

    start = either.refs().branches
    with pytest.raises(NetworkError):
        send(Meddled(either, cut, step), sm_120, tag="v1.0.0")
    refs = either.refs()
    assert (refs.branches == start, "v1.0.0" in refs.tags) == (step == "v1", step == "main")
    send(either, sm_120, tag="v1.0.0")
    for revision in (*branches(either), "v1.0.0"):
        assert listed(either, revision) == expected(sm_120)


@ON_THE_HUB
@pytest.mark.parametrize("where", ["/commit/v1$", "/commit/main$", "/tag/", "/branch/"])
def test_lost_answers(hub: LoopbackHub, either: Registry, tmp_path: Path, where: str) -> None:
    """The Hub did what it was asked for, and the answer never came: publishing again completes what is missing."""
    made = make(tmp_path, build=sum(map(ord, where)))
    struck = hub.fault("POST", where, Cut())
    with suppress(RegistryError):
        send(either, made, tag="v1.0.0")
    assert struck.struck
    hub.faults.clear()
    send(either, made, tag="v1.0.0")
    for revision in (*branches(either), "v1.0.0"):
        assert listed(either, revision) == expected(made)
    assert uploads(hub) == [made.sha256]
    before = either.refs()
    send(either, made, tag="v1.0.0")
    assert either.refs() == before


@ON_THE_HUB
def test_an_upload_that_fails_at_first(hub: LoopbackHub, either: Registry, tmp_path: Path) -> None:
    made = make(tmp_path, build=11)
    hub.fault("PUT", "/storage/", Refuse(503))
    hub.fault("POST", "/preupload/", Refuse(429, headers={"Retry-After": "0"}))
    send(either, made)
    assert [record.status for record in hub.requests("PUT")] == [503, 200]
    assert listed(either) == expected(made)


# The command: what it does, says and refuses


def test_a_page_lies_beside_the_artifacts(either: Registry, tmp_path: Path) -> None:
    """The card links to it, also that of main, until something else is published without one."""

    def page(text: str) -> Path:
        (tmp_path / "page.html").write_text(f"<!doctype html>\n{text}")
        return tmp_path / "page.html"

    def cards() -> list[bytes]:
        return [either.read(either.resolve(branch), CARD) for branch in branches(either)]

    first, second = make(tmp_path, "sm_70"), make(tmp_path, "sm_80")
    send(either, first)
    assert not any(map(card.has_report, cards()))
    one = send(either, first, report=page("one"), tag="v1.0.0")
    assert one.plan.items[0].action == "unchanged"
    assert either.read(either.resolve("v1.0.0"), REPORT) == b"<!doctype html>\none"
    assert all(map(card.has_report, cards()))
    link = b"https://huggingface.co/" if isinstance(either, RemoteRegistry) else b"](report.html)"
    assert all(link in text for text in cards())
    assert not send(either, first).plan.outdated
    assert all(map(card.has_report, cards()))
    assert send(either, second).plan.outdated
    assert not any(map(card.has_report, cards())), "it does not describe the second"
    assert listed(either) == expected(first, second)
    send(either, second, report=page("one"))
    assert all(map(card.has_report, cards()))
    again = send(either, second, report=page("one"))
    assert again.plan.report is None
    assert again.commit == either.refs().branches["v1"]
    send(either, second, report=page("two"))
    assert either.read(either.resolve("v1"), REPORT) == b"<!doctype html>\ntwo"
    for report in (first.path, tmp_path / "none", tmp_path):
        with pytest.raises(UsageError):
            send(either, second, report=report)


def test_the_command_says_what_becomes_of_a_page(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("<!doctype html>\n")
    first, second = make(tmp_path, "sm_70"), make(tmp_path, "sm_80")
    where, page = ("--repo", tmp_path / "registry"), ("--report", tmp_path / "page.html")
    assert "1 published;" in gdn_aot("publish", first.path, "--create", *where, home=tmp_path / "home").err
    for arguments, said in (
        ((first.path, *page, "--dry-run"), "0 of 1 and the report would be published"),
        ((first.path, *page), "the report is published, the registry has every artifact"),
        ((first.path, *page), "nothing to publish, the registry has every artifact"),
        ((second.path,), "Warning: report.html describes the artifacts before this publication"),
        ((first.path, second.path, *page), "the report is published"),
    ):
        assert said in gdn_aot("publish", *arguments, *where, home=tmp_path / "home").err


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "registry"


def run(tmp_path: Path, *args: object, code: int = 0, **extra: str) -> Any:
    return gdn_aot("publish", *args, "--json", home=tmp_path / "home", code=code, extra=extra)


def test_command(tmp_path: Path, root: Path) -> None:
    old, new = make(tmp_path, dirty=True), make(tmp_path, build=1)
    to = ("--repo", root)
    expect_error(run(tmp_path, old.path, *to, code=7), 7, "repository-missing")

    dry = run(tmp_path, old.path, *to, "--create", "--tag", "v1.0.0", "--dry-run")
    assert not root.exists()
    assert dry.json["dry_run"] is True
    assert dry.json["commit"] is None
    assert [(item["action"], item["path"]) for item in dry.json["artifacts"]] == [("added", str(old.path))]
    assert dry.json["card"].startswith("---\nlibrary_name: gdn-aot\n")
    assert f"Warning: {SM_120} was built from a checkout with uncommitted changes" in dry.err

    done = run(tmp_path, old.path, *to, "--create", "--private", "--tag", "v1.0.0")
    registry = DirectoryRegistry(str(root))
    assert done.json["created"] is True
    assert done.json["repo"] == str(root)
    assert (done.json["commit"], done.json["main"]) == (registry.refs().tags["v1.0.0"], None)
    assert done.json["card"] == dry.json["card"]
    assert listed(registry) == expected(old)
    assert root.stat().st_mode & 0o077 == 0

    before = files(root)
    conflict = run(tmp_path, new.path, *to, "--dry-run", code=7)
    error = expect_error(conflict, 7, "conflict")
    assert old.sha256 in error["message"]
    assert conflict.json["artifacts"][0]["action"] == "refused"
    expect_error(run(tmp_path, new.path, *to, code=7), 7, "conflict")
    expect_error(run(tmp_path, new.path, *to, "--tag", "v1.0.0", "--replace", code=7), 7, "conflict")
    assert files(root) == before

    plain = gdn_aot("publish", old.path, *to, home=tmp_path / "home")
    assert "unchanged" in plain.out
    assert "nothing to publish" in plain.err

    other = make(tmp_path, "sm_90").path
    quiet = gdn_aot("publish", old.path, other, *to, "--quiet", home=tmp_path / "home")
    assert (quiet.out, quiet.err) == (f"{SM_90}\n", "")


def test_private(tmp_path: Path, root: Path) -> None:
    publisher = Publisher()
    (tmp_path / "key.pem").write_bytes(pem(publisher.key))
    (tmp_path / "keyring.json").write_bytes(publisher.signed().envelope.encode())
    signed = ("--key", tmp_path / "key.pem", "--keyring", tmp_path / "keyring.json")
    path, to = make(tmp_path).path, ("--repo", root, *signed, "--create", "--private")
    root.mkdir(mode=0o755)
    for more in (["--dry-run"], []):
        done = run(tmp_path, path, *to, *more)
        assert done.json["visibility_kept"] is False
        assert "Warning" not in done.err
    assert root.stat().st_mode & 0o777 == 0o700
    root.chmod(0o755)
    again = gdn_aot("publish", path, *to, "--quiet", home=tmp_path / "home")
    assert again.err.startswith(f"Warning: {root} existed already, so --private changes nothing")
    assert root.stat().st_mode & 0o777 == 0o755
    assert "Warning" not in gdn_aot("publish", path, *to[:-1], home=tmp_path / "home").err


def test_usage(tmp_path: Path, root: Path) -> None:
    path, to = make(tmp_path).path, ("--repo", root)
    for args in (
        (path, *to, "--tag", "latest"),
        (path, *to, "--replace"),
        (path, *to, "--private"),
        (path, "--repo", "hf://org/name@v1"),
        (path, "--repo", "nowhere"),
        (tmp_path / "none.tar.zst", *to),
        (path, *to, "--token", "hf_secretsecret\nX"),
    ):
        repo = ("--repo", "hf://org/name") if "--token" in args else ()
        done = run(tmp_path, *args, *repo, code=2)
        expect_error(done, 2, "usage")
        assert "secretsecret" not in done.out + done.err
    assert not root.exists()
    (tmp_path / "empty.tar.zst").touch()
    expect_error(run(tmp_path, tmp_path / "empty.tar.zst", *to, code=5), 5, "verification")


def test_what_the_index_could_not_have_is_not_published(tmp_path: Path, root: Path) -> None:
    plain = factory.make_manifest()
    manifest = replace(plain, numerics=m.Numerics(status="checked", detail="one line\nand another"))
    path = archive.write_artifact(manifest, factory.make_blobs(), tmp_path / names.file_name(manifest.identifier)).path
    done = run(tmp_path, path, "--repo", root, "--create", code=5)
    assert "numerics.detail" in [problem["where"] for problem in done.json["error"]["problems"]]
    assert not root.exists()


def test_tokens_are_never_shown(tmp_path: Path) -> None:
    """Nobody listens at port 9; the debug log tells about every request and about the exceptions below our own."""
    extra = {"HF_ENDPOINT": "http://user:passpass@127.0.0.1:9", "GDN_AOT_LOG": "debug", "HF_DEBUG": "1"}
    extra |= {"HF_TOKEN": "hf_environmentsecret", "HF_HOME": str(tmp_path / "hf")}
    path = make(tmp_path).path
    command = [sys.executable, "-m", "gdn_aot", "publish", str(path), "--repo", "hf://org/name", "--json"]
    done = helpers.run([*command, "--token", "hf_optionsecret"], tmp_path / "home", extra)
    assert done.code == 7
    assert done.json["error"]["code"] == "network"
    assert "Connection refused" in done.json["error"]["message"]
    assert "Traceback" in done.err  # of the exception that was translated
    for secret in ("environmentsecret", "optionsecret", "passpass"):
        assert secret not in done.out + done.err


@pytest.mark.parametrize(
    ("where", "repo"),
    [("option", "https://user:hf_topsecret@huggingface.co/org/name"), ("environment", "hf://hf_topsecret@org/name")],
)
@pytest.mark.parametrize("command", ["fetch", "fetch --optional", "list", "lock", "publish"])
def test_credentials_in_the_name_of_a_registry_are_not_shown(
    tmp_path: Path, command: str, repo: str, where: str
) -> None:
    args = [*command.split(), *(["--arch", "sm_90", *WANTED] if command.startswith(("fetch", "lock")) else [])]
    args += [str(make(tmp_path).path)] if command == "publish" else []
    args += ["--repo", repo] if where == "option" else []
    extra = {"GDN_AOT_REPO": repo} if where == "environment" else {}
    code = 0 if "--optional" in args else 2
    for form in ([], ["--json"]):
        done = gdn_aot(*args, *form, home=tmp_path / "home", code=code, extra=extra)
        assert "***" in done.err
        assert "topsecret" not in done.out + done.err
