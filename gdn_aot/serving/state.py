"""What the loader knows in this process, shared by all kernels that it serves."""

from __future__ import annotations

import os
import threading

from gdn_aot._plain import Plain
from gdn_aot._text import shown
from gdn_aot.errors import GdnAotError, UnsupportedTritonError
from gdn_aot.serving import log
from gdn_aot.serving.find import Verdict

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from typing import Any

    from gdn_aot.store.stored import StoredArtifact


class Miss(Plain):
    """Something that a kernel needed and the artifacts did not have.

    Args:
        kernel: ``module:qualname``.
        what: ``choice`` or ``binary``.
        key: The autotune key or the launch key.
        reason: Why it was not there.
        answer: What was done about it: ``nearest``, ``triton``, ``inductor`` or ``error``.
    """

    __slots__ = ("answer", "kernel", "key", "reason", "what")

    def __init__(self, kernel: str, what: str, key: str, reason: str, answer: str) -> None:
        self.kernel, self.what, self.key, self.reason, self.answer = kernel, what, key, reason, answer


class State:
    """State of the loader. ``lock`` is held for every change that a launch can cause."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.strict = False
        self.on_miss = "nearest"
        self.native: Any = None
        """`gdn_aot.triton_internals._launch`, or None where it was not built."""
        self.checked = False
        """Triton's internals were found to be as known."""
        self.installing = False
        """`install` is running, and should soon be done."""
        self.active = False
        """Hooks are in place."""
        self.problem = ""
        """Why nothing is served, or empty."""
        self.found: list[StoredArtifact] = []
        self.verdicts: list[Verdict] = []
        self.kernels: dict[str, Any] = {}
        """The `gdn_aot.serving.kernels.ServedKernel` of each that is served, by ``module:qualname``."""
        self.refused: dict[str, str] = {}
        """Kernels that an artifact has and that are not served, with the reason."""
        self.copies: dict[str, str] = {}
        """Package that has kernels in the places of a provider's -> that provider."""
        self.told_packages: set[str] = set()
        """Packages of which the user was warned that a kernel is not served."""
        self.told_refusal = False
        """The user was warned that a kernel is not served; of further ones it is enough to inform."""
        self.misses: dict[tuple[str, str, str], Miss] = {}
        self.modules: dict[tuple[int, str, str], tuple[int, int, int, int, int]] = {}
        """(device, SHA-256 of the cubin, entry) -> what loading it returned. Kernels share modules."""
        self.loaded: dict[str, int] = {}
        """Launch keys answered from an artifact, by kernel."""
        self.chosen = 0
        """Autotune keys answered from an artifact."""
        self._damaged: set[str] = set()
        self._capabilities: dict[int, tuple[int, int] | None] = {}
        self._used: list[int] = []
        """Devices that something was looked up for."""
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork)

    def _after_fork(self) -> None:
        self.lock = threading.RLock()

    def capability(self, device: int) -> tuple[int, int] | None:
        """Return a device's compute capability, or None where the active driver is not CUDA's."""
        if device not in self._capabilities:
            from gdn_aot.triton_internals import serving

            self._capabilities[device] = serving.device_capability(device)
        return self._capabilities[device]

    def fits(self, found: StoredArtifact, device: int) -> bool:
        """Say whether an artifact is for a device's architecture; note that the device is in use."""
        capability = self.capability(device)
        if device not in self._used:
            self._used.append(device)
            if not any(_made_for(other, capability) for other in self.found):
                said = f"no artifact is for {self._shown(device)}; Triton compiles as usual"
                log.warn(f"{said}. {_cover(capability)}".rstrip())
            for other in self.found:
                if other.header.get("card") and _made_for(other, capability):
                    _compare_cards(other, device)
        return _made_for(found, capability)

    def artifacts(self) -> list[Verdict]:
        """Return the verdicts, and one on each artifact that is for none of the devices in use so far."""
        if not self._used:
            return self.verdicts
        reason = ", ".join(map(self._shown, sorted(self._used))).replace(", which is", " is")
        idle = [one for one in self.found if not any(_made_for(one, self.capability(device)) for device in self._used)]
        names = dict.fromkeys(shown(one.header["identifier"]) for one in idle)
        return [*self.verdicts, *(Verdict(name, accepted=False, reason=reason) for name in names)]

    def _shown(self, device: int) -> str:
        return f"device {device}, which is {_name(self.capability(device)) or 'no CUDA device'}"

    def seen_capabilities(self) -> set[tuple[int, int]]:
        """Return the compute capabilities of the devices in use so far; asks about none."""
        found = {self._capabilities[device] for device in self._used}
        return {capability for capability in found if capability is not None}

    def distrust(self, found: StoredArtifact, error: BaseException) -> None:
        """Use an artifact no longer whose files cannot be read as they were written, and say so."""
        self.found = [other for other in self.found if other is not found]
        identifier, reason = shown(found.header["identifier"]), _reason(error)
        self.verdicts.append(Verdict(identifier, accepted=False, reason=reason))
        log.warn(f"artifact {identifier} is not used: {reason}. Fetch or install it again")

    def damaged(self, found: StoredArtifact, error: BaseException) -> None:
        """Say once that an artifact in use has damaged files; what cannot be read of it is left to Triton."""
        identifier = shown(found.header["identifier"])
        if identifier in self._damaged:
            return
        self._damaged.add(identifier)
        said = f"artifact {identifier} is damaged ({_reason(error)})"
        log.warn(f"{said}; Triton compiles the unreadable kernels. Install it again")

    def copied_from(self, kernel: str) -> str | None:
        """Return the package that stands for a provider's and has a kernel, ``module:qualname``, or None."""
        own = self.own_packages()
        return next((root for root in self.copies if root not in own and kernel.startswith(f"{root}.")), None)

    def own_packages(self) -> set[str]:
        """Return the packages of the installed providers that artifacts in use are for."""
        return {package for found in self.found if not found.elsewhere for package in found.header["packages"]}

    def give_up(self, reason: str) -> None:
        """Serve nothing more in this process.

        Raises:
            UnsupportedTritonError: In strict mode.
        """
        self.active = False
        self.problem = reason
        if self.strict:
            raise UnsupportedTritonError(reason)
        log.warn(f"{reason}; Triton compiles as usual")

    def unexpected(self, where: str, error: BaseException) -> None:
        """Note an error of ours that must not reach the serving process."""
        said = f"{where}: {type(error).__name__}: {shown(error)}"
        log.warn(f"{said}; Triton continues without gdn-aot here. Please report this")
        log.detail(error)


def _compare_cards(found: StoredArtifact, device: int) -> None:
    """Warn if an artifact was built for a deployment on another product of the same architecture."""
    from gdn_aot.triton_internals import serving

    card, name = found.header["card"], serving.device_name(device)
    if name not in ("", card):
        identifier, name = shown(found.header["identifier"]), shown(name)
        said = f"artifact {identifier} was built for {shown(card)}, and device {device} is {name}"
        log.warn(f"{said}: kernels whose tiles follow that name may be compiled. Build it with card={name}")


def _made_for(found: StoredArtifact, capability: tuple[int, int] | None) -> bool:
    return tuple(found.header["capability"]) == capability


def _cover(capability: tuple[int, int] | None) -> str:
    name = _name(capability)
    return f"Cover it with: gdn-aot fetch --arch {name}, or gdn-aot build --arch {name}" if name else ""


def _name(capability: tuple[int, int] | None) -> str:
    return "" if capability is None else f"sm_{capability[0]}{capability[1]}"


def _reason(error: BaseException) -> str:
    """Return what an error of reading an artifact says; those that Python raises of what it holds need their names."""
    said = shown(error)
    return (
        said if isinstance(error, (GdnAotError, OSError)) else f"its index is damaged: {type(error).__name__}: {said}"
    )
