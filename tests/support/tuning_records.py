"""Tuning records for tests."""

import json
from pathlib import Path
from typing import Any

import msgspec

from gdn_aot.launches import Config, Scalar
from gdn_aot.records import tuning as r
from gdn_aot.records.files import RecordedDevice, RecordedProvider

H100 = RecordedDevice(name="NVIDIA H100 80GB HBM3", driver="580.159.04", sm_count=132, memory=85029158912)
FLA = RecordedProvider(name="fla", distribution="fla-core", version="0.6.0")
KERNEL = "fla.ops.common.chunk_o:chunk_fwd_kernel_o"
KEY: tuple[Scalar, ...] = (16, 32, 128, True, None, 0.5, "torch.bfloat16")


def config(block: int = 64, warps: int = 4, *, stages: int = 2) -> Config:
    return Config(kwargs=(("BK", block),), num_warps=warps, num_stages=stages)


def times(tokens: int, *us: float | None) -> r.Times:
    return r.Times(
        tokens=tokens,
        us=tuple(None if item is None else float(item) for item in us),
        noise=tuple(None if item is None else 0.01 for item in us),
    )


def choice(*rows: r.Times, key: tuple[Scalar, ...] = KEY, chosen: int = 0, **more: Any) -> r.MeasuredChoice:
    return r.MeasuredChoice(
        **{
            "key": key, "chosen": chosen, "score": 1.0, "worst": 1.0, "note": "lowest score",
            "call": "transformers-prefill(lengths=(64,))", "reference": 0, "times": rows, **more,
        }
    )  # fmt: skip


def record(*kernels: r.MeasuredKernel, **more: Any) -> r.TuningRecord:
    return r.TuningRecord(
        **{
            "target": "sm_90", "provider": FLA, "triton": "3.6.0", "ptxas": "12.8.93", "device": H100,
            "tool": "gdn-aot 0.1.0", "method": r.Timing(rounds=15, flush_bytes=104857600, clock="cuda events"),
            "objective": r.Objective(weights={64: 0.1, 2048: 0.9}, bound=1.1), "kernels": kernels, **more,
        }
    )  # fmt: skip


def kernel(
    candidates: list[Config],
    *choices: r.MeasuredChoice,
    name: str = KERNEL,
    digest: str = "",
    offered: int | None = None,
) -> r.MeasuredKernel:
    count = len(candidates) if offered is None else offered
    return r.MeasuredKernel(
        kernel=name, digest=digest or msgspec.UNSET, candidates=tuple(candidates), offered=count, choices=choices
    )


def full() -> r.TuningRecord:
    """Return a record that uses everything a record can have."""
    candidates = [config(32), config(64), config(128, 8)]
    return record(
        kernel(
            candidates,
            choice(
                times(64, 9.1, 9.25, None),
                times(2048, 31.0, 24.5, None),
                chosen=1,
                score=1.01,
                worst=1.03,
                rejected=(
                    r.Rejected(candidate=2, tokens=64, reason="a worker died of SIGSEGV"),
                    r.Rejected(candidate=2, tokens=None, reason="does not compile"),
                ),
                resources=(r.Footprint(registers=128, shared=49152, local=0, size=20480), None, None),
            ),
            choice(times(64, 9.0, 9.0, 9.0), key=(1,)),
            offered=2,
        ),
        kernel(
            [Config(kwargs=(("F", True), ("PRECISION", "ieee")), num_warps=1, num_stages=1, num_ctas=2, maxnreg=96)],
            name="a.b:c",
        ),
    )


def plain(made: r.TuningRecord | None = None) -> Any:
    """Return a record as JSON has it."""
    return json.loads(r.FORM.dump(made or full()))


def written(document: object) -> bytes:
    """Return a document in the lines of a record, so that only what it says is judged."""
    return r.FORM._layout(msgspec.json.encode(document))


def write(root: Path, made: r.TuningRecord) -> Path:
    path = r.record_path(root, made.target, made.provider.distribution, made.provider.version)
    r.save(made, path)
    return path
