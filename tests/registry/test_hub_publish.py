"""``gdn-aot publish`` and ``list`` through the real client: what is in the repository afterwards, and what was sent."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from registry.loopback import OUTSIDER, READER, UNKNOWN, WRITER, Cut, Meanwhile, Refuse
from registry.machines import Machine
from registry.making import make

if TYPE_CHECKING:
    from pathlib import Path

    from helpers import Done

    from gdn_aot.artifact.archive import Written
    from registry.loopback import LoopbackHub
    from registry.making import Published


@pytest.fixture
def artifact(tmp_path: Path, name: str) -> Written:
    """An artifact that no hub has seen."""
    return make(tmp_path, build=int(name.rsplit("-", maxsplit=1)[-1]) + 1000)


def publish(machine: Machine, repo: str, *args: object, **options: Any) -> Done:
    return machine.run("publish", "--repo", f"hf://{repo}", *args, **options)


def uploads(hub: LoopbackHub) -> list[str]:
    """Return the SHA-256 of every large file that was sent whole."""
    return [record.path.removeprefix("/storage/") for record in hub.requests("PUT") if record.status == 200]


def index(hub: LoopbackHub, repo: str, revision: str = "v1") -> dict[str, str]:
    """Return identifier and SHA-256 of what the index of a revision lists, after a look at the files themselves."""
    with hub.repository(repo) as repository:
        files = repository.resolve(revision).files
    listed = {entry["identifier"]: entry["sha256"] for entry in json.loads(files["index.json"].content)["entries"]}
    for identifier, sha256 in listed.items():
        assert files[f"targets/{identifier}.tar.zst"].sha256 == sha256
        assert json.loads(files[f"targets/{identifier}.json"].content)["sha256"] == sha256
    return listed


def commits(hub: LoopbackHub, repo: str) -> int:
    with hub.repository(repo) as repository:
        return len(repository.commits)


def test_create_publish_tag(hub: LoopbackHub, machine: Machine, name: str, artifact: Written) -> None:
    publish(machine, name, artifact.path, "--create", "--tag", "v1.0.0")
    assert index(hub, name) == {artifact.identifier: artifact.sha256}
    with hub.repository(name) as repository:
        assert repository.private is False
        assert repository.tags == {"v1.0.0": repository.branches["v1"]}
        main = repository.resolve("main").files
        assert {path for path in main if not path.startswith(".")} == {"README.md", "index.json"}
        assert json.loads(main["index.json"].content)["tree"] == "v1"
        tree = {path for path in repository.resolve("v1").files if not path.startswith(".")}
        targets = {f"targets/{artifact.identifier}.tar.zst", f"targets/{artifact.identifier}.json"}
        assert tree == {"README.md", "index.json", *targets}
    assert uploads(hub) == [artifact.sha256]
    assert {record.user for record in hub.requests(path="/storage/")} == {None}


def test_again_is_a_no_op(hub: LoopbackHub, machine: Machine, name: str, artifact: Written) -> None:
    publish(machine, name, artifact.path, "--create", "--tag", "v1.0.0")
    before = commits(hub, name)
    hub.log.clear()
    publish(machine, name, artifact.path, "--tag", "v1.0.0")
    publish(machine, name, artifact.path)
    assert commits(hub, name) == before
    assert not hub.requests("PUT|DELETE")
    assert not hub.requests("POST", "/(commit|branch|tag)/")


def test_dry_run_changes_nothing(hub: LoopbackHub, machine: Machine, name: str, artifact: Written, repo: str) -> None:
    before = commits(hub, repo)
    publish(machine, repo, artifact.path, "--replace", "--tag", "v1.2.0", "--dry-run")
    assert commits(hub, repo) == before
    assert not hub.requests("PUT|DELETE")
    assert not hub.requests("POST", "/(commit|branch|tag|preupload)/|create|batch")


def test_more_targets_are_added(hub: LoopbackHub, machine: Machine, name: str, tmp_path: Path) -> None:
    first, second = make(tmp_path, build=7), make(tmp_path, "sm_80", build=7)
    publish(machine, name, first.path, "--create")
    hub.log.clear()
    publish(machine, name, second.path, "--tag", "v1.1.0")
    expected = {first.identifier: first.sha256, second.identifier: second.sha256}
    assert index(hub, name) == expected
    assert index(hub, name, "v1.1.0") == expected
    assert uploads(hub) == [second.sha256]


def test_repository_is_not_created_unasked(hub: LoopbackHub, machine: Machine, name: str, artifact: Written) -> None:
    publish(machine, name, artifact.path, "--json", code=7, kind="repository-missing")
    assert name not in hub.state.repositories


def test_private(hub: LoopbackHub, machine: Machine, name: str, artifact: Written) -> None:
    publish(machine, name, artifact.path, "--create", "--private")
    with hub.repository(name) as repository:
        assert repository.private
    before = commits(hub, name)
    for token, kinds in (
        (READER, {"access-denied"}),
        (OUTSIDER, {"repository-missing"}),
        (UNKNOWN, {"access-denied"}),
        (None, {"repository-missing", "access-denied"}),
    ):
        done = publish(machine, name, artifact.path, "--tag", "v1.0.0", "--json", code=7, token=token)
        assert done.json["error"]["code"] in kinds, token
    assert commits(hub, name) == before
    with hub.repository(name) as repository:
        assert not repository.tags


def test_a_repository_that_is_there_stays_public(
    hub: LoopbackHub, machine: Machine, name: str, artifact: Written
) -> None:
    publish(machine, name, artifact.path, "--create")
    for more in (["--dry-run"], []):
        done = publish(machine, name, artifact.path, "--create", "--private", "--json", *more)
        assert done.json["visibility_kept"] is True
        assert f"Warning: hf://{name} was there already" in done.err
    with hub.repository(name) as repository:
        assert not repository.private


def test_create_without_the_right_to(hub: LoopbackHub, machine: Machine, name: str, artifact: Written) -> None:
    for token in (OUTSIDER, None):
        publish(machine, name, artifact.path, "--create", "--json", code=7, kind="access-denied", token=token)
    assert name not in hub.state.repositories


def test_other_content_is_refused(
    hub: LoopbackHub, machine: Machine, repo: str, artifact: Written, published: Published
) -> None:
    before = commits(hub, repo)
    done = publish(machine, repo, artifact.path, "--json", code=7, kind="conflict")
    for digest in (published.new.sha256, artifact.sha256):
        assert digest in done.json["error"]["message"]
    done = publish(machine, repo, artifact.path, "--replace", "--tag", "v1.0.0", "--json", code=7, kind="conflict")
    assert "v1.0.0" in done.json["error"]["message"]
    assert commits(hub, repo) == before
    assert not uploads(hub)


def test_replaced_content_stays_reachable(hub: LoopbackHub, repo: str, published: Published) -> None:
    sm_90 = {published.sm_90.identifier: published.sm_90.sha256}
    assert index(hub, repo, "v1.0.0") == {**sm_90, published.old.identifier: published.old.sha256}
    assert index(hub, repo, "v1.1.0") == {**sm_90, published.new.identifier: published.new.sha256}
    assert index(hub, repo) == index(hub, repo, "v1.1.0")


def test_damaged_artifact_is_not_published(hub: LoopbackHub, machine: Machine, repo: str, artifact: Written) -> None:
    data = bytearray(artifact.path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    artifact.path.write_bytes(data)
    before = commits(hub, repo)
    publish(machine, repo, artifact.path, "--replace", "--tag", "v1.2.0", "--json", code=5, kind="verification")
    assert commits(hub, repo) == before
    assert not hub.requests("PUT|POST")


def test_stale_parent_is_tried_again_without_a_second_upload(
    hub: LoopbackHub, machine: Machine, name: str, tmp_path: Path
) -> None:
    first, second, theirs = (
        make(tmp_path, build=11),
        make(tmp_path, "sm_80", build=11),
        make(tmp_path, "sm_90", build=11),
    )
    publish(machine, name, first.path, "--create")
    hub.log.clear()
    other = Machine(home=tmp_path / "other", endpoint=hub.url)
    struck = hub.fault("POST", "/commit/v1$", Meanwhile(lambda: publish(other, name, theirs.path)))
    publish(machine, name, second.path, "--tag", "v1.1.0")
    assert struck.struck == 1
    assert index(hub, name) == {made.identifier: made.sha256 for made in (first, second, theirs)}
    assert index(hub, name, "v1.1.0") == index(hub, name)
    assert sorted(uploads(hub)) == sorted([second.sha256, theirs.sha256])
    assert 412 in [record.status for record in hub.requests("POST", "/commit/v1$")]


def test_publishers_at_once_lose_nothing(hub: LoopbackHub, machine: Machine, name: str, tmp_path: Path) -> None:
    targets = ("sm_75", "sm_80", "sm_90", "sm_120")
    made = [make(tmp_path, target, build=13) for target in targets]
    publish(machine, name, make(tmp_path, "sm_89", build=13).path, "--create")
    hub.log.clear()
    running = [
        Machine(home=tmp_path / target, endpoint=hub.url).start("publish", "--repo", f"hf://{name}", artifact.path)
        for target, artifact in zip(targets, made, strict=True)
    ]
    for process in running:
        process.end()
    listed = index(hub, name)
    assert len(listed) == 5
    assert listed.items() >= {artifact.identifier: artifact.sha256 for artifact in made}.items()
    assert sorted(uploads(hub)) == sorted(artifact.sha256 for artifact in made)


@pytest.mark.parametrize("where", ["/commit/v1$", "/commit/main$", "/tag/", "/branch/"])
def test_lost_answers_are_completed_by_publishing_again(
    hub: LoopbackHub, machine: Machine, name: str, artifact: Written, where: str
) -> None:
    """The hub did what it was asked for, and the answer never came."""
    struck = hub.fault("POST", where, Cut())
    first = machine.start("publish", "--repo", f"hf://{name}", artifact.path, "--create", "--tag", "v1.0.0")
    first.process.wait(60)
    assert struck.struck
    first.end(first.process.returncode)
    assert first.process.returncode in (0, 7)
    hub.faults.clear()
    publish(machine, name, artifact.path, "--tag", "v1.0.0")
    assert index(hub, name) == index(hub, name, "v1.0.0") == {artifact.identifier: artifact.sha256}
    with hub.repository(name) as repository:
        assert json.loads(repository.resolve("main").files["index.json"].content)["tree"] == "v1"
    assert uploads(hub) == [artifact.sha256]
    before = commits(hub, name)
    publish(machine, name, artifact.path, "--tag", "v1.0.0")
    assert commits(hub, name) == before


def test_upload_that_fails_at_first(hub: LoopbackHub, machine: Machine, name: str, artifact: Written) -> None:
    hub.fault("PUT", "/storage/", Refuse(503))
    hub.fault("POST", "/preupload/", Refuse(429, headers={"Retry-After": "0"}))
    publish(machine, name, artifact.path, "--create")
    assert [record.status for record in hub.requests("PUT")] == [503, 200]
    assert index(hub, name) == {artifact.identifier: artifact.sha256}


def test_list(hub: LoopbackHub, machine: Machine, repo: str, published: Published) -> None:
    done = machine.run("list", "--repo", f"hf://{repo}")
    assert published.new.identifier in done.out
    assert published.sm_90.identifier in done.out
    done = machine.run("list", "--repo", f"hf://{repo}", "--revision", "v1.0.0", "--json")
    assert published.old.sha256 in done.out
    assert published.new.sha256 not in done.out
    machine.fetch(repo)
    assert published.new.identifier in machine.run("list", "--installed").out
    assert hub.requests("PUT|POST|DELETE") == []


def test_token_option(hub: LoopbackHub, machine: Machine, name: str, artifact: Written) -> None:
    publish(machine, name, artifact.path, "--create", "--private", "--token", WRITER, token=None)
    assert {record.user for record in hub.requests(path=name)} == {"writer"}
