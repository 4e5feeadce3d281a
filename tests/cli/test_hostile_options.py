"""What people and other programs write where a name, a number or a path is wanted: always a clean refusal."""

import os
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import click
import keyrings
import msgspec
import pytest
from helpers import gdn_aot

from gdn_aot.artifact.archive import Written
from gdn_aot.cli import main
from gdn_aot.cli._job import check_output
from gdn_aot.errors import UsageError
from gdn_aot.records import numerics, tuning
from gdn_aot.registry.lockfile import LockedArtifact, LockFile

SHAPE = ("--shape", "heads=1,v_heads=2,k_dim=64,v_dim=64,dtype=bf16")
NOTHING = ("--arch", "sm_90", *SHAPE, "--workload", "nothing-*")
"""Of a build that is over before anything is compiled."""
LONG = "x" * 5000
VALUES = {
    "long": LONG,
    "long path": f"/nowhere/{LONG}",
    "long name": f"o/{LONG}",
    "long repository": f"hf://o/{LONG}",
    "deep": "a/" * 2500,
    "digits": "9" * 5000,
    "bytes": os.fsdecode(b"a\xff\x9b2Jb"),
    "control": "a\nHint: run this\x1b[31m\r",
    "nothing": "",
    "in a file": "/etc/passwd/x",
    "missing": "/nowhere/at/all",
    "superscript": "²",
}


def _commands() -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name in main.COMMANDS:
        command = import_module(f"gdn_aot.cli.{name}").command
        if isinstance(command, click.Group):
            yield from (((name, other), inner) for other, inner in command.commands.items())
        else:
            yield (name,), command


COMMANDS = dict(_commands())


@pytest.fixture
def arguments(sm_90: Written, tmp_path: Path) -> dict[str, tuple[object, ...]]:
    """For each command what it takes to come far, and not so far that it compiles or measures."""
    (tmp_path / "registry").mkdir()
    (tmp_path / "k.json").write_bytes(keyrings.file_of(keyrings.first(), 1, 2))
    repo = ("--repo", tmp_path / "registry")
    return {
        **dict.fromkeys(("build", "check"), (*NOTHING, "-o", tmp_path / "out")),
        "tune": ("--prepare", *NOTHING, "-o", tmp_path / "out"),
        **dict.fromkeys(("fetch", "lock"), (*repo, "--arch", "sm_90")),
        "list": repo,
        "publish": (*repo, "--dry-run", sm_90.path),
        "export": ("--format", "fla", sm_90.path, "-o", tmp_path / "out"),
        "inspect": (sm_90.path,),
        "report": (sm_90.path, "-o", tmp_path / "report.html"),
        "capture": ("-o", tmp_path / "c.json"),
        "keys new": ("--repo", keyrings.REPO, "-o", tmp_path / "made"),
        "keys rotate": (tmp_path / "k.json", "--new-public", "a" * 64, "--serial", 1, "-o", tmp_path / "next.json"),
        "keys revoke": (tmp_path / "k.json", "a" * 64, "-o", tmp_path / "next.json"),
        "keys sign": (tmp_path / "k.json", "-o", tmp_path / "next.json"),
    }


@pytest.mark.parametrize(("words", "command"), [*COMMANDS.items()], ids=[*map("-".join, COMMANDS)])
def test_every_option(
    words: tuple[str, ...],
    command: click.Command,
    arguments: dict[str, tuple[object, ...]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for option in command.params:
        if isinstance(option, click.Option) and (option.is_flag or isinstance(option.type, click.Choice)):
            continue
        for value in (*VALUES.values(), str(tmp_path)):
            given = (option.opts[-1], value) if isinstance(option, click.Option) else ("--", value)
            done = gdn_aot(*words, *arguments.get(" ".join(words), ()), *given, home=tmp_path, code=None)
            assert done.code != 1, (option.name, value[:80], done.err[:500])
            assert not [line for line in done.err.splitlines() if line.startswith("Hint: run this")], option.name
            assert all(line.isprintable() for line in done.err.splitlines()), option.name


REPOSITORIES = [value for name, value in VALUES.items() if name not in ("nothing", "missing", "in a file", "deep")]


@pytest.mark.parametrize("repo", REPOSITORIES, ids=lambda repo: ascii(repo)[:20])
def test_the_repository_of_the_environment(tmp_path: Path, repo: str) -> None:
    for words in (("list",), ("fetch", "--arch", "sm_90"), ("lock", "--arch", "sm_90")):
        done = gdn_aot(*words, home=tmp_path, extra={"GDN_AOT_REPO": repo}, code=None)
        assert done.code == (2 if repo != VALUES["long path"] else 0 if words == ("list",) else 7), done.err[:500]


@pytest.mark.parametrize(
    "repo", ["hf://o/n\0", "\0", "/a\0b", LONG, f"hf://o/{LONG}", f"/{LONG}", f"./{LONG}", "hf://o/\x1b[31m", "/a\x9bb"]
)
def test_the_repository_of_a_lock_file(tmp_path: Path, repo: str) -> None:
    names = {"identifier": "fla0.6.0-triton3.6.0-sm_90", "provider": "fla", "version": "0.6.0", "triton": "3.6.0"}
    pinned = LockedArtifact(**names, target="sm_90", sha256="b" * 64, size=1, key=None, serial=None)
    lock = LockFile(repository=repo, revision="v1", commit="a" * 40, artifacts=(pinned,))
    (tmp_path / "gdn-aot.lock").write_bytes(msgspec.json.format(msgspec.json.encode(lock), indent=2) + b"\n")
    done = gdn_aot("fetch", "--lock-file", tmp_path / "gdn-aot.lock", home=tmp_path, code=None)
    assert done.code == (7 if repo[0] in "./" and "\0" not in repo else 5), done.err[:500]
    assert all(line.isprintable() for line in done.err.splitlines())


@pytest.mark.parametrize("text", ["format = " + "9" * 5000, "a = " + "[" * 100_000, "a" * 1_000_000, "\ud800"])
def test_a_matrix(tmp_path: Path, text: str) -> None:
    (tmp_path / "matrix.toml").write_bytes(text.encode("utf-8", "surrogatepass"))
    gdn_aot("matrix", "--matrix", tmp_path / "matrix.toml", home=tmp_path, code=2)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, '{"format":%s}' % ("9" * 5000), '["\\ud800"]'])
def test_a_record(tmp_path: Path, text: str) -> None:
    for form in (numerics.FORM, tuning.FORM):
        (tmp_path / "record.json").write_text(text)
        with pytest.raises(UsageError, match="refused"):
            form.load(tmp_path / "record.json")


def test_an_output_directory_with_a_link_in_it(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "out").mkdir()
    for name in (".gdn-aot-probe", ".tmp-0"):
        (tmp_path / "out" / name).symlink_to(victim)
    check_output(tmp_path / "out")
    assert victim.read_text() == "precious"
    assert len(list((tmp_path / "out").iterdir())) == 2
