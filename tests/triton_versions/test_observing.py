"""What the recorder sees of launches, against what the installed Triton itself looks up."""

from pathlib import Path
from typing import Any

import pytest
from helpers import SUPPORT, python

START = f"""
import json, sys
sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(SUPPORT)!r}]
"""
WATCH = """
from gdn_aot.triton_internals import observing
import triton
noted, problems = [], []
observer = observing.Observer(noted.append, problems.append)
observer.watch_jit(); observer.watch_autotuner()
"""
LAUNCH = """
import launching
driver = launching.start("sm_90")
import torch, kernels
looked_up = []
from triton import knobs
knobs.runtime.jit_cache_hook = lambda *, key, **_: looked_up.append(key)
x = torch.zeros(64)
def every(x, y, odd=3):
    kernels.every[(1,)](
        x, y, 1, 32, odd, 1 << 40, 0.5, None, 7, 5, BLOCK=16, NAME="relu", FLAG=True, KIND=kernels.tl.float16,
        ABSENT=None, RATIO=0.25,
    )
def tuned(bias=None, n=64, **more):
    kernels.tuned[(1,)](x, bias, y=x, n=n, WIDE=True, **more)
kernels.tuned._do_bench = lambda call, quantiles: (call(), [1.0, 1.0, 1.0])[1]
"""
DONE = """
def rows():
    for seen in noted:
        key, specialization = seen.launch()
        tuning = seen.tuning
        yield {
            "kernel": seen.kernel, "key": key, "specialization": specialization,
            "target": observing.described_target(seen.target), "text": bool(seen.identity()[0]),
            "tuning": tuning and {
                "key": list(tuning.key) if tuning.key is not None else None, "config": tuning.config,
                "positional": tuning.positional, "keywords": tuning.keywords,
            },
        }
def done(**more):
    print(json.dumps({
        "seen": list(rows()), "looked_up": looked_up, "problems": list(map(repr, problems)),
        "launched": len(driver.launched), **more,
    }))
"""


@pytest.fixture
def observe(tmp_path: Path) -> Any:
    def observe(code: str, watch: str = WATCH) -> Any:
        extra = {"TRITON_CACHE_DIR": str(tmp_path / "triton")}
        return python(START + watch + LAUNCH + DONE + code, home=tmp_path, extra=extra)

    return observe


def test_plain_launches_are_seen_once_each_under_tritons_own_key(observe: Any) -> None:
    got = observe("every(x, x); every(x, x); every(x[1:], x); every(x, x, odd=16); done()")
    assert got["problems"] == []
    assert got["launched"] == 4
    assert [row["key"] for row in got["seen"]] == got["looked_up"]
    assert len(set(got["looked_up"])) == 3
    first = got["seen"][0]
    assert first["kernel"] == "kernels:every"
    assert first["target"] == "sm_90"
    assert first["text"]
    assert first["tuning"] is None
    assert first["specialization"]["signature"]["aligned"] == "*fp32"
    assert [[14], None] in first["specialization"]["constants"]


def test_choices_are_seen_and_benchmarks_are_not(observe: Any) -> None:
    got = observe("tuned(); tuned(); tuned(x); tuned(n=63); done(cache=[list(key) for key in kernels.tuned.cache])")
    assert got["problems"] == []
    assert got["launched"] > len(got["seen"]), "candidates were launched to be timed"
    assert [row["tuning"]["key"] for row in got["seen"]] == got["cache"]
    assert len(got["seen"]) == 3
    for row in got["seen"]:
        assert row["key"] in got["looked_up"]
        assert (row["tuning"]["positional"], row["tuning"]["keywords"][:2]) == (2, ["y", "n"])
        config = row["tuning"]["config"]
        assert [[6], dict(config["kwargs"])["BLOCK"]] in row["specialization"]["constants"]
        assert row["specialization"]["options"]["num_warps"] == config["num_warps"]


def test_a_known_launch_for_another_key_is_seen_again(observe: Any) -> None:
    """``n`` is part of the autotune key but only its class is part of the launch key."""
    got = observe("tuned(n=65); tuned(n=67); done()")
    first, second = got["seen"]
    assert first["key"] == second["key"]
    assert (first["tuning"]["key"][0], second["tuning"]["key"][0]) == (65, 67)


def test_what_cannot_be_seen_does_not_stop_a_launch(observe: Any) -> None:
    got = observe(
        "def broken(seen):\n    raise ValueError('no')\nobserver._note = broken\nevery(x, x); tuned(); done()"
    )
    assert got["launched"] > 1
    assert got["problems"] == ["ValueError('no')"] * 2


def test_watching_twice_and_serving_go_together(observe: Any) -> None:
    """The loader checks the functions that it relies on: it must know Triton's below the recorder's."""
    got = observe(
        "observer.watch_jit(); observer.watch_autotuner()\n"
        "from gdn_aot.triton_internals import serving\nserving.check_serving(); every(x, x); done()"
    )
    assert len(got["seen"]) == 1


def test_arguments_made_of_what_was_seen_come_to_the_same_keys(observe: Any) -> None:
    got = observe("""
every(x, x); every(x[1:], x, odd=16); tuned(); tuned(x, n=63)
from gdn_aot import triton_internals
from gdn_aot.triton_internals import arguments, interception
same = []
for row in list(rows()):
    jit, tuner = triton_internals.find_kernel(*row["kernel"].split(":"))
    row = json.loads(json.dumps(row))
    if row["tuning"] is None:
        made = arguments.make_plain(row["specialization"])
        same.append(triton_internals.Launch(jit, (), made).key == row["key"])
        continue
    args, kwargs = arguments.make(tuner, row["specialization"], row["tuning"])
    same.append(list(triton_internals.autotune_key(tuner, args, kwargs)) == row["tuning"]["key"])
    keys = []
    def on_launch(*launch):
        keys.append(triton_internals.Launch(*launch).key)
    with interception.intercept(None, on_launch):
        config = triton_internals.make_config(**row["tuning"]["config"])
        triton_internals.run_config(tuner, args, {**kwargs, "grid": (1,), "warmup": False}, config)
    same.append(keys == [row["key"]])
done(same=same)
""")
    assert got["same"] == [True] * 6
