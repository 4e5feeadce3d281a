"""Whether a record has the very kernel that is built: by the digest of its source, whatever its release is called."""

from pathlib import Path

import pytest
import tuning_records as records
from msgspec.structs import replace
from traces import make_kernel
from tuning_records import KERNEL, KEY, choice, config, kernel, record, times

from gdn_aot.catalogue.targets import get_target
from gdn_aot.choosing.transfer import Transfer, origin
from gdn_aot.launches import Dependency, Global, SourceFile
from gdn_aot.records import tuning as r
from gdn_aot.records.files import RecordedProvider

A, B, WIDE = config(16), config(32), config(256)
HERE, OTHER = "a" * 64, "b" * 64
H100 = "NVIDIA H100 80GB HBM3, driver 580.159.04"


def _write(
    root: Path, version: str, best: r.Config, digest: str = "", *, name: str = KERNEL, at: str = "sm_90"
) -> None:
    """Write the record of a release of vLLM, which has one kernel whose choice is ``best``."""
    candidates = [A, B, WIDE]
    made = kernel(candidates, choice(times(64, 1, 1, 1), chosen=candidates.index(best)), name=name, digest=digest,
                  offered=2)  # fmt: skip
    provider = RecordedProvider(name="vllm", distribution="vllm", version=version)
    records.write(root, record(made, provider=provider, target=at))


def _first(root: Path, version: str, digest: str, name: str = KERNEL) -> tuple[r.Config, str, str]:
    transfer = Transfer(root, get_target("sm_90"), "vllm", version)
    found, *_ = transfer.suggest(name, KEY, [A, B], [WIDE], digest)
    table = transfer.table()
    tuned = table.get((digest, KEY)) or table.get((name, KEY))
    assert (tuned and (tuned.config, tuned.provenance)) == (
        None if found.provenance == "transferred" else (found.config, found.provenance)
    )
    return found.config, found.provenance, origin(found.note)


@pytest.mark.parametrize("version", ["0.25.1", "0.26.0", "0.23.0", "0.24.0+cu129", "9.9.9", "main"])
def test_the_very_kernel_of_another_release_is_measured(tmp_path: Path, version: str) -> None:
    """And notes say which release was measured; what only a wide search offers is taken as well."""
    for best in (B, WIDE):
        _write(tmp_path, "0.24.0", best, HERE)
        assert _first(tmp_path, version, HERE) == (best, "measured", f"on {H100}, vllm 0.24.0")
    assert _first(tmp_path, "0.24.0", HERE) == (WIDE, "measured", f"on {H100}")


@pytest.mark.parametrize("version", ["0.24.0", "0.23.0", "0.25.1"])
def test_another_source_is_a_transfer_whatever_its_release_is_called(tmp_path: Path, version: str) -> None:
    _write(tmp_path, "0.24.0", B, OTHER)
    said = ", of another form of the kernel" if version == "0.24.0" else ", vllm 0.24.0"
    assert _first(tmp_path, version, HERE) == (B, "transferred", f"from sm_90 ({H100}{said})")
    _write(tmp_path, "0.24.0", WIDE, OTHER)
    assert _first(tmp_path, version, HERE)[1:] == ("transferred", f"from sm_90 ({H100}{said})"), "not WIDE"


def test_a_record_without_digests_goes_by_its_version(tmp_path: Path) -> None:
    _write(tmp_path, "0.24.0", B)
    assert [_first(tmp_path, version, HERE)[1] for version in ("0.24.0", "0.24.0+cu129", "0.23.0")] == ["measured"] * 3
    assert _first(tmp_path, "0.25.1", HERE)[1] == "transferred"


def test_a_kernel_that_moved_is_found_by_its_source(tmp_path: Path) -> None:
    _write(tmp_path, "0.24.0", B, HERE)
    assert _first(tmp_path, "0.26.0", HERE, "elsewhere:kernel")[:2] == (B, "measured")
    transfer = Transfer(tmp_path, get_target("sm_90"), "vllm", "0.26.0")
    found, *_ = transfer.suggest("elsewhere:" + KERNEL.partition(":")[2], KEY, [A, B], (), OTHER)
    assert (found.config, found.provenance) == (B, "transferred"), "another form of it, which moved too"
    assert transfer.suggest("elsewhere:another", KEY, [A, B], (), OTHER) == []


def test_the_very_kernel_is_before_nearer_releases_and_the_own_name(tmp_path: Path) -> None:
    """Of another target, too: what it measured is of this kernel, and what the release's own has is not."""
    _write(tmp_path, "0.24.0", A, OTHER)
    _write(tmp_path, "0.25.1", A, OTHER)
    _write(tmp_path, "0.20.2", B, HERE)
    assert _first(tmp_path, "0.24.0", HERE)[:2] == (B, "measured")
    (tmp_path / "sm_90/vllm-0.20.2.json").unlink()
    _write(tmp_path, "0.20.2", B, HERE, at="sm_80")
    assert _first(tmp_path, "0.24.0", HERE) == (B, "transferred", f"from sm_80 ({H100})")


def test_what_a_digest_is_of() -> None:
    made = replace(
        make_kernel("k"),
        dependencies=(Dependency("exp", "m", "exp", "1" * 64), Dependency("log", "triton.language.math", "log", "")),
        globals=(Global("N", "1"),),
    )
    exp, log = made.dependencies
    for same in (
        {"module": "other"},
        {"cache_key": "c" * 64},
        {"sources": (SourceFile("m.py", "2" * 64),)},
        {"dependencies": (log, replace(exp, module="other", qualname="x"), exp)},
    ):
        assert replace(made, **same).digest == made.digest
    for other in (
        {"source_sha256": "3" * 64},
        {"dependencies": (exp,)},
        {"dependencies": (replace(exp, source_sha256="4" * 64), log)},
        {"dependencies": (replace(exp, name="fast"), log)},
        {"dependencies": (exp, replace(log, module="triton.language.extra.libdevice"))},
        {"globals": (Global("N", "2"),)},
    ):
        assert replace(made, **other).digest != made.digest
