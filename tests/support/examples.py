"""What the files in ``examples/`` say is done here, in new directories, as Docker and a cluster would do it around."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from builds import Built
from helpers import ROOT, TIMEOUT, environment, python
from signing import Publisher

from gdn_aot.registry.layout import DEFAULT_REPO
from gdn_aot.registry.open import open_registry
from gdn_aot.registry.publish import publish

EXAMPLES = ROOT / "examples"
MAKERS = Publisher(repo=DEFAULT_REPO)
"""Who publishes where the examples fetch from. The wheel has the keyring of the real one."""
LOADER = """
import json, sys
from gdn_aot.serving.find import find
from gdn_aot.store.store import default_home
found, verdicts = find(default_home(), None)
print(json.dumps([[item.index.header["identifier"], len(item.index.kernels())] for item in found]))
"""


@pytest.fixture(scope="module")
def registry(decode: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with one real artifact, for sm_120, as the makers of this package publish it."""
    place = tmp_path_factory.mktemp("registry") / "kernels"
    publish(open_registry(str(place)), [decode.path], tag="v1.0.0", signing=MAKERS.signing(), create=True)
    return place


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A directory of programs: ours, and stand-ins that note how they were called.

    Ours knows the keyring of the package's makers, unless a variable says where keyrings are.
    """
    folder = tmp_path / "tools"
    folder.mkdir()
    known = MAKERS.known_in(tmp_path / "wheel")
    ours = [f': "${{{name}:={value}}}"; export {name}' for name, value in known.items()]
    scripts = {"gdn-aot": "\n".join([*ours, f'exec {shlex.quote(sys.executable)} -m gdn_aot "$@"'])}
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
        timeout=TIMEOUT,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def served(home: Path, tmp_path: Path, publisher: Publisher = MAKERS) -> None:
    """A serving process that takes only what is signed finds the artifact in a store that it cannot write."""
    before = {path: path.stat().st_mtime_ns for path in home.rglob("*")}
    extra = {"GDN_AOT_HOME": str(home), "GDN_AOT_TRUST": "signed", **publisher.known_in(tmp_path / "known")}
    ((identifier, kernels),) = python(LOADER, home=tmp_path / "server", extra=extra)
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


def docker(name: str, registry: Path, tools: Path, tmp_path: Path) -> None:
    """Run the instructions of a Dockerfile."""
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


def kubernetes(name: str, registry: Path, tools: Path, tmp_path: Path) -> None:
    """Run the containers of a manifest that need no GPU, and look at what a server then finds."""
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
