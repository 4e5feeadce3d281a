"""``gdn-aot publish`` and ``list`` on the Hub; ``test_registry.py`` has what they do there step by step."""

import json
from pathlib import Path
from typing import Any

from helpers import Done
from loopback import WRITER, LoopbackHub
from machines import Machine
from making import Published, expected, make


def publish(machine: Machine, repo: str, *args: object, **options: Any) -> Done:
    return machine.run("publish", "--repo", f"hf://{repo}", *args, **options)


def test_create_publish_tag(hub: LoopbackHub, machine: Machine, name: str, tmp_path: Path) -> None:
    """What is in the repository afterwards, file by file, and what was sent."""
    made = make(tmp_path, build=1000)
    publish(machine, name, made.path, "--create", "--tag", "v1.0.0")
    with hub.repository(name) as repository:
        assert repository.private is False
        assert repository.tags == {"v1.0.0": repository.branches["v1"]}
        main, tree = (repository.resolve(branch).files for branch in ("main", "v1"))
    assert {path for path in main if not path.startswith(".")} == {"README.md", "index.json"}
    assert json.loads(main["index.json"].content)["tree"] == "v1"
    targets = {f"targets/{made.identifier}.tar.zst", f"targets/{made.identifier}.json"}
    assert {path for path in tree if not path.startswith(".")} == {"README.md", "index.json", *targets}
    (entry,) = json.loads(tree["index.json"].content)["entries"]
    assert {entry["identifier"]: entry["sha256"]} == expected(made)
    assert tree[f"targets/{made.identifier}.tar.zst"].sha256 == made.sha256
    assert json.loads(tree[f"targets/{made.identifier}.json"].content) == entry
    assert [(record.path, record.user) for record in hub.requests("PUT")] == [(f"/storage/{made.sha256}", None)]
    assert {record.user for record in hub.requests(path="/storage/")} == {None}


def test_publishers_at_once_lose_nothing(hub: LoopbackHub, machine: Machine, name: str, tmp_path: Path) -> None:
    made = [make(tmp_path, target, build=13) for target in ("sm_89", "sm_80", "sm_90", "sm_120")]
    publish(machine, name, made[0].path, "--create")
    running = [
        Machine(home=tmp_path / str(number), endpoint=hub.url).start("publish", "--repo", f"hf://{name}", one.path)
        for number, one in enumerate(made[1:])
    ]
    for process in running:
        process.end()
    with hub.repository(name) as repository:
        index = json.loads(repository.resolve("v1").files["index.json"].content)
    assert {entry["identifier"]: entry["sha256"] for entry in index["entries"]} == expected(*made)
    assert sorted(record.path for record in hub.requests("PUT")) == sorted(f"/storage/{one.sha256}" for one in made)


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


def test_token_option(hub: LoopbackHub, machine: Machine, name: str, tmp_path: Path) -> None:
    publish(machine, name, make(tmp_path).path, "--create", "--private", "--token", WRITER, token=None)
    assert {record.user for record in hub.requests(path=name)} == {"writer"}
    with hub.repository(name) as repository:
        assert repository.private
