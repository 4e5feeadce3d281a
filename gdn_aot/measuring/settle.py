"""From measured keys to choices, and from choices to the record."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from gdn_aot._version import __version__
from gdn_aot.errors import UsageError
from gdn_aot.records import merging
from gdn_aot.records import tuning as records
from gdn_aot.records.files import RecordedDevice, RecordedProvider
from gdn_aot.records.objective import Sample
from gdn_aot.records.verdict import decide, derives, said

if TYPE_CHECKING:
    from gdn_aot.compiling.proxy import Proxy
    from gdn_aot.launches import CompiledKernel, Config, KernelKey
    from gdn_aot.machine.card import CardInfo
    from gdn_aot.measuring.client import KeyState, Session, Unit
    from gdn_aot.measuring.plan import PreparedUnits, TuneTask


class Writer:
    """Turns measured keys into choices and the choices into the record; may be used by several threads."""

    def __init__(
        self,
        task: TuneTask,
        card: CardInfo,
        prepared: PreparedUnits,
        device: dict[str, Any],
        existing: records.TuningRecord | None,
    ) -> None:
        self._task, self._prepared, self._existing = task, prepared, existing
        self._lock = threading.Lock()
        provider = task.job.wanted.provider
        trace = prepared.trace
        self._frame = records.TuningRecord(
            target=task.target.name,
            provider=RecordedProvider(
                name=provider.name, distribution=provider.distribution, version=trace.provider_version
            ),
            triton=trace.triton_version,
            ptxas=trace.ptxas_version,
            device=RecordedDevice(name=card.name, driver=card.driver, sm_count=device["sm_count"], memory=card.memory),
            tool=f"gdn-aot {__version__}",
            method=records.Timing(rounds=task.method.rounds, flush_bytes=2 * device["l2"], clock="cuda events"),
            objective=task.objective,
            proxy=_stood_in(task.job.proxy),
            kernels=(),
        )
        if device["name"] != card.name:
            raise UsageError(
                f"nvidia-smi names the card {card.name}, but CUDA shows {device['name']}",
                hint="name the card to measure in CUDA_VISIBLE_DEVICES, by the UUID that nvidia-smi -L prints",
            )
        self._digests = {kernel.name: kernel.digest for kernel in trace.kernels}
        traced = (
            records.MeasuredKernel(kernel=name, digest=digest, candidates=(), offered=0, choices=())
            for name, digest in self._digests.items()
        )
        merging.merge(existing, replace(self._frame, kernels=tuple(traced)))  # refuses now what must not be mixed later
        self.choices: dict[KernelKey, records.MeasuredChoice] = {}
        """Those of this run; indices are into the candidates of the key."""
        self.failed: set[KernelKey] = set()
        """Keys whose calls float64 does not confirm: what the record has for them goes."""
        self.recalled: set[KernelKey] = set()
        """Keys whose choice of the record there is stands, unless this run makes another."""

    def recall(self) -> None:
        """Take samples and findings of the record that is there as if they had been measured now.

        A search for sound candidates starts again with keys whose choice is not sound: these are what it is for. A
        choice that such a search added is not among the candidates before they are compiled: it stands as it is, but
        for another search that lacks token counts of it, which starts again.
        """
        relieved = self._task.search == "relieved"
        for kernel in self._existing.kernels if self._existing else ():
            for choice in kernel.choices:
                place = (kernel.kernel, choice.key)
                state = self._prepared.keys.get(place)
                if state is None or state.idle or (relieved and derives(choice)):
                    continue
                made_with = {kernel.candidates[choice.chosen], kernel.candidates[choice.reference]}
                if not made_with.issubset(state.configs):
                    lacking = self._prepared.wanted[place] - {row.tokens for row in choice.times}
                    if not relieved or not (lacking or choice.unchecked):
                        self.recalled.add(place)
                        self._prepared.wanted[place] = set()
                elif _recall(state, kernel.candidates, choice):
                    self.recalled.add(place)
                    state.fresh = choice.unchecked

    def settle(self, unit: Unit, session: Session | None) -> dict[str, str]:
        """Choose for every key of a unit that has samples. Returns calls that failed the check: then none has a choice.

        ``session`` checks calls with the choices against float64, if it is given.
        """
        fresh: dict[KernelKey, records.MeasuredChoice] = {}
        for place, state in unit.keys.items():
            compiled = bool(state.objects)  # an interrupted run may not have come to a key that it recalled
            made = self._choice(place, state) if state.fresh and compiled else None
            if made is not None:
                fresh[place] = made
        wrong: dict[str, str] = {}
        if session is not None and fresh:
            chosen = [(*place, choice.chosen) for place, choice in fresh.items()]
            wrong = session.check(unit, chosen, self._task.method.gate_tokens)
        with self._lock:
            for place, choice in fresh.items():
                if wrong:
                    self.failed.add(place)
                    self.recalled.discard(place)
                else:
                    self.choices[place] = replace(choice, unchecked=session is None)
                unit.keys[place].fresh = False
        return wrong

    def _choice(self, place: KernelKey, state: KeyState) -> records.MeasuredChoice | None:
        count = len(state.configs)
        rows = {
            tokens: [None if index in state.out else _recorded(row.get(index)) for index in range(count)]
            for tokens, row in sorted(state.samples.items())
        }
        taken = [self._footprint(made) for made in state.objects]
        verdict = decide(rows, taken, state.configs, self._task.objective)
        if verdict is None:
            return None
        return records.MeasuredChoice(
            **said(verdict),
            key=state.key,
            call=state.call,
            reference=state.reference,
            times=tuple(_times(tokens, row) for tokens, row in rows.items()),
            rejected=tuple(
                records.Rejected(candidate=index, tokens=tokens or None, reason=reason)
                for index, (tokens, reason) in sorted(state.out.items())
            ),
            resources=tuple(taken),
            missing=tuple(sorted(self._prepared.wanted[place] - set(state.samples))),
            unheld=state.unheld,
        )

    def _footprint(self, made: CompiledKernel | None) -> records.Footprint | None:
        if made is None:
            return None
        size = self._prepared.sizes[made.cubin]
        return records.Footprint(registers=made.registers, shared=made.shared, local=made.local, size=size)

    def save(self) -> None:
        """Write the record: what was there, with the choices of this run in place of old ones.

        Raises:
            NotWritableError: It cannot be written; what was there stays.
        """
        with self._lock:
            alike: dict[tuple[str, tuple[Config, ...], int], list[records.MeasuredChoice]] = {}
            for place, choice in self.choices.items():
                state = self._prepared.keys[place]
                alike.setdefault((state.kernel, tuple(state.configs), state.offered), []).append(choice)
            kernels: dict[str, records.MeasuredKernel] = {}
            for (name, configs, offered), choices in alike.items():
                made = records.MeasuredKernel(
                    kernel=name,
                    digest=self._digests[name],
                    candidates=configs,
                    offered=offered,
                    choices=tuple(choices),
                )
                kernels[name] = merging.merge_kernel(kernels[name], made) if name in kernels else made
            old = records.without(self._existing, self.failed) if self._existing else None
            if kernels or (self.failed and old is not None):
                found = tuple(kernels[name] for name in sorted(kernels))
                records.save(merging.merge(old, replace(self._frame, kernels=found)), self._task.path)


def _stood_in(proxy: Proxy | None) -> records.StoodIn | UnsetType:
    if proxy is None:
        return UNSET
    target = proxy.target
    limits = records.Limits(
        shared_per_sm=target.shared_per_sm,
        registers_per_sm=target.registers_per_sm,
        threads_per_sm=target.threads_per_sm,
        blocks_per_sm=target.blocks_per_sm,
    )
    return records.StoodIn(code=proxy.code.name, card=proxy.card.name, limits=limits)


def _recorded(one: Sample | None) -> Sample | None:
    """Return a time as the record has it, which is what its choice is made from."""
    return one and Sample(round(one.us, 2), round(one.noise, 2))


def _times(tokens: int, row: list[Sample | None]) -> records.Times:
    us, noise = zip(*((None, None) if one is None else (one.us, one.noise) for one in row), strict=True)
    return records.Times(tokens=tokens, us=us, noise=noise)


def _recall(state: KeyState, candidates: tuple[Config, ...], choice: records.MeasuredChoice) -> bool:
    """Take a choice's samples. Returns False, and takes nothing, if it was made among other candidates."""
    place = {index: state.configs.index(config) for index, config in enumerate(candidates) if config in state.configs}
    if len(place) < len(state.configs):
        return False
    state.call, state.reference = choice.call, place[choice.reference]
    for row in choice.times:
        state.samples[row.tokens] = {
            place[index]: Sample(us, noise)
            for index, (us, noise) in enumerate(zip(row.us, row.noise, strict=True))
            if index in place and us is not None and noise is not None
        }
    for item in choice.rejected:
        if item.candidate in place:
            state.out.setdefault(place[item.candidate], (item.tokens or 0, item.reason))
    return True
