"""The files in ``examples/`` do what they say: their commands run here, against a registry in a directory.

There is no Docker, cluster or runner: what those would do around a command is done here, in new directories. The
fields that matter to them are checked.
"""

import json
import re
import shlex
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from builds import Built
from helpers import ROOT
from loopback import ORG, LoopbackHub
from machines import Machine
from making import make
from registries import listed, payload
from signing import Publisher, pem

from examples import EXAMPLES, Node, docker, instructions, kubernetes, pods, registry, served, shell, tools
from gdn_aot.cli.main import cli
from gdn_aot.registry.open import open_registry
from gdn_aot.registry.publish import publish
from gdn_aot.trust.keyring import read_keyring
from gdn_aot.trust.known import file_name

__all__ = ["registry", "tools"]

LOADER_OF_FILES = """
import gdn_aot
gdn_aot.install()
print([verdict.reason for verdict in gdn_aot.report().artifacts])
"""
TOPICS = (
    "fetch", "docker", "kubernetes", "air-gapped", "github-actions", "compiled", "publish-privately", "serve", "sglang",
    "vllm",
)  # fmt: skip
PAGES = tuple(ROOT / "docs/how-to" / f"{topic}.md" for topic in TOPICS)


def test_docker(registry: Path, tools: Path, tmp_path: Path) -> None:
    docker("Dockerfile", registry, tools, tmp_path)


@pytest.mark.parametrize("name", ["init-container.yaml", "job-to-volume.yaml"])
def test_kubernetes(name: str, registry: Path, tools: Path, tmp_path: Path) -> None:
    kubernetes(name, registry, tools, tmp_path)


def test_a_failure_keeps_the_pod_from_starting(registry: Path, tools: Path, tmp_path: Path) -> None:
    """An init container that fails must not end with 0."""
    (_, pod), *_ = pods(EXAMPLES / "kubernetes/init-container.yaml")
    node = Node(tmp_path / "node", tools, {"GDN_AOT_REPO": str(registry)})
    container = pod["initContainers"][0]
    other = {**container, "command": ["sm_100" if word == "sm_120" else word for word in container["command"]]}
    with pytest.raises(AssertionError, match="has no artifact"):
        node.run(other)
    node.run({**other, "command": [*other["command"], "--optional"]})


# SGLang


def test_sglang_in_an_image(registry: Path, tools: Path, tmp_path: Path) -> None:
    """But for its base: what fits is fetched, and the last line ends the build where nothing does."""
    (tools / "python3").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    (tools / "python3").chmod(0o755)
    root = tmp_path / "image"
    env = {"ARCH": "sm_120", "GDN_AOT_REPO": str(registry), "GDN_AOT_REVISION": "v1"}
    env["GDN_AOT_HOME"] = str(root / "opt/gdn-aot")
    lines = instructions(EXAMPLES / "sglang/Dockerfile")
    assert {rest.partition("=")[0] for word, rest in lines if word == "ARG"} == {"BASE", *env} - {"GDN_AOT_HOME"}
    runs = [re.sub(r"--mount=\S+ *", "", rest) for word, rest in lines if word == "RUN"]
    assert ("ENV", "GDN_AOT_HOME=/opt/gdn-aot") in lines
    for run in runs:
        shell(run.replace("=/tmp/", f"={root}/"), tools, root, env)
    served(root / "opt/gdn-aot", tmp_path)
    with pytest.raises(AssertionError, match="no artifact in the store"):
        shell(runs[-1], tools, root, {**env, "GDN_AOT_HOME": str(root / "other")})


def test_sglang_in_a_pod(registry: Path, tools: Path, tmp_path: Path) -> None:
    ((_, pod),) = pods(EXAMPLES / "sglang/deployment.yaml")
    node = Node(tmp_path / "node", tools, {"GDN_AOT_REPO": str(registry)})
    (first,), (server,) = pod["initContainers"], pod["containers"]
    assert first["image"] == server["image"]
    node.run({**first, "command": ["sm_120" if word == "sm_90" else word for word in first["command"]]})
    assert node.env(server)["GDN_AOT_HOME"] == str(node.root / "artifacts")
    served(node.root / "artifacts", tmp_path)
    node.run({**first, "command": ["sm_100" if word == "sm_90" else word for word in first["command"]]})


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


def test_what_a_publisher_revoked_is_carried_with_the_store(decode: Built, tools: Path, tmp_path: Path) -> None:
    """And what is known to be revoked inside stays so when an older export comes."""
    folder, publisher = EXAMPLES / "air-gapped", Publisher()
    kernels, learned = open_registry(str(tmp_path / "kernels")), f"trust/{file_name(publisher.repo)}l"
    publish(kernels, [decode.path], signing=publisher.signing(), create=True)
    known = publisher.known_in(tmp_path / "keys")
    inside = tmp_path / "isolated"

    def export(version: int) -> Path:
        following = publisher.signed(publisher.keyring(version, revoked=["a" * 64] * (version > 2)))
        publish(kernels, [], signing=publisher.signing(following))
        archive = tmp_path / f"{version}.tar"
        shell(f"{folder}/export.sh {archive} --arch sm_120 --repo {kernels.name}", tools, tmp_path / "outside", known)
        with tarfile.open(archive) as tar:
            assert [name for name in tar.getnames() if name.startswith("trust")] == [learned]
        return archive

    def bring(archive: Path) -> list[int]:
        shell(f"{folder}/import.sh {archive}", tools, tmp_path / "there", {"GDN_AOT_HOME": str(inside), **known})
        served(inside, tmp_path, publisher)
        return [read_keyring(line).keyring.version for line in (inside / learned).read_bytes().splitlines(True)]

    second, third = export(2), export(3)
    assert bring(second) == [2]
    assert bring(third) == [2, 3]
    assert bring(second) == [2, 3]
    listed = json.loads(shell("gdn-aot keys list --json", tools, tmp_path, {"GDN_AOT_HOME": str(inside), **known}))
    assert [one["revoked"] for one in listed["keyrings"] if one["counts"]] == [["a" * 64]]


def test_the_commands_of_a_registry_and_of_a_file(decode: Built, tools: Path, tmp_path: Path) -> None:
    """As the page writes them, with a directory of this test for the stick and a target that there is."""
    page = (ROOT / "docs/how-to/air-gapped.md").read_text()
    for word, instead in (("/media/stick", str(tmp_path / "stick")), ("sm_90", "sm_120"), ("/kernels/", "/registry/")):
        page = page.replace(word, instead)
    blocks = re.findall(r"```\n(.*?)```", page, re.DOTALL)
    own, carried = (next(block for block in blocks if word in block) for word in ("keys new", "GDN_AOT_ARTIFACT="))
    cwd, env = tmp_path / "work", {"GDN_AOT_HOME": str(tmp_path / "home"), "GDN_AOT_KEYS": str(tmp_path / "known")}
    cwd.mkdir()
    (tmp_path / "known").mkdir()  # named by the environment, so it must be there before anything is signed
    (cwd / decode.path.name).write_bytes(decode.path.read_bytes())
    shell(own, tools, cwd, env)
    assert [*(tmp_path / "home/store/artifacts").iterdir()]
    loader = f"{carried}\n{shlex.quote(sys.executable)} -c {shlex.quote(LOADER_OF_FILES)}"
    env = {name: str(tmp_path / name) for name in env}
    said = shell(loader, tools, tmp_path / "other", {**env, "GDN_AOT_TRUST": "signed"})
    assert "signed by hf://org/kernels" in said


def test_a_repository_is_copied(registry: Path, decode: Built, tools: Path, tmp_path: Path) -> None:
    """From the Hub with its own command, to a directory that is a registry at once."""
    del registry
    publisher = Publisher(repo=f"hf://{ORG}/kernels")
    (tmp_path / "keyring.json").write_bytes(publisher.signed().envelope.encode())
    keyring = ("--keyring", tmp_path / "keyring.json")
    with LoopbackHub() as hub:
        machine = Machine(home=tmp_path / "machine", endpoint=hub.url)
        key = pem(publisher.key).decode()
        machine.run("publish", decode.path, "--repo", publisher.repo, "--create", *keyring, GDN_AOT_SIGNING_KEY=key)
        stick = tmp_path / "stick"
        (tools / "hf").symlink_to(f"{sys.prefix}/bin/hf")
        env = {name: value for name, value in machine.environment().items() if name.startswith(("HF_", "NO_PROXY"))}
        said = shell(f"{EXAMPLES}/air-gapped/mirror.sh {ORG}/kernels v1 {stick}", tools, tmp_path / "work", env)
        assert "sm_120" in said
    env = {"GDN_AOT_HOME": str(tmp_path / "isolated")}
    wanted = f"gdn-aot fetch --repo {stick} --arch sm_120"
    with pytest.raises(AssertionError, match=rf"is of {publisher.repo}, of whom no key is known here"):
        shell(wanted, tools, tmp_path / "work", env)
    shell(wanted, tools, tmp_path / "work", {**env, **publisher.known_in(tmp_path / "keys")})
    served(tmp_path / "isolated", tmp_path, publisher)


# GitHub Actions


def workflow(name: str) -> dict[str, Any]:
    """Return a workflow, whose form is checked by ``tests/workflows/test_lint.py``."""
    document: dict[str, Any] = yaml.safe_load((EXAMPLES / "github-actions" / name).read_text())
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
    build, last = document["jobs"]["build"], document["jobs"]["publish"]
    assert last["needs"] == "build"
    assert last["permissions"] == {"contents": "read", "id-token": "write"}
    assert last["env"]["GDN_AOT_REPO"] == f"hf://{last['env']['HF_OIDC_RESOURCE']}"
    command = next(step["run"] for step in build["steps"] if step.get("name") == "Build")
    for arch in build["strategy"]["matrix"]["arch"]:
        parses(command.replace('"$ARCH"', arch))
    cwd = tmp_path / "work"
    (cwd / "dist").mkdir(parents=True)
    (cwd / "dist" / decode.path.name).write_bytes(decode.path.read_bytes())
    kernels = tmp_path / "kernels"
    open_registry(str(kernels)).create(private=False)
    publisher = Publisher(repo=last["env"]["GDN_AOT_REPO"])
    (cwd / "keyring.json").write_bytes(publisher.signed().envelope.encode())
    secrets = {"secrets.GDN_AOT_SIGNING_KEY": pem(publisher.key).decode()}
    assert [step["name"] for step in last["steps"] if "secrets." in str(step)] == ["Verify and compare", "Publish"]
    job = {**last, "env": {"GDN_AOT_REPO": str(kernels), "GITHUB_REF_NAME": "v1.2.0"}}
    steps(job, tools, cwd, secrets)
    refs = open_registry(str(kernels)).refs()
    assert refs.tags["v1.2.0"] == refs.branches["v1"]
    steps(job, tools, cwd, secrets)  # a run that is started again
    (cwd / "dist" / decode.path.name).write_bytes(make(tmp_path, build=1).path.read_bytes())
    with pytest.raises(AssertionError, match=r"the tag v1\.2\.0 exists"):
        steps(job, tools, cwd, secrets)
    steps({**job, "env": {**job["env"], "GITHUB_REF_NAME": "v1.3.0"}}, tools, cwd, secrets)
    after = open_registry(str(kernels)).refs()
    assert after.tags["v1.2.0"] == refs.tags["v1.2.0"] != after.tags["v1.3.0"] == after.branches["v1"]
    now, before = (listed(open_registry(str(kernels)), revision) for revision in ("v1", "v1.2.0"))
    assert now.keys() == before.keys()
    assert now != before
    wanted = f"gdn-aot fetch --repo {kernels} --revision v1.2.0 --arch sm_120"
    shell(wanted, tools, cwd, {"GDN_AOT_HOME": str(tmp_path / "home"), **publisher.known_in(tmp_path / "keys")})
    served(tmp_path / "home", tmp_path, publisher)


def test_fetching(decode: Built, tools: Path, tmp_path: Path) -> None:
    """From a repository of one's own, whose keyring is in version control beside the lock file."""
    job = workflow("fetch.yml")["jobs"]["artifacts"]
    cwd, kernels = tmp_path / "work", tmp_path / "kernels"
    publisher = Publisher(repo="hf://my-org/kernels")
    publish(open_registry(str(kernels)), [decode.path], signing=publisher.signing(), create=True)
    known = publisher.known_in(cwd / "keyrings")
    shell(f"gdn-aot lock --arch sm_120 --repo {kernels}", tools, cwd, {**known, "GDN_AOT_HOME": str(tmp_path / "home")})
    (pinned,) = json.loads((cwd / "gdn-aot.lock").read_text())["artifacts"]
    assert (pinned["key"], pinned["serial"]) == (publisher.key_id, 1)
    steps(job, tools, cwd, {"github.workspace": str(cwd), "secrets.HF_TOKEN": ""})
    served(cwd / ".gdn-aot", tmp_path, publisher)


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
    text = "\n".join(page.read_text() for page in PAGES).replace("\\\n", " ")
    for file in EXAMPLES.rglob("*"):
        if file.is_file():
            assert f"../../{file.relative_to(ROOT)}" in text
    lines = [line for block in re.findall(r"```\w*\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    ours = [line for line in lines if line.startswith("gdn-aot ") and "$((" not in line]
    assert len(ours) >= 20
    for line in ours:
        parses(line)


def test_links_of_the_pages() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"
