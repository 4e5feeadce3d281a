"""Real builds in shards: merged, they are byte for byte what one build writes."""

from __future__ import annotations

import os
import shlex
import stat
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import triton
import yaml
from builds import Built
from helpers import ROOT, Done, expect_error, gdn_aot, run

from gdn_aot.artifact.verify import open_artifact, open_shard
from gdn_aot.building import pipeline, split
from gdn_aot.building.merge import merge
from gdn_aot.building.shard import trace_digest
from gdn_aot.catalogue.models import select_shapes
from gdn_aot.catalogue.providers import Limits, get_provider
from gdn_aot.catalogue.targets import get_target
from gdn_aot.compiling.cache import BuildCache
from gdn_aot.records import numerics as results
from gdn_aot.tracing.records import Config

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gdn_aot.artifact.manifest import Manifest

DECODE = ("--model", "qwen3.5-9b", "--workload", "transformers-decode")
NORM = (
    "--shape", "heads=2,v_heads=2,k_dim=64,v_dim=64,dtype=bf16", "--workload", "gated-norm", "--max-tokens", 70_000,
)  # fmt: skip


def _in_shards(home: Path, output: Path, of: int, *arguments: object, **more: Any) -> list[Path]:
    """Build every shard; return the files."""
    paths = []
    for number in range(1, of + 1):
        done = gdn_aot(
            "build", *arguments, "--shard", f"{number}/{of}", "-o", output, "--json", home=home, **more
        )  # fmt: skip
        assert done.json["artifacts"] == []
        for row in done.json["shards"]:
            assert (row["number"], row["of"]) == (number, of)
            assert Path(row["path"]).name == f"gdn-aot-{row['identifier']}-shard-{number}-of-{of}.tar.zst"
            assert f"{row['arch']}: shard {number} of {of}, " in done.err
            paths.append(Path(row["path"]))
    return paths


def _merged(paths: Sequence[Path], output: Path, home: Path, **more: Any) -> list[Path]:
    done = gdn_aot("merge", *reversed(paths), "-o", output, "--json", home=home, **more)
    return [Path(row["path"]) for row in done.json["artifacts"]]


def _same(merged: Path, whole: Path) -> None:
    assert merged.name == whole.name
    assert merged.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("of", [1, 3])
def test_two_targets_in_shards_are_what_one_build_writes(
    build: Callable[..., Built], tmp_path: Path, session_home: Path, of: int
) -> None:
    arguments = ("--arch", "sm_120", "--arch", "sm_75", *DECODE)
    whole = {row["identifier"]: row for row in build(*arguments).document["artifacts"]}
    paths = _in_shards(session_home, tmp_path / "shards", of, *arguments)
    merged = _merged(paths, tmp_path / "merged", session_home)
    assert len(merged) == len(whole) == 2
    for path, row in zip(merged, (whole[name] for name in sorted(whole)), strict=True):
        _same(path, Path(row["path"]))
    shards = [open_shard(path).manifest for path in paths]
    assert sum(len(kernel.binaries) for item in shards for kernel in item.kernels) == sum(
        row["binaries"] for row in whole.values()
    )


def test_shards_of_machines_that_share_nothing(decode: Built, tmp_path: Path) -> None:
    """Each is built from an empty cache; there are more of them than there is to build in one of them."""
    paths: list[Path] = []
    for number in (1, 2):
        home = tmp_path / f"home{number}"
        done = gdn_aot("build", *decode.arguments, "--shard", f"{number}/2", "-o", home / "out", "--json", home=home)
        (row,) = done.json["shards"]
        assert 0 < row["compiled"] < decode.row["binaries"]
        paths.append(Path(row["path"]))
    (merged,) = _merged(paths, tmp_path / "merged", tmp_path / "home1")
    _same(merged, decode.path)


def test_more_shards_than_there_is_to_build(build: Callable[..., Built], tmp_path: Path, session_home: Path) -> None:
    whole = build("--arch", "sm_120", *NORM)
    keys = whole.row["choices"]
    paths = _in_shards(session_home, tmp_path / "shards", keys + 3, "--arch", "sm_120", *NORM)
    empty = [path for path in paths if not open_shard(path).manifest.kernels]
    assert len(empty) == 3
    assert gdn_aot("verify", empty[0], home=tmp_path).code == 0
    _same(_merged(paths, tmp_path / "merged", session_home)[0], whole.path)


def test_all_candidates(build: Callable[..., Built], tmp_path: Path, session_home: Path) -> None:
    arguments = ("--arch", "sm_120", *NORM, "--candidates", "all")
    whole = build(*arguments)
    paths = _in_shards(session_home, tmp_path / "shards", 2, *arguments)
    shards = [open_shard(path).manifest.shard for path in paths]
    assert any(shard and shard.spare for shard in shards)
    _same(_merged(paths, tmp_path / "merged", session_home)[0], whole.path)


def test_the_time_of_the_last_commit(build: Callable[..., Built], tmp_path: Path, session_home: Path) -> None:
    arguments = ("--arch", "sm_120", *NORM)
    extra = {"SOURCE_DATE_EPOCH": "1790000000"}
    gdn_aot("build", *arguments, "-o", tmp_path / "whole", home=session_home, extra=extra)
    (whole,) = (tmp_path / "whole").iterdir()
    paths = _in_shards(session_home, tmp_path / "shards", 2, *arguments, extra=extra)
    _same(_merged(paths, tmp_path / "kept", session_home)[0], whole)
    paths = _in_shards(session_home, tmp_path / "without", 2, *arguments)
    _same(_merged(paths, tmp_path / "set", session_home, extra=extra)[0], whole)
    assert whole.read_bytes() != build(*arguments).path.read_bytes()


def test_the_workflow_of_the_examples(decode: Built, tmp_path: Path) -> None:
    """Its steps, in order, as a shell on the runner would run them; installing and handing files on is done here."""
    workflow = yaml.safe_load((ROOT / "examples" / "github-actions" / "shards.yml").read_text())
    build, merge_job = workflow["jobs"]["build"], workflow["jobs"]["merge"]
    shards = build["strategy"]["matrix"]["shard"]
    assert list(map(str, shards)) == [str(number + 1) for number in range(int(workflow["env"]["SHARDS"]))]
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "gdn-aot").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m gdn_aot "$@"\n')
    (tools / "gdn-aot").chmod(0o755)
    path = f"{tools}:{os.environ['PATH']}"

    def steps(job: dict[str, Any], **variables: str) -> None:
        scripts = [step["run"] for step in job["steps"] if "run" in step and "pip install" not in step["run"]]
        assert all("${{" not in script for script in scripts), "what a shell runs is not put together by Actions"
        extra = {"PATH": path, "SHARDS": workflow["env"]["SHARDS"], **variables}
        for script in scripts:
            done = run(["bash", "-e", "-c", script], decode.home, extra, cwd=tmp_path)
            assert done.code == 0, done.err

    for shard in shards:
        steps(build, SHARD=str(shard), OPTIONS=shlex.join(map(str, decode.arguments)))
    assert len(list((tmp_path / "shards").iterdir())) == len(shards)
    steps(merge_job)
    (made,) = (tmp_path / "dist").iterdir()
    _same(made, decode.path)


def _checked(manifest: Manifest, choices: Sequence[tuple[str, str]]) -> results.Record:
    """Return a record of a numeric check that found these (kernel, digest) right."""
    kernels = sorted({kernel for kernel, _ in choices})
    return results.Record(
        target=manifest.target.name, provider=results.Provider(name="fla", distribution="fla-core", version="0.6.0"),
        triton=manifest.triton.version, ptxas=manifest.triton.ptxas, tool="gdn-aot", status="checked", how="ptx",
        device=results.Device(name="a card", driver="1"), date="2026-01-01", models=(), checks=(),
        kernels=tuple(
            results.CheckedKernel(
                kernel=kernel, launches=1, binaries=1, ok=True,
                choices=tuple(sorted(digest for name, digest in choices if name == kernel)),
            )
            for kernel in kernels
        ),
    )  # fmt: skip


def test_the_record_of_a_numeric_check(build: Callable[..., Built], tmp_path: Path, session_home: Path) -> None:
    plain = build("--arch", "sm_120", *NORM)
    digests = [
        (name, results.choice_digest(name, choice.key, Config(tuple(asdict(choice.config).pop("kwargs").items()),
         choice.config.num_warps, choice.config.num_stages, choice.config.num_ctas, choice.config.maxnreg)))
        for kernel in plain.manifest.kernels
        for name in (f"{kernel.module}:{kernel.qualname}",)
        for choice in kernel.choices
    ]  # fmt: skip
    assert len(digests) > 1
    for root, found, status in (("all", digests, "checked"), ("some", digests[:1], "partly checked")):
        record = _checked(plain.manifest, found)
        version = plain.manifest.provider.version
        record = replace(record, provider=replace(record.provider, version=version))
        results.save(record, results.record_path(tmp_path / root, "sm_120", "fla-core", version))
        arguments = ("--arch", "sm_120", *NORM, "--numerics", tmp_path / root)
        whole = build(*arguments)
        assert whole.manifest.numerics.status == status
        paths = _in_shards(session_home, tmp_path / root / "shards", 3, *arguments)
        _same(_merged(paths, tmp_path / root / "merged", session_home)[0], whole.path)
        if root == "all":
            other = paths[:1]
    done = gdn_aot("merge", *other, *paths[1:], "-o", tmp_path / "out", "--json", home=tmp_path, code=2)
    assert "the digest of the record of the numeric check is " in expect_error(done, 2, "shard")["message"]


def _job(home: Path, output: Path, part: split.Part | None) -> pipeline.Job:
    shape = "heads=1,v_heads=2,k_dim=64,v_dim=64,dtype=bf16"
    return pipeline.Job(
        provider=get_provider("fla"), shapes=tuple(select_shapes([], [1], [shape], None).shapes), fp16_fallback=False,
        limits=Limits(max_tokens=65, max_batch=1, mode="inference"), workloads=("transformers-prefill", "gated-norm"),
        cache=BuildCache(home / "build"), tuning_root=None, jobs=2, timeout=300, all_candidates=False,
        keep_going=False, output=output, part=part,
    )  # fmt: skip


def _built(job: pipeline.Job, limit: int) -> pipeline.Built:
    """Build for sm_120 as if its blocks had so many bytes of shared memory."""
    (built,) = pipeline.build(job, [replace(get_target("sm_120"), max_shared=limit)], lambda *_: None)
    return built


@pytest.mark.slow
def test_a_second_trace_in_one_shard_and_not_in_the_other(tmp_path: Path, session_home: Path) -> None:
    """With little shared memory some keys need smaller candidates, which one build of the whole offers all keys."""
    limit = 12_000
    whole = _built(_job(session_home, tmp_path / "whole", None), limit)
    assert whole.manifest is not None
    assert whole.path is not None
    derived = {
        (kernel.qualname, choice.key)
        for kernel in whole.manifest.kernels
        for choice in kernel.choices
        if choice.derived
    }
    assert derived, "no key needs smaller candidates"
    paths, again = [], []
    for number in range(1, 17):
        built = _built(_job(session_home, tmp_path / "shards", split.Part(number=number, of=16)), limit)
        assert built.path is not None
        assert built.manifest is not None
        paths.append(built.path)
        again.append(any(choice.derived for kernel in built.manifest.kernels for choice in kernel.choices))
    assert set(again) == {True, False}, "some shards are traced twice and some are not"
    (made,) = merge(paths, tmp_path / "merged")
    assert made.manifest.not_covered == whole.manifest.not_covered
    _same(made.path, whole.path)


_BREAKS = """#!/bin/sh
# Answers probes with the real assembler; breaks on kernels.
for argument in "$@"; do
  case "$argument" in --version|/dev/null) exec "{real}" "$@";; esac
done
echo "ptxas fatal   : Internal error: something specific" >&2
exit 1
"""


def test_what_fails_in_a_shard_fails_as_in_a_build(tmp_path: Path) -> None:
    real = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas-blackwell"
    fake = tmp_path / "ptxas-blackwell"
    fake.write_text(_BREAKS.format(real=real))
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    extra = {"TRITON_PTXAS_BLACKWELL_PATH": str(fake)}
    arguments = ("--arch", "sm_120", *DECODE)

    def built(name: str, *more: object, code: int = 0) -> Done:
        return gdn_aot(
            "build", *arguments, *more, "-o", tmp_path / name, "--json", home=tmp_path, extra=extra, code=code
        )

    done = built("stopped", "--shard", "1/2", code=6)
    assert "something specific" in expect_error(done, 6, "compile")["message"]
    assert list((tmp_path / "stopped").iterdir()) == []
    whole = Path(built("whole", "--keep-going").json["artifacts"][0]["path"])
    assert open_artifact(whole).manifest.not_covered
    shards = [built("parts", "--keep-going", "--shard", f"{number}/2").json["shards"] for number in (1, 2)]
    paths = [Path(row["path"]) for rows in shards for row in rows]
    _same(_merged(paths, tmp_path / "merged", tmp_path)[0], whole)


def test_a_bad_part_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    for text in ("0/2", "3/2", "half"):
        done = gdn_aot(
            "build", "--arch", "sm_120", *DECODE, "--shard", text, "-o", tmp_path / "out", "--json",
            home=tmp_path, code=2,
        )  # fmt: skip
        assert f"--shard {text} is not K/N" in expect_error(done, 2, "usage")["message"]
        assert not (tmp_path / "out").exists()


def test_the_digest_of_a_trace_does_not_depend_on_the_time_that_it_took(session_home: Path, tmp_path: Path) -> None:
    from contextlib import ExitStack

    job, target = _job(tmp_path, tmp_path, None), get_target("sm_120")
    job = replace(job, workloads=("gated-norm",))
    traces = []
    for home in (tmp_path / "one", tmp_path / "two"):
        with ExitStack() as stack:
            fresh = replace(job, cache=BuildCache(home))
            traces.append(pipeline.traced(fresh, target, pipeline.LazyWorker(stack, "fla", target).get))
    assert traces[0].seconds != traces[1].seconds
    assert trace_digest(traces[0]) == trace_digest(traces[1])
    changed = replace(traces[0], calls=traces[0].calls + 1)
    assert trace_digest(changed) != trace_digest(traces[0])
