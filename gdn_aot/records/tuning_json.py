"""The JSON form of a tuning record: bytes to `Record` and back.

What is read is not trusted: people edit records. Every problem is noted with its path inside the file.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar, cast

from msgspec import structs

from gdn_aot.artifact.reader import JsonObject, ProblemList, refuse_constant, unique_pairs
from gdn_aot.launches import Config
from gdn_aot.records import tuning_form as form

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence

MAX_BYTES = 128 << 20
"""Bytes of a record."""
_RESOURCES = 4
"""Numbers per candidate: registers, shared, local, size."""
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Row:
    """`form.Times` as the file has it: the token count is the key."""

    us: tuple[float | None, ...]
    noise: tuple[float | None, ...]


def parse(data: bytes) -> form.Record:
    """Parse a record and check that it makes sense.

    Raises:
        ValueError: It is not JSON, not an object, or of another format; nothing else was looked at.
        VerificationError: Something is missing, unknown, of the wrong type or contradicts the rest. It carries every
            problem with its path.
    """
    if len(data) > MAX_BYTES:
        raise ValueError(f"it is larger than {MAX_BYTES} bytes")
    try:
        raw = json.loads(data.decode("utf-8"), object_pairs_hook=unique_pairs, parse_constant=refuse_constant)
    except RecursionError as error:
        raise ValueError("it is not a tuning record: nested too deep") from error
    except ValueError as error:
        raise ValueError(f"it is not a tuning record: {str(error)[:200]}") from error
    if not isinstance(raw, dict) or "format" not in raw:
        raise ValueError("it is not a tuning record: no object with a format")
    version = raw.pop("format")
    if type(version) is not int or version != form.FORMAT:
        raise ValueError(f"format: {str(version)[:40]} is not {form.FORMAT}, the only one known")
    problems = ProblemList()
    record = _record(JsonObject(raw, "", form.Record, problems))
    problems.raise_any("the record is malformed")
    return record


def _record(o: JsonObject) -> form.Record:
    kernels = o.children("kernels", form.KernelRecord, _kernel)
    _refuse_twice(o, "kernels", [kernel.kernel for kernel in kernels])
    return form.Record(
        target=o.text("target"),
        provider=o.child("provider", form.Provider, _provider),
        triton=o.text("triton"),
        ptxas=o.text("ptxas"),
        device=o.child("device", form.Device, _device),
        tool=o.text("tool"),
        method=o.child("method", form.Method, _method),
        objective=o.child("objective", form.Objective, _objective),
        kernels=kernels,
    )


def _provider(o: JsonObject) -> form.Provider:
    return form.Provider(name=o.text("name"), distribution=o.text("distribution"), version=o.text("version"))


def _device(o: JsonObject) -> form.Device:
    return form.Device(
        name=o.text("name"), driver=o.text("driver"), sm_count=o.integer("sm_count"), memory=o.integer("memory")
    )


def _method(o: JsonObject) -> form.Method:
    return form.Method(rounds=o.integer("rounds"), flush_bytes=o.integer("flush_bytes"), clock=o.text("clock"))


def _objective(o: JsonObject) -> form.Objective:
    weights = []
    for name, path, value in o.pairs("weights"):
        weight = o.number_or_null(value, path)
        if weight is None or weight < 0:
            o.refuse(f"weights.{name}", "expected a number that is not negative")
        weights.append((_tokens(o, "weights", name), weight or 0.0))
    if not sum(weight for _, weight in weights):
        o.refuse("weights", "they sum to 0")
    bound = o.number("bound")
    if bound < 1:
        o.refuse("bound", f"{bound} is below 1")
    return form.Objective(weights=tuple(sorted(weights)), bound=bound)


def _tokens(o: JsonObject, where: str, name: str) -> int:
    if name.isascii() and name.isdigit() and len(name) <= 9 and name[0] != "0":  # noqa: PLR2004
        return int(name)
    o.refuse(where, f"{name[:40]!a} is not a number of tokens")
    return 0


def _kernel(o: JsonObject) -> form.KernelRecord:
    candidates = o.children("candidates", Config, _config)
    _refuse_twice(o, "candidates", candidates)
    offered = o.integer("offered")
    if not 0 <= offered <= len(candidates):
        o.refuse("offered", f"{offered} of {len(candidates)} candidates")
    choices = o.children("choices", form.ChoiceRecord, partial(_choice, len(candidates)))
    _refuse_twice(o, "choices", [choice.key for choice in choices])
    name = o.text("kernel")
    if name.count(":") != 1 or not all(name.split(":")):
        o.refuse("kernel", "expected module:qualname")
    return form.KernelRecord(kernel=name, candidates=candidates, offered=offered, choices=choices)


def _config(o: JsonObject) -> Config:
    return Config(
        kwargs=tuple((name, _setting(o, path, value)) for name, path, value in o.pairs("kwargs")),
        num_warps=o.integer("num_warps"),
        num_stages=o.integer("num_stages"),
        num_ctas=o.integer("num_ctas"),
        maxnreg=o.optional("maxnreg", o.integer),
    )


def _setting(o: JsonObject, path: str, value: object) -> int:
    """Return the value of a constexpr; most are numbers, a few are words."""
    found = o.scalar(value, path)
    if value is None:
        o.note(path, "expected a value, got null")
    return cast("int", found)


def _choice(count: int, o: JsonObject) -> form.ChoiceRecord:
    """Read one choice of a kernel with ``count`` candidates."""
    times = sorted((_times(count, o, *pair) for pair in o.pairs("times")), key=lambda row: row.tokens)
    choice = form.ChoiceRecord(
        key=o.key("key"),
        chosen=_candidate(count, o, "chosen"),
        score=o.number("score"),
        worst=o.number("worst"),
        note=o.text("note"),
        call=o.text("call"),
        reference=_candidate(count, o, "reference"),
        times=tuple(times),
        rejected=o.children("rejected", form.Rejected, partial(_rejected, count)),
        resources=_resources(count, o),
        regret=_regret(o),
        missing=o.integers("missing") if o.has("missing") else (),
        unchecked=o.has("unchecked") and o.boolean("unchecked"),
    )
    if not times:
        o.refuse("times", "there are none")
    for item in choice.rejected:
        if item.candidate == choice.chosen:
            o.refuse("chosen", f"candidate {choice.chosen} was rejected: {item.reason}")
    for row in times:
        if choice.chosen < len(row.us) and row.us[choice.chosen] is None:
            o.refuse("chosen", f"candidate {choice.chosen} has no time at {row.tokens} tokens")
    return choice


def _candidate(count: int, o: JsonObject, name: str) -> int:
    number = o.integer(name)
    if not 0 <= number < count:
        o.refuse(name, f"there is no candidate {number}, only {count} from 0")
        return 0
    return number


def _times(count: int, o: JsonObject, name: str, path: str, value: object) -> form.Times:
    row = o.inner(value, path, _Row)
    found = form.Times(
        tokens=_tokens(o, "times", name), us=row.numbers_or_null("us"), noise=row.numbers_or_null("noise")
    )
    for field, values in (("us", found.us), ("noise", found.noise)):
        if len(values) != count:
            row.refuse(field, f"{len(values)} times for {count} candidates")
        for number, item in enumerate(values):
            if item is not None and (item < 0 or (field == "us" and item == 0)):
                row.refuse(f"{field}[{number}]", f"{item} is no time")
    for number, (time, noise) in enumerate(zip(found.us, found.noise, strict=False)):
        if (time is None) != (noise is None):
            row.refuse(f"noise[{number}]", "a time and its noise are null together")
    return found


def _rejected(count: int, o: JsonObject) -> form.Rejected:
    return form.Rejected(
        candidate=_candidate(count, o, "candidate"), tokens=o.optional("tokens", o.integer), reason=o.text("reason")
    )


def _resources(count: int, o: JsonObject) -> tuple[form.Resources | None, ...] | None:
    if not o.has("resources"):
        return None
    found: list[form.Resources | None] = []
    for path, item in o.items("resources"):
        numbers = [] if item is None else o.sequence(item, path, _RESOURCES)
        values = [o.scalar(number, f"{path}[{index}]", "int") for index, number in enumerate(numbers)]
        plain = [value for value in values if isinstance(value, int)]
        if len(plain) == _RESOURCES:
            registers, shared, local, size = plain
            found.append(form.Resources(registers=registers, shared=shared, local=local, size=size))
        else:
            found.append(None)
    if len(found) != count:
        o.refuse("resources", f"{len(found)} entries for {count} candidates")
    return tuple(found)


def _regret(o: JsonObject) -> tuple[tuple[int, float], ...]:
    if not o.has("regret"):
        return ()
    found = [(_tokens(o, "regret", name), o.number_or_null(value, path)) for name, path, value in o.pairs("regret")]
    if any(part is None or part < 0 for _, part in found):
        o.refuse("regret", "expected numbers that are not negative")
    return tuple(sorted((tokens, part or 0.0) for tokens, part in found))


def _refuse_twice(o: JsonObject, name: str, values: Sequence[Hashable]) -> None:
    seen: set[Hashable] = set()
    for number, value in enumerate(values):
        if value in seen:
            o.refuse(f"{name}[{number}]", "is in the list twice")
        seen.add(value)


def dump(record: form.Record) -> bytes:
    """Return the bytes of a record: sorted, and a line for each candidate, time row and rejection.

    Times have two decimals, ratios four.
    """
    head = {
        "format": form.FORMAT,
        "target": record.target,
        "provider": asdict(record.provider),
        "triton": record.triton,
        "ptxas": record.ptxas,
        "device": asdict(record.device),
        "tool": record.tool,
        "method": asdict(record.method),
        "objective": {
            "weights": {str(tokens): weight for tokens, weight in sorted(record.objective.weights)},
            "bound": record.objective.bound,
        },
    }
    lines = [f" {_text(name)}: {_text(value)}," for name, value in head.items()]
    kernels = sorted(record.kernels, key=lambda kernel: kernel.kernel)
    return "\n".join(["{", *lines, *_list("kernels", kernels, _dump_kernel, 1), "}", ""]).encode("ascii")


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(", ", ": "))


def _list(name: str, items: Sequence[_T], write: Callable[[_T, int], Iterable[str]], depth: int) -> Iterator[str]:
    """Yield the lines of ``"name": [...]``; ``write`` yields those of one item, at the depth it is given."""
    yield from _block(f'{" " * depth}"{name}": [', "]", [list(write(item, depth + 1)) for item in items], depth)


def _block(start: str, end: str, items: Sequence[list[str]], depth: int) -> Iterator[str]:
    if not items:
        yield start + end
        return
    yield start
    for number, lines in enumerate(items):
        yield from lines[:-1]
        yield lines[-1] + ("," if number < len(items) - 1 else "")
    yield " " * depth + end


def _dump_kernel(kernel: form.KernelRecord, depth: int) -> Iterator[str]:
    pad = " " * depth
    yield f"{pad}{{"
    yield f'{pad} "kernel": {_text(kernel.kernel)},'
    yield f'{pad} "offered": {kernel.offered},'
    *lines, last = _list("candidates", kernel.candidates, _dump_config, depth + 1)
    yield from [*lines, last + ","]
    yield from _list("choices", sorted(kernel.choices, key=lambda choice: _text(choice.key)), _dump_choice, depth + 1)
    yield f"{pad}}}"


def _dump_config(config: Config, depth: int) -> Iterator[str]:
    yield " " * depth + _text({**structs.asdict(config), "kwargs": dict(config.kwargs)})


def _dump_choice(choice: form.ChoiceRecord, depth: int) -> Iterator[str]:
    pad = " " * depth
    head = {
        "key": choice.key,
        "chosen": choice.chosen,
        "score": round(choice.score, 4),
        "worst": round(choice.worst, 4),
        "note": choice.note,
        "call": choice.call,
        "reference": choice.reference,
    }
    if choice.resources is not None:
        found = choice.resources
        head["resources"] = [None if r is None else [r.registers, r.shared, r.local, r.size] for r in found]
    if choice.regret:
        head["regret"] = {str(tokens): round(part, 4) for tokens, part in sorted(choice.regret)}
    if choice.missing:
        head["missing"] = sorted(choice.missing)
    if choice.unchecked:
        head["unchecked"] = True
    yield f"{pad}{{"
    for name, value in head.items():
        yield f"{pad} {_text(name)}: {_text(value)},"
    rows = sorted(choice.times, key=lambda row: row.tokens)
    *lines, last = _block(f'{pad} "times": {{', "}", [[_dump_times(row, depth + 2)] for row in rows], depth + 1)
    yield from [*lines, last + ","]
    yield from _list("rejected", choice.rejected, _dump_rejected, depth + 1)
    yield f"{pad}}}"


def _dump_times(row: form.Times, depth: int) -> str:
    values = {"us": row.us, "noise": row.noise}
    rounded = {name: [None if item is None else round(item, 2) for item in found] for name, found in values.items()}
    return f'{" " * depth}"{row.tokens}": {_text(rounded)}'


def _dump_rejected(item: form.Rejected, depth: int) -> Iterator[str]:
    yield " " * depth + _text(asdict(item))
