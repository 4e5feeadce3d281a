"""The files in ``examples/`` do what they say: their commands run here, against a registry in a directory.

There is no Docker, cluster or runner: what those would do around a command is done here, in new directories. The
fields that matter to them are checked.
"""

from __future__ import annotations

import os
import re
import shlex
import stat
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import click
import pytest
import yaml
from helpers import ROOT, environment, python

from gdn_aot.cli.main import cli
from gdn_aot.registry.base import open_registry, read_index
from registry import small
from registry.loopback import ORG, LoopbackHub
from registry.machines import Machine
from registry.registries import payload, put

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from builds import Built

EXAMPLES = ROOT / "examples"
TOPICS = ("fetch", "docker", "kubernetes", "air-gapped", "github-actions")
PAGES = tuple(ROOT / "docs/how-to" / f"{topic}.md" for topic in TOPICS)
LOADER = """
import json, sys
from gdn_aot.serving.find import find
from gdn_aot.store.store import default_home
found, verdicts = find(default_home(), None)
print(json.dumps([[item.index.header["identifier"], len(item.index.kernels())] for item in found]))
"""


@pytest.fixture(scope="module")
def registry(decode: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with one real artifact, for sm_120."""
    place = tmp_path_factory.mktemp("registry") / "kernels"
    put(place, decode.path, tag="v1.0.0")
    return place


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A directory of programs: ours, and stand-ins that note how they were called."""
    folder = tmp_path / "tools"
    folder.mkdir()
    scripts = {"gdn-aot": f'exec {shlex.quote(sys.executable)} -m gdn_aot "$@"'}
    scripts |= {name: f'echo "$0 $*" >> {shlex.quote(str(folder / "called"))}' for name in ("pip", "chown")}
    for name, text in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    return folder


def shell(script: str, tools: Path, cwd: Path, env: Mapping[str, str]) -> str:
    """Run a script as its host would, with nothing of ours in its environment but the path to the programs."""
    cwd.mkdir(parents=True, exist_ok=True)
    whole = environment(cwd / "unused", env)
    if "GDN_AOT_HOME" not in env:
        del whole["GDN_AOT_HOME"]
    own = {"PATH": f"{tools}:{os.environ['PATH']}", "HOME": "/nonexistent"}
    done = subprocess.run(
        ["/bin/sh", "-ec", script],
        env={**whole, **own},
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def served(home: Path, tmp_path: Path) -> None:
    """A serving process finds the artifact in a store that it cannot write."""
    before = {path: path.stat().st_mtime_ns for path in home.rglob("*")}
    ((identifier, kernels),) = python(LOADER, home=tmp_path / "server", extra={"GDN_AOT_HOME": str(home)})
    assert identifier.endswith("-sm_120")
    assert kernels >= 1
    assert {path: path.stat().st_mtime_ns for path in home.rglob("*")} == before


def seeded(cache: Path, root: str) -> None:
    """A Triton cache whose files name it by the path under which a server sees it."""
    groups = list(cache.rglob("__grp__*.json"))
    assert groups
    assert all(root in group.read_text() for group in groups)


# Docker


def instructions(path: Path) -> list[tuple[str, str]]:
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    whole = re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in whole)]


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.seeded"])
def test_docker(name: str, registry: Path, tools: Path, tmp_path: Path) -> None:
    root = tmp_path / "image"
    env: dict[str, str] = {}
    user = ""

    def inside(text: str) -> str:
        return re.sub(r"(?<![\w.])/(opt|tmp)/", rf"{root}/\1/", text)

    for word, rest in instructions(EXAMPLES / "docker" / name):
        if word in ("ARG", "ENV"):
            key, _, value = rest.partition("=")
            env[key] = {"GDN_AOT_REPO": str(registry)}.get(key, inside(value))
        elif word == "RUN":
            mounts, command = re.fullmatch(r"((?:--mount=\S+ *)*)(.*)", rest).groups()  # type: ignore[union-attr]
            assert "HF_TOKEN" not in command, "a token must not be part of a layer"
            assert ("gdn-aot fetch" in command) is ("type=cache,target=/tmp/huggingface" in mounts)
            shell(inside(command), tools, root, env)
        elif word == "USER":
            user = rest
    assert int(user.partition(":")[0]) > 0
    assert env["HF_HUB_OFFLINE"] == "1"
    served(root / "opt/gdn-aot", tmp_path)
    assert f"{tools}/pip install --no-cache-dir gdn-aot\n" in (tools / "called").read_text()
    if name.endswith("seeded"):
        assert env["TRITON_CACHE_DIR"] == str(root / "opt/triton-cache")
        seeded(root / "opt/triton-cache", env["TRITON_CACHE_DIR"])
        assert f"chown -R {user} {env['TRITON_CACHE_DIR']}" in (tools / "called").read_text()


# Kubernetes


def pods(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for document in yaml.safe_load_all(path.read_text()):
        if document["kind"] in ("Deployment", "Job"):
            yield document["kind"], document["spec"]["template"]["spec"]


class Node:
    """Runs containers with their volumes in directories."""

    def __init__(self, root: Path, tools: Path, replaced: Mapping[str, str]) -> None:
        self.root, self.tools, self.replaced = root, tools, replaced

    def path(self, container: Mapping[str, Any], text: str) -> str:
        """Put the directory of a volume where its mount is named."""
        places = {mount["mountPath"]: str(self.root / mount["name"]) for mount in container["volumeMounts"]}
        names = "|".join(map(re.escape, places))
        return re.sub(rf"(?<![\w.])({names})(?![\w-])", lambda match: places[match[1]], text)

    def env(self, container: Mapping[str, Any]) -> dict[str, str]:
        rows = {row["name"]: row["value"] for row in container["env"] if "value" in row}
        return {name: self.replaced.get(name, self.path(container, value)) for name, value in rows.items()}

    def run(self, container: Mapping[str, Any]) -> None:
        for mount in container["volumeMounts"]:
            (self.root / mount["name"]).mkdir(parents=True, exist_ok=True)
        command = [self.path(container, word) for word in container["command"]]
        shell(shlex.join(command), self.tools, self.root / "work", self.env(container))


def hardened(pod: Mapping[str, Any]) -> None:
    """What the restricted Pod Security Standard asks for, and a root file system that is not written."""
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    volumes = {volume["name"] for volume in pod["volumes"]}
    for container in (*pod.get("initContainers", ()), *pod["containers"]):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
        assert all("value" in row or row["valueFrom"]["secretKeyRef"] for row in container["env"])
        assert not any(row["name"] == "HF_TOKEN" and "value" in row for row in container["env"])


@pytest.mark.parametrize("name", ["init-container.yaml", "seeded.yaml", "job-to-volume.yaml"])
def test_kubernetes(name: str, registry: Path, tools: Path, tmp_path: Path) -> None:
    node = Node(tmp_path / "node", tools, {"GDN_AOT_REPO": str(registry)})
    servers = []
    for kind, pod in pods(EXAMPLES / "kubernetes" / name):
        hardened(pod)
        for container in pod["containers"] if kind == "Job" else pod.get("initContainers", ()):
            assert "nvidia.com/gpu" not in container["resources"]["limits"]
            node.run(container)
            node.run(container)  # a pod that is started again
        if kind == "Deployment":
            servers += pod["containers"]
    (server,) = servers
    env = node.env(server)
    assert env["HF_HUB_OFFLINE"] == "1"
    assert server["resources"]["limits"]["nvidia.com/gpu"] >= 1
    mounts = {mount["name"]: mount.get("readOnly", False) for mount in server["volumeMounts"]}
    if name == "seeded.yaml":
        assert mounts["cache"] is False, "Triton writes to its cache"
        seeded(node.root / "cache/triton", env["TRITON_CACHE_DIR"])
    else:
        assert mounts["artifacts"] is True
        assert env["GDN_AOT_HOME"] == str(node.root / "artifacts")
        served(node.root / "artifacts", tmp_path)


def test_a_failure_keeps_the_pod_from_starting(registry: Path, tools: Path, tmp_path: Path) -> None:
    """An init container that fails must not end with 0."""
    (_, pod), *_ = pods(EXAMPLES / "kubernetes/init-container.yaml")
    node = Node(tmp_path / "node", tools, {"GDN_AOT_REPO": str(registry)})
    container = pod["initContainers"][0]
    other = {**container, "command": ["sm_100" if word == "sm_120" else word for word in container["command"]]}
    with pytest.raises(AssertionError, match="has no artifact"):
        node.run(other)
    node.run({**other, "command": [*other["command"], "--optional"]})


# Air-gapped


def test_the_store_is_carried(registry: Path, tools: Path, tmp_path: Path) -> None:
    folder = EXAMPLES / "air-gapped"
    archive = tmp_path / "carried/store.tar"
    wanted = f"--arch sm_120 --repo {registry}"
    said = shell(f"{folder}/export.sh {archive} {wanted}", tools, tmp_path / "carried", {})
    assert archive.name in said
    home = tmp_path / "isolated"
    env = {"GDN_AOT_HOME": str(home), "GDN_AOT_REPO": "/nowhere"}
    assert "sm_120" in shell(f"{folder}/import.sh {archive}", tools, tmp_path / "there", env)
    served(home, tmp_path)
    shell(f"{folder}/import.sh {archive}", tools, tmp_path / "there", env)
    served(home, tmp_path)
    payload(home).write_bytes(b"damaged")
    with pytest.raises(AssertionError, match="damaged"):
        shell("gdn-aot cache verify", tools, tmp_path / "there", env)


def test_a_repository_is_copied(registry: Path, decode: Built, tools: Path, tmp_path: Path) -> None:
    """From the Hub with its own command, to a directory that is a registry at once."""
    del registry
    with LoopbackHub() as hub:
        machine = Machine(home=tmp_path / "machine", endpoint=hub.url)
        machine.run("publish", decode.path, "--repo", f"hf://{ORG}/kernels", "--create")
        stick = tmp_path / "stick"
        (tools / "hf").symlink_to(f"{sys.prefix}/bin/hf")
        env = {name: value for name, value in machine.environment().items() if name.startswith(("HF_", "NO_PROXY"))}
        said = shell(f"{EXAMPLES}/air-gapped/mirror.sh {ORG}/kernels v1 {stick}", tools, tmp_path / "work", env)
        assert "sm_120" in said
    env = {"GDN_AOT_HOME": str(tmp_path / "isolated")}
    shell(f"gdn-aot fetch --repo {stick} --arch sm_120", tools, tmp_path / "work", env)
    served(tmp_path / "isolated", tmp_path)


def test_scripts_can_be_run() -> None:
    for script in (EXAMPLES / "air-gapped").iterdir():
        assert script.stat().st_mode & stat.S_IXUSR


# GitHub Actions


def workflow(name: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((EXAMPLES / "github-actions" / name).read_text())
    assert document["permissions"] == {}
    for job in document["jobs"].values():
        assert job["timeout-minutes"] <= 120
        for step in job["steps"]:
            assert ("uses" in step) is not ("run" in step)
            assert "${{" not in step.get("run", ""), "an expression in a script can inject commands"
            if "uses" in step:
                assert re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", step["uses"])
    return document


def steps(job: Mapping[str, Any], tools: Path, cwd: Path, expressions: Mapping[str, str]) -> None:
    """Run the scripts of a job, with values for the expressions in its environment."""
    for step in job["steps"]:
        if "run" in step:
            env = {**job.get("env", {}), **step.get("env", {})}
            filled = {
                name: re.sub(r"\$\{\{ *(.*?) *\}\}", lambda match: expressions[match[1]], value)
                for name, value in env.items()
            }
            shell(step["run"], tools, cwd, filled)


def test_publishing(decode: Built, tools: Path, tmp_path: Path) -> None:
    document = workflow("publish.yml")
    build, publish = document["jobs"]["build"], document["jobs"]["publish"]
    assert publish["needs"] == "build"
    assert publish["permissions"] == {"id-token": "write"}
    assert publish["env"]["GDN_AOT_REPO"] == f"hf://{publish['env']['HF_OIDC_RESOURCE']}"
    command = next(step["run"] for step in build["steps"] if step.get("name") == "Build")
    for arch in build["strategy"]["matrix"]["arch"]:
        parses(command.replace('"$ARCH"', arch))
    cwd = tmp_path / "work"
    (cwd / "dist").mkdir(parents=True)
    (cwd / "dist" / decode.path.name).write_bytes(decode.path.read_bytes())
    kernels = tmp_path / "kernels"
    open_registry(str(kernels)).create(private=False)
    job = {**publish, "env": {"GDN_AOT_REPO": str(kernels), "GITHUB_REF_NAME": "v1.2.0"}}
    steps(job, tools, cwd, {})
    refs = open_registry(str(kernels)).refs()
    assert refs.tags["v1.2.0"] == refs.branches["v1"]
    steps(job, tools, cwd, {})  # a run that is started again
    (cwd / "dist" / decode.path.name).write_bytes(small.artifact(tmp_path, build=1).read_bytes())
    with pytest.raises(AssertionError, match=r"the tag v1\.2\.0 is there"):
        steps(job, tools, cwd, {})
    steps({**job, "env": {**job["env"], "GITHUB_REF_NAME": "v1.3.0"}}, tools, cwd, {})
    after = open_registry(str(kernels)).refs()
    assert after.tags["v1.2.0"] == refs.tags["v1.2.0"] != after.tags["v1.3.0"] == after.branches["v1"]
    (entry,) = read_index(open_registry(str(kernels)), "v1")[1].entries
    (before,) = read_index(open_registry(str(kernels)), "v1.2.0")[1].entries
    assert (entry.identifier, entry.sha256 != before.sha256) == (before.identifier, True)


def test_fetching(registry: Path, tools: Path, tmp_path: Path) -> None:
    job = workflow("fetch.yml")["jobs"]["artifacts"]
    cwd = tmp_path / "work"
    shell(f"gdn-aot lock --arch sm_120 --repo {registry}", tools, cwd, {})
    steps(job, tools, cwd, {"github.workspace": str(cwd), "secrets.HF_TOKEN": ""})
    served(cwd / ".gdn-aot", tmp_path)


# The pages


def parses(line: str) -> None:
    """Check a command line of ours without running it."""
    words = shlex.split(line, comments=True)
    words = words[: next((at for at, word in enumerate(words) if word in ("|", "&&", ">")), len(words))]
    assert words[0] == "gdn-aot"
    context = click.Context(cli)
    _, command, rest = cli.resolve_command(context, words[1:])
    assert command is not None
    while isinstance(command, click.Group):
        _, command, rest = command.resolve_command(context, rest)
        assert command is not None
    command.make_context(words[1], rest, parent=context)


def test_pages_name_every_example_and_their_commands_parse() -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    for file in EXAMPLES.rglob("*"):
        if file.is_file():
            assert f"../../{file.relative_to(ROOT)}" in text
    lines = [line for block in re.findall(r"```\w*\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    ours = [line for line in lines if line.startswith("gdn-aot ")]
    assert len(ours) >= 20
    for line in ours:
        parses(line)


def test_links_of_the_pages() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"
