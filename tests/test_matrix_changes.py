"""``gdn-aot matrix --changed``: each kind of input, in a repository made for the test, and what git refuses."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from helpers import ROOT, Done, expect_error

from gdn_aot.cli import main
from gdn_aot.matrix.code import Code

if TYPE_CHECKING:
    from pathlib import Path

_QUIET = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
_WHO = {f"GIT_{role}_{what}": "test@example.org" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
ALL = 38
FLA = 20
VLLM = 18


def git(root: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=root, env={**os.environ, **_QUIET, **_WHO}, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture(scope="module")
def pattern(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a repository with one commit: this package, its matrix, its pins and records."""
    root = tmp_path_factory.mktemp("pattern")
    leave = shutil.ignore_patterns("__pycache__", "*.so", "*.c", "*.h")
    for name in ("gdn_aot", "constraints"):
        shutil.copytree(ROOT / name, root / name, ignore=leave)
    (root / "artifacts").mkdir()
    shutil.copy(ROOT / "artifacts" / "matrix.toml", root / "artifacts")
    for kind, target in (("tuning", "sm_90"), ("numerics", "sm_90"), ("numerics", "sm_80")):
        (root / "artifacts" / kind / target).mkdir(parents=True)
        (root / "artifacts" / kind / target / "fla-core-0.6.0.json").write_text("{}\n")
    git(root, "init", "-q", "-b", "main")
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "first")
    return root


@pytest.fixture
def root(pattern: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of it, which is the working directory."""
    for name, value in _QUIET.items():
        monkeypatch.setenv(name, value)
    shutil.copytree(pattern, tmp_path / "root")
    monkeypatch.chdir(tmp_path / "root")
    return tmp_path / "root"


@pytest.fixture
def changed(capfd: pytest.CaptureFixture[str]) -> Any:
    def run(*arguments: object) -> Done:
        code = main.run(["matrix", *map(str, arguments)])
        caught = capfd.readouterr()
        return Done(code, caught.out, caught.err)

    return run


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_nothing(root: Path, changed: Any) -> None:
    for since in ("HEAD", "main", git(root, "rev-parse", "HEAD")[:9]):
        done = changed("--changed", since, "--json")
        assert (done.code, done.json, done.err) == (0, {"include": []}, "")
    done = changed("--changed", "HEAD")
    assert (done.code, done.out) == (0, "")


def append(name: str) -> Any:
    def change(root: Path) -> None:
        with (root / name).open("a", encoding="utf-8") as file:
            file.write("\n# more\n")

    return change


def replace(name: str, old: str, new: str) -> Any:
    return lambda root: edit(root / name, old, new)


def write(name: str) -> Any:
    def change(root: Path) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("{}")

    return change


MATRIX, TABLES = "artifacts/matrix.toml", "gdn_aot/catalogue"
CASES = {
    "words about the matrix": (append(MATRIX), 0),
    "a default": (replace(MATRIX, "max_tokens = 32768", "max_tokens = 16384"), ALL),
    "pins": (append("constraints/vllm-0.24.0.txt"), 9),
    "pins that no row has": (append("constraints/test.txt"), 0),
    "code of one provider": (append("gdn_aot/providers/vllm/steps.py"), VLLM),
    "code of the other": (append("gdn_aot/providers/fla/modules.py"), FLA),
    "code of every build": (append("gdn_aot/choosing/choose.py"), ALL),
    "what writes artifacts": (append("gdn_aot/artifact/archive.py"), ALL),
    "what makes transferred choices": (append("gdn_aot/choosing/transfer.py"), ALL),
    "what a build's options mean": (append("gdn_aot/cli/_options.py"), ALL),
    "the loader": (append("gdn_aot/serving/loader.py"), 0),
    "another command": (append("gdn_aot/cli/doctor.py"), 0),
    "the hub": (append("gdn_aot/registry/remote.py"), 0),
    "the matrix's own code": (append("gdn_aot/matrix/select.py"), 0),
    "a source of a model": (replace(f"{TABLES}/models.toml", 'confidence = "high"', 'confidence = "low"'), 0),
    "a model": (replace(f"{TABLES}/models.toml", "hidden = 2048", "hidden = 2049"), ALL),
    "a source of a target": (replace(f"{TABLES}/targets.toml", 'confidence = "high"', 'confidence = "low"'), 0),
    "a target": (replace(f"{TABLES}/targets.toml", "max_shared = 65536", "max_shared = 65537"), 4),
    "a tuning record": (append("artifacts/tuning/sm_90/fla-core-0.6.0.json"), FLA),
    "a new tuning record": (write("artifacts/tuning/sm_80/vllm-0.24.0.json"), 9),
    "a record of another version": (write("artifacts/tuning/sm_80/fla-core-0.5.2.json"), 0),
    "a numerics record": (append("artifacts/numerics/sm_80/fla-core-0.6.0.json"), 2),
    "a new numerics record": (write("artifacts/numerics/sm_120/vllm-0.33.0.json"), 1),
    "a file beside": (write("docs/new.md"), 0),
}


COMMITTED = ("pins", "code of one provider", "a new tuning record", "another command")


@pytest.mark.parametrize(
    ("case", "how"), [*((case, "uncommitted") for case in CASES), *((case, "committed") for case in COMMITTED)]
)
def test_each_kind_of_input(root: Path, changed: Any, case: str, how: str) -> None:
    change, expected = CASES[case]
    change(root)
    if how == "committed":
        git(root, "add", "-A")
        git(root, "commit", "-q", "-m", "second")
        git(root, "tag", "v2")
        assert changed("--changed", "v2").out == ""
        since = "HEAD~1"
    else:
        since = "HEAD"
    done = changed("--changed", since)
    assert done.code == 0
    assert len(done.out.splitlines()) == expected, done.err
    assert len(done.err.splitlines()) == expected, "each with its reason"


def test_a_new_row_and_an_environment_of_one(root: Path, changed: Any) -> None:
    edit(root / MATRIX, '"sm_90", "sm_100", "sm_103", "sm_120", "sm_121"]\n', '"sm_90"]\n')
    git(root, "commit", "-q", "-a", "-m", "fewer")
    assert changed("--changed", "HEAD~1").out == "", "rows that are gone are not built"
    git(root, "checkout", "-q", "HEAD~1", "--", MATRIX)
    done = changed("--changed", "HEAD")
    assert len(done.out.splitlines()) == 8
    assert done.err.count("it is new in the matrix") == 8
    git(root, "reset", "-q", "--hard", "HEAD~1")
    edit(root / MATRIX, 'triton = "3.6.0"\n', 'triton = "3.6.0"\nrunner = "large"\n')
    done = changed("--changed", "HEAD", "--json")
    assert {(row["provider"], row["triton"], row["runner"]) for row in done.json["include"]} == {
        ("fla", "3.6.0", "large")
    }
    assert len(done.json["include"]) == 10


def test_a_named_model(root: Path, changed: Any) -> None:
    edit(root / MATRIX, "\n# vLLM itself", 'models = ["qwen3.5-9b"]\n\n# vLLM itself')
    git(root, "commit", "-q", "-a", "-m", "one model")
    edit(root / f"{TABLES}/models.toml", "hidden = 2048", "hidden = 2049")  # of qwen3-next-80b-a3b, the first
    done = changed("--changed", "HEAD")
    assert len(done.out.splitlines()) == VLLM
    assert "the model qwen3-next-80b-a3b differs" in done.err


def test_selecting_first(root: Path, changed: Any) -> None:
    append("gdn_aot/providers/vllm/steps.py")(root)
    assert changed("--changed", "HEAD", "--select", "fla*").out == ""
    assert len(changed("--changed", "HEAD", "--select", "*-sm_90").out.splitlines()) == 2
    expect_error(changed("--changed", "HEAD", "--select", "zzz*", "--json"), 3, "nothing-selected")


@pytest.mark.parametrize("old", [None, "format = 1\n", "format = 2\n", "format ="])
def test_an_older_matrix_that_cannot_be_read(root: Path, changed: Any, old: str | None) -> None:
    now = (root / MATRIX).read_bytes()
    if old is None:
        (root / MATRIX).unlink()
    else:
        (root / MATRIX).write_text(old)
    git(root, "commit", "-q", "-a", "-m", "before")
    (root / MATRIX).write_bytes(now)
    assert len(changed("--changed", "HEAD").out.splitlines()) == ALL


@pytest.mark.parametrize("name", ["nope", "", "0" * 40, "--help", "HEAD:artifacts", "HEAD~9", "-x"])
def test_no_such_commit(root: Path, changed: Any, name: str) -> None:
    error = expect_error(changed("--json", f"--changed={name}"), 2, "usage")
    assert "git knows no such commit here" in error["message"]


def test_a_shallow_clone(root: Path, changed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = git(root, "rev-parse", "HEAD")
    append("constraints/vllm-0.24.0.txt")(root)
    git(root, "commit", "-q", "-a", "-m", "second")
    git(tmp_path, "clone", "-q", "--depth", "1", root.as_uri(), "shallow")
    monkeypatch.chdir(tmp_path / "shallow")
    assert changed("--changed", "HEAD").out == ""
    error = expect_error(changed("--json", "--changed", first), 2, "usage")
    assert "shallow" in error["message"]
    assert "fetch-depth: 0" in error["hint"]


def test_no_repository(root: Path, changed: Any) -> None:
    shutil.rmtree(root / ".git")
    error = expect_error(changed("--json", "--changed", "HEAD"), 2, "usage")
    assert "no working tree of git" in error["message"]


def test_no_git(root: Path, changed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(root / "artifacts"))
    error = expect_error(changed("--json", "--changed", "HEAD"), 2, "usage")
    assert "needs git" in error["message"]


def test_somebody_elses_matrix(root: Path, changed: Any) -> None:
    """The package is not in their repository: rows, pins and records are compared, code is not."""
    git(root, "rm", "-q", "-r", "gdn_aot")
    git(root, "commit", "-q", "-m", "gone")
    append("constraints/vllm-0.24.0.txt")(root)
    assert len(changed("--changed", "HEAD").out.splitlines()) == 9


def test_the_code_of_a_build_is_what_a_build_loads() -> None:
    """Modules that a real worker has loaded are among those found by reading imports."""
    code = (
        "import sys; import gdn_aot.building.pipeline, gdn_aot.compiling.worker, gdn_aot.providers.fla.modules\n"
        "from gdn_aot.tracing import seeding, replay\n"
        "print(*[module.__file__ for name, module in sys.modules.items() if name.startswith('gdn_aot')], sep='\\n')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=True, timeout=120,
    )  # fmt: skip
    package = ROOT / "gdn_aot"
    found = Code(package).files("fla")
    loaded = {os.path.relpath(path, package) for path in done.stdout.split()}
    assert "build/pipeline.py" in loaded
    assert loaded <= found
    assert not [path for path in found if path.startswith(("runtime/", "hub/"))]
    assert Code(package).files("vllm") - found == {
        f"providers/{path.name}" for path in (package / "providers").glob("vllm*.py")
    }
