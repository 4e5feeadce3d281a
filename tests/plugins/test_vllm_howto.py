"""The steps of `docs/how-to/vllm.md`, read from the page and run as far as they go without a GPU, in a new environment.

Needs an interpreter that has the vLLM of the page's image, named by ``GDN_AOT_TEST_VLLM``: what it has installed is the
image. A wheel of these sources stands for the release on PyPI, the loopback hub for the Hub. Left out are the commands
that record, serve or start a cluster.
"""

import os
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import factory
import pytest
import yaml
from helpers import ROOT, TIMEOUT, run
from loopback import ORG, WRITER, LoopbackHub

PYTHON = os.environ.get("GDN_AOT_TEST_VLLM", "")
PAGE = (ROOT / "docs/how-to/vllm.md").read_text()
LOAD = "from vllm.plugins import load_general_plugins; load_general_plugins()"
"""What every process of vLLM does first."""
NOT_OF_THE_IMAGE = ("gdn_aot", "__editable__", "pip", "setuptools")


def blocks(section: str, language: str = "") -> list[str]:
    """Return the blocks of code of a section of the page."""
    text = PAGE.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands(block: str) -> list[str]:
    """Return the lines of a block without their comments."""
    return [line.partition("  #")[0].strip() for line in block.splitlines()]


def dockerfile() -> list[tuple[str, str]]:
    """Return the instructions of the page's image."""
    (block,) = blocks("Docker", "dockerfile")
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in block.splitlines())]


def installed_version() -> str:
    """Return the version of vLLM that the interpreter has."""
    if not PYTHON:
        return ""
    code = "import importlib.metadata as m; print(m.version('vllm'))"
    return subprocess.run([PYTHON, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


IMAGE = dockerfile()[0][1]
pytestmark = pytest.mark.skipif(
    f"vllm/vllm-openai:v{installed_version()}" != IMAGE, reason=f"GDN_AOT_TEST_VLLM names no Python of {IMAGE}"
)


@dataclass(frozen=True)
class Image:
    """An environment with vLLM, into which the wheel can be installed."""

    root: Path
    env: dict[str, str]

    def sh(self, command: str, *, code: int = 0, cwd: Path | None = None, **extra: str) -> str:
        """Run a command of the page; return what it said."""
        done = subprocess.run(
            ["/bin/sh", "-ec", command],
            env={**self.env, **extra},
            cwd=cwd or self.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=TIMEOUT,
        )
        assert done.returncode == code, f"{command}: exit {done.returncode}\n{done.stdout[-3000:]}"
        return done.stdout

    def inside(self, text: str) -> str:
        """Return a text with the image's absolute paths below its folder."""
        return re.sub(r"(?<![\w./])/(opt|artifacts|var)\b", rf"{self.root}/image/\1", text)


def _wheel(into: Path) -> None:
    """Make the wheel of the sources here, of which git ignores none."""
    listed = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, capture_output=True, check=True).stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (into / "sources" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, into / "sources" / name)
    words = [PYTHON, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(into / "dist"), str(into / "sources")]
    done = run(words, into / "home", {"PYTHONPATH": ""}, into)
    assert done.code == 0, done.err[-3000:]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """Make the environment: what the interpreter has installed without this package, and a new pip."""
    root = tmp_path_factory.mktemp("image")
    subprocess.run([PYTHON, "-m", "venv", root / "venv"], check=True)
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    there, here = (
        Path(subprocess.run([name, "-c", code], capture_output=True, text=True, check=True).stdout.strip())
        for name in (PYTHON, root / "venv/bin/python")
    )
    for path in there.iterdir():
        new = here / path.name
        if not path.name.startswith(NOT_OF_THE_IMAGE) and path.suffix != ".pth" and not new.exists():
            new.symlink_to(path)
    _wheel(root)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GDN_AOT", "PIP_", "PYTHON"))}
    env = {**kept, "PATH": f"{root}/venv/bin:{os.environ['PATH']}", "HOME": str(root / "home"), "NO_COLOR": "1"}
    env |= {"VLLM_TARGET_DEVICE": "cuda", "VLLM_NO_USAGE_STATS": "1"}
    return Image(root, {**env, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(root / "dist")})


@pytest.fixture(scope="module")
def artifact(image: Image, session_home: Path) -> Path:
    """Install and build as the page says, in the image and on other machines."""
    first, other, *_ = map(commands, blocks("Build"))
    install, build, captured = first
    assert "Successfully installed gdn-aot" in image.sh(install)
    assert captured.startswith("gdn-aot build --provider vllm --capture"), "a recording needs a GPU"
    image.sh(build, GDN_AOT_HOME=str(session_home))
    for line in other:  # the environment has all of it: a pin that it does not meet fails, as there is no index
        assert "Successfully installed" not in image.sh(line, cwd=ROOT)
    (made,) = (image.root / "artifacts/dist").glob("*.tar.zst")
    return made


@pytest.fixture(scope="module")
def served(image: Image, artifact: Path) -> dict[str, str]:
    """Make the image; return the environment of its processes."""
    env: dict[str, str] = {}
    for word, rest in dockerfile()[1:]:
        if word == "RUN":
            image.sh(image.inside(rest), **env)
        elif word == "ENV":
            env |= dict(one.split("=", 1) for one in shlex.split(image.inside(rest)))
        else:
            name, into = rest.split()
            assert (word, name) == ("COPY", artifact.name), "what a build makes is what is copied"
            folder = Path(image.inside(into))
            folder.mkdir(parents=True)
            shutil.copy2(artifact, folder)
    return env


def test_the_image_serves(image: Image, served: dict[str, str]) -> None:
    """Each process says what it has, without installing anything: the last line of the image has done that."""
    shown = re.findall(r"^gdn-aot: vllm.*", PAGE, re.MULTILINE)[0]
    wanted = " ".join(r"\d+" if word.isdigit() else re.escape(word) for word in shown.split())
    store = Path(served["GDN_AOT_HOME"])
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*")}
    said = image.sh(f'python -c "{LOAD}"', **served)
    assert re.search(wanted.replace("models;", "models?;"), said), said
    assert {path: path.stat().st_mtime_ns for path in store.rglob("*")} == before


def test_an_image_with_another_artifact_is_not_built(image: Image, served: dict[str, str], tmp_path: Path) -> None:
    last = [rest for word, rest in dockerfile() if word == "RUN"][-1]
    path = factory.write_placed(tmp_path, "0.1.0", [], triton="3.0.0")
    env = {**served, "GDN_AOT_HOME": str(tmp_path / "home"), "GDN_AOT_ARTIFACT": str(path)}
    assert "0.1.0" in image.sh(last, code=1, **env)


def test_the_init_container_fills_the_store(image: Image, artifact: Path, served: dict[str, str]) -> None:
    """And the server of the pod has its artifact then."""
    del served  # the image is made
    (block,) = blocks("Kubernetes", "yaml")
    (server,), (first,) = (yaml.safe_load(block)["spec"][kind] for kind in ("containers", "initContainers"))
    env = {row["name"]: image.inside(row["value"]) for row in first["env"]}
    assert {row["name"]: image.inside(row["value"]) for row in server["env"]} == env
    Path(env["GDN_AOT_ARTIFACT"]).mkdir()
    shutil.copy2(artifact, env["GDN_AOT_ARTIFACT"])
    image.sh(shlex.join(first["command"]), **env)
    assert [*Path(env["GDN_AOT_HOME"]).rglob("store")]
    assert "kernels" in image.sh(f'python -c "{LOAD}"', **env)


def test_the_example_fetches_from_the_hub(image: Image, artifact: Path, served: dict[str, str]) -> None:
    """With the client that users have; its engine is left out, for which ``vllm`` stands in."""
    del served
    (script,) = re.findall(r"\]\(\.\./\.\./(examples/vllm/\S+\.sh)\)", PAGE)
    vllm = image.root / "venv/bin/vllm"
    vllm.write_text('#!/bin/sh\necho "started with $*"\n')
    vllm.chmod(0o755)
    repo = f"hf://{ORG}/how-to"
    (image.root / "known").mkdir()
    with LoopbackHub() as hub:
        env = {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": WRITER, "ARCH": "sm_90"}
        env |= {"GDN_AOT_KEYS": str(image.root / "known"), "GDN_AOT_HOME": str(image.root / "fetched")}
        image.sh(f"gdn-aot publish {artifact} --repo {repo} --create", **env)
        image.sh(f"gdn-aot fetch --repo {repo} --arch sm_90 --provider vllm --allow-unsigned", **env)
        said = image.sh(f"{ROOT / script} {repo} Qwen/Qwen3.5-9B --max-num-seqs 64", **env)
    assert "already installed" in said
    assert re.search(r"gdn-aot: vllm\S+-sm_90: \d+ kernels", said)
    assert "started with serve Qwen/Qwen3.5-9B --max-num-seqs 64" in said
