"""What is chosen, and the words for what is not."""

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from doctoring import distribution, driver_library
from helpers import python

from gdn_aot.artifact.names import make_identifier
from gdn_aot.catalogue.providers import PROVIDERS, same_source
from gdn_aot.registry.listing import judge
from gdn_aot.registry.select import Judged, Request, WantedProvider, WantedVersion, missing_error, select


@dataclass(frozen=True)
class One:
    provider: str
    version: str
    triton: str
    target: str

    @property
    def identifier(self) -> str:
        return make_identifier(self.provider, self.version, self.triton, self.target)


def named(text: str) -> WantedVersion:
    return WantedVersion(text=text, installed=False)


def found(text: str | None) -> WantedVersion:
    return WantedVersion(text=text, installed=True)


def fla(version: WantedVersion | None) -> WantedProvider:
    return WantedProvider(name="fla", version=version)


def request(*targets: str, **changes: Any) -> Request:
    """FLA 0.6.0 with Triton 3.6.0, as found here, for the targets; for all where none is named."""
    fields = {"targets": targets or None, "providers": (fla(found("0.6.0")),), "triton": found("3.6.0")}
    return Request(**{**fields, **changes})


FLA_90 = One("fla", "0.6.0", "3.6.0", "sm_90")
FLA_120 = One("fla", "0.6.0", "3.6.0", "sm_120")
TRITON_38 = One("fla", "0.6.0", "3.8.0", "sm_120")
FLA_5 = One("fla", "0.5.2", "3.6.0", "sm_120")
EVERYTHING = (
    "is for fla 0.5.2; 0.6.0 is installed, and for sm_90; sm_120 is wanted, and for Triton 3.8.0; 3.6.0 is installed"
)


def test_one_of_the_same_source_is_taken_where_there_is_none_of_the_version() -> None:
    same = WantedVersion(text="0.23.0", installed=True, same=("0.24.0",))
    wanted = request("sm_90", providers=(WantedProvider(name="vllm", version=same),))
    newer, own = (One("vllm", version, "3.6.0", "sm_90") for version in ("0.24.0", "0.23.0"))
    assert (select([newer], wanted).chosen, select([newer], wanted).missing) == ((newer,), ())
    both = select([newer, own], wanted)
    assert both.chosen == (own,)
    assert both.verdicts[-1] == Judged(
        identifier=newer.identifier, accepted=False, reason="is for vllm 0.24.0; 0.23.0 is installed"
    )
    assert select([One("vllm", "0.24.0", "3.8.0", "sm_90")], wanted).chosen == ()


def test_which_versions_have_the_same_source() -> None:
    assert same_source("vllm", "0.23.0") == ("0.24.0",)
    assert same_source("vllm", "0.23.0+cu129") == ("0.23.0", "0.24.0")
    assert same_source("vllm", "0.24.0") == same_source("fla-core", "0.6.0") == same_source("org/name", "0+1") == ()
    for info in PROVIDERS.values():
        known = {one.version: one for one in info.versions}
        for one in filter(lambda one: one.same_as, info.versions):
            assert known[one.same_as].triton == one.triton
            assert not known[one.same_as].same_as


VLLM = One("vllm", "0.33.0", "3.6.0", "sm_120")


@pytest.mark.parametrize(
    ("candidate", "wanted", "reason"),
    [
        (FLA_120, request("sm_120"), "fits"),
        (FLA_120, request(), "fits"),
        (TRITON_38, request("sm_120"), "is for Triton 3.8.0; 3.6.0 is installed"),
        (TRITON_38, request("sm_120", triton=named("3.6.0")), "is for Triton 3.8.0; 3.6.0 is wanted"),
        (TRITON_38, request("sm_120", triton=found(None)), "is for Triton 3.8.0, which is not installed"),
        (TRITON_38, request("sm_120", triton=None), "fits"),
        (FLA_5, request("sm_120"), "is for fla 0.5.2; 0.6.0 is installed"),
        (FLA_5, request(providers=(fla(named("0.6.0")),)), "is for fla 0.5.2; 0.6.0 is wanted"),
        (FLA_5, request(providers=(fla(None),)), "fits"),
        (FLA_90, request("sm_120"), "is for sm_90; sm_120 is wanted"),
        (FLA_90, request("sm_100", "sm_120"), "is for sm_90; sm_100 or sm_120 is wanted"),
        (FLA_90, request("sm_120", native=True), "is for sm_90; this machine has sm_120"),
        (VLLM, request("sm_120"), "is for vllm; fla is wanted"),
        (VLLM, request("sm_120", others=True), "fits"),
        (
            VLLM,
            request("sm_120", providers=(WantedProvider(name="vllm", version=found(None)),)),
            "is for vllm 0.33.0, which is not installed",
        ),
        (One("fla", "0.5.2", "3.8.0", "sm_90"), request("sm_120"), EVERYTHING),
        (One("fla", "0.6.0", "3.6.0+cu128", "sm_120"), request(), "is for Triton 3.6.0+cu128; 3.6.0 is installed"),
    ],
)
def test_reasons(candidate: One, wanted: Request, reason: str) -> None:
    selection = select([candidate], wanted)
    (verdict,) = selection.verdicts
    assert verdict.reason == reason
    assert verdict.accepted is (reason == "fits") is bool(selection.chosen)
    assert bool(selection.missing) is not verdict.accepted


def test_nearest_misses_come_first() -> None:
    """Another Triton is the easiest to change, then the provider's version; the GPU and the provider are given."""
    far = One("fla", "0.5.2", "3.8.0", "sm_90")
    expected = [FLA_120, TRITON_38, FLA_5, FLA_90, VLLM, far]
    for seed in range(5):
        order = expected.copy()
        random.Random(seed).shuffle(order)
        verdicts = select(order, request("sm_120")).verdicts
        assert [verdict.identifier for verdict in verdicts] == [one.identifier for one in expected]


def test_every_provider_and_target_must_be_there() -> None:
    both = (WantedProvider(name="fla", version=found("0.6.0")), WantedProvider(name="vllm", version=found("0.33.0")))
    selection = select([FLA_120, FLA_90, VLLM], request("sm_90", "sm_120", providers=both))
    assert set(selection.chosen) == {FLA_120, FLA_90, VLLM}
    assert selection.missing == ("vllm 0.33.0 with Triton 3.6.0 for sm_90",)
    selection = select([FLA_120, FLA_90], request(providers=both))
    assert selection.missing == ("vllm 0.33.0 with Triton 3.6.0 for any target",)
    absent = (both[0], WantedProvider(name="vllm", version=found(None)))
    assert select([FLA_120], request("sm_120", providers=absent)).missing == (), "what is not installed is not wanted"
    assert select([FLA_120], request("sm_120", "sm_100", others=True, providers=(), triton=None)).missing == (
        "any provider for sm_100",
    )


def test_without_a_gpu_nobody_knows() -> None:
    assert judge(FLA_90, request()) == (None, "fits what is installed; there is no GPU here to compare sm_90 with")
    assert judge(FLA_90, request("sm_120", native=True)) == (False, "is for sm_90; this machine has sm_120")
    assert judge(FLA_5, request()) == (False, "is for fla 0.5.2; 0.6.0 is installed")
    assert judge(FLA_120, request("sm_120", native=True)) == (True, "fits")


# What is wanted, found out on machines made up for it

ASK = """
import json, sys
from dataclasses import asdict
from gdn_aot.errors import UsageError
from gdn_aot.registry import request
arguments = json.loads(sys.argv[2])
try:
    made = getattr(request, sys.argv[1])(*arguments)
except UsageError as error:
    print(json.dumps({"error": error.message, "hint": error.hint}))
else:
    print(json.dumps({**asdict(made), "loaded": sorted({"torch", "triton", "fla"} & set(sys.modules))}))
"""
DEFAULT = [[], "auto", "auto", "auto"]


def ask(home: Path, kind: str, arguments: list[Any], **extra: str) -> Any:
    return python(ASK, kind, json.dumps(arguments), home=home, extra=extra)


@pytest.fixture
def machine(tmp_path: Path) -> dict[str, str]:
    """FLA 7.7.7, Triton 8.8.8 and two GPUs."""
    distribution(tmp_path / "site", "fla_core", "7.7.7")
    driver = driver_library(tmp_path / "driver")
    return {
        **distribution(tmp_path / "site", "triton", "8.8.8"),
        "TRITON_LIBCUDA_PATH": str(driver),
        "FAKE_ARCHS": "90,120,90",
    }


def test_auto_and_native(machine: dict[str, str], tmp_path: Path) -> None:
    made = ask(tmp_path, "make_request", DEFAULT, **machine)
    assert made["targets"] == ["sm_90", "sm_120"]
    assert made["native"] is True
    assert made["providers"][0] == {"name": "fla", "version": {"text": "7.7.7", "installed": True, "same": []}}
    assert made["triton"] == {"text": "8.8.8", "installed": True, "same": []}
    assert made["loaded"] == []
    assert ask(tmp_path, "machine_request", [], **machine)["targets"] == ["sm_90", "sm_120"]


def test_named(machine: dict[str, str], tmp_path: Path) -> None:
    """No GPU is asked for where a target is named: this driver would not work."""
    made = ask(tmp_path, "make_request", [["90,SM_100", "12.0"], "fla", "0.6.0", "3.6.0"], **machine, FAKE_INIT="999")
    assert made["targets"] == ["sm_90", "sm_100", "sm_120"]
    assert made["native"] is False
    assert made["providers"] == [{"name": "fla", "version": {"text": "0.6.0", "installed": False, "same": []}}]
    assert made["triton"] == {"text": "3.6.0", "installed": False, "same": []}
    assert ask(tmp_path, "make_request", [["sm_90", "all"], "auto", "auto", "auto"], **machine)["targets"] is None
    mixed = ask(tmp_path, "make_request", [["native,sm_75"], "auto", "auto", "auto"], **machine)
    assert (mixed["targets"], mixed["native"]) == (["sm_90", "sm_120", "sm_75"], False)


@pytest.mark.parametrize(
    ("arguments", "extra", "error", "hint"),
    [
        (DEFAULT, {"FAKE_INIT": "100"}, "no GPU is found here to choose a target by", "--arch"),
        (DEFAULT, {"FAKE_INIT": "999"}, "the CUDA driver does not work", "--arch sm_90"),
        (DEFAULT, {"TRITON_LIBCUDA_PATH": "/nowhere"}, "cannot load libcuda.so.1", "--arch sm_90"),
        ([["sm_21"], "auto", "auto", "auto"], {}, "unknown target 'sm_21'", "did you mean"),
        ([["sm_90,"], "auto", "auto", "auto"], {}, "--arch has an empty name", "--arch sm_80,sm_90"),
        ([["sm_90"], "fal", "auto", "auto"], {}, "unknown provider 'fal'", "did you mean fla?"),
        ([["sm_90"], "auto", "0.6.0", "auto"], {}, "--provider-version says nothing", "--provider-version 0.6.0"),
    ],
)
def test_what_cannot_be_meant(
    machine: dict[str, str], tmp_path: Path, arguments: list[Any], extra: dict[str, str], error: str, hint: str
) -> None:
    said = ask(tmp_path, "make_request", arguments, **{**machine, **extra})
    assert error in said["error"]
    assert hint in said["hint"]


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        (["vllm 0.24.0 with Triton 3.6.0 for sm_100"], ["sm_100 --provider vllm"]),
        (
            ["fla 0.6.0 for sm_90", "vllm 0.24.0 for sm_90", "fla 0.6.0 for sm_120"],
            ["sm_90 --provider fla", "sm_90 --provider vllm"],
        ),
        (["any provider for any target"], ["TARGET --provider PROVIDER"]),
    ],
)
def test_what_is_missing_is_built_with_its_own_provider(missing: list[str], expected: list[str]) -> None:
    error = missing_error("here", [Judged(identifier="x", accepted=False, reason="is for another")], missing)
    commands = " or ".join(f"gdn-aot build --arch {rest} --model NAME" for rest in expected)
    assert error.hint == f"{commands} makes one; or name another --revision or --repo"


BARE = "import sys; sys.path[:] = [place for place in sys.path if 'site-packages' not in place]\n"


def ask_bare(home: Path, kind: str, arguments: list[Any]) -> Any:
    return python(BARE + ASK, kind, json.dumps(arguments), home=home)


def test_nothing_installed(tmp_path: Path) -> None:
    said = ask_bare(tmp_path, "make_request", [["sm_90"], "auto", "auto", "3.6.0"])
    assert "is not installed here" in said["error"]
    assert "--provider fla --provider-version 0.6.0" in said["hint"]
    said = ask_bare(tmp_path, "make_request", [["sm_90"], "fla", "auto", "3.6.0"])
    assert "fla is not installed here" in said["error"]
    said = ask_bare(tmp_path, "make_request", [["sm_90"], "vllm", "auto", "3.6.0"])
    assert "--provider vllm --provider-version 0.24.0" in said["hint"]
    said = ask_bare(tmp_path, "make_request", [["sm_90"], "fla", "0.6.0", "auto"])
    assert "Triton is not installed here" in said["error"]
    assert "--triton 3.6.0" in said["hint"]
    made = ask_bare(tmp_path, "make_request", [["sm_90"], "fla", "0.6.0", "3.6.0"])
    assert made["targets"] == ["sm_90"]


def test_a_lock_file_says_what_nothing_else_does(machine: dict[str, str], tmp_path: Path) -> None:
    made = ask_bare(tmp_path, "locked_request", DEFAULT)
    assert (made["targets"], made["triton"], made["others"]) == (None, None, True)
    assert all(provider["version"] is None for provider in made["providers"])
    made = ask_bare(tmp_path, "locked_request", [["sm_90"], "fla", "auto", "auto"])
    assert (made["providers"], made["others"]) == ([{"name": "fla", "version": None}], False)
    made = ask(tmp_path, "locked_request", DEFAULT, **machine)
    assert made["targets"] is None
    assert made["providers"][0]["version"] == {"text": "7.7.7", "installed": True, "same": []}
    assert made["triton"] == {"text": "8.8.8", "installed": True, "same": []}
