"""Random manifests and the blobs that belong to them."""

from collections.abc import Sequence

import factory
from cubins import make_cubin
from hypothesis import strategies as st
from msgspec.structs import replace

from gdn_aot.artifact import manifest as m
from gdn_aot.artifact.cubins import parameters_of
from gdn_aot.artifact.names import is_single
from gdn_aot.launches import ArgumentPath, Config, Json, Relaxed, Resources, Specialization, comparable

text = st.text(max_size=8)
small = st.integers(0, 1 << 20)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | text
    | st.floats(allow_nan=False, allow_infinity=False)
)
free: st.SearchStrategy[Json] = st.recursive(
    scalars | st.just(2**64 - 1),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)
keys = st.lists(scalars, max_size=3).map(tuple)
names = st.from_regex(r"[a-z][a-z0-9]{0,5}x", fullmatch=True)
"""None is a keyword."""


def _indices(items: Sequence[object]) -> st.SearchStrategy[tuple[int, ...]]:
    return st.sets(st.sampled_from(range(len(items))), min_size=1).map(lambda found: tuple(sorted(found)))


sizes = dict.fromkeys(("heads", "v_heads", "k_dim", "v_dim", "conv_width"), small)
config_values = st.none() | st.booleans() | st.integers(-(2**31), 2**31 - 1) | text


def configs(arguments: Sequence[str] | None = None) -> st.SearchStrategy[Config]:
    """Configurations that set some of these arguments, or any."""
    some = names if arguments is None else st.sampled_from([*arguments, ""])
    kwargs = st.dictionaries(some, config_values, max_size=2)
    return st.builds(
        Config,
        kwargs=kwargs.map(lambda kwargs: tuple(item for item in kwargs.items() if item[0])),
        num_warps=st.sampled_from((1, 2, 4, 8, 16, 32)),
        num_stages=st.integers(0, 9),
        num_ctas=st.integers(1, 16),
        maxnreg=st.none() | st.integers(1, 255),
    )


def _choices(arguments: Sequence[str] | None) -> st.SearchStrategy[m.Choice]:
    return st.builds(
        m.Choice,
        key=keys,
        config=configs(arguments),
        provenance=st.sampled_from(("measured", "transferred", "default")),
        derived=st.booleans(),
        note=text,
    )


@st.composite
def launches(draw: st.DrawFn) -> tuple[str, Specialization]:
    """A launch key and what it says."""
    signature: dict[str, Json] = {}
    texts: list[str] = []
    constants: list[tuple[ArgumentPath, Json]] = []
    attributes: list[tuple[ArgumentPath, tuple[tuple[str, Json], ...]]] = []
    kinds = st.sampled_from(("constexpr", "i32", "*bf16", "fp32", "u1", ("*fp32", "i32")))
    for place, (name, kind) in enumerate(draw(st.dictionaries(names, kinds, max_size=4)).items()):
        signature[name] = [*kind] if isinstance(kind, tuple) else kind
        if kind == "constexpr":
            objects = text.map(lambda name: {"dtype": name}) | free.map(lambda inner: {"constexpr": inner})
            value = draw(scalars | objects)
            texts.append(f"('constexpr', {'triton.language.x' if isinstance(value, dict) else repr(value)})")
            constants.append(((place,), value))
        elif isinstance(kind, tuple):
            texts.append(f"({kind!r}, ('D', ''))")
        else:
            found = draw(st.sampled_from(("'D'", "''", "None", "1")))
            texts.append(f"({kind!r}, {found})")
            if found[0] == "'":
                attributes.append(((place,), (("tt.divisibility", 16),) if found == "'D'" else ()))
    own = draw(st.dictionaries(names.filter(lambda name: name not in signature), scalars, max_size=2))
    plain = {[*signature][place]: value for (place,), value in constants if not isinstance(value, dict)}
    shared = draw(st.sets(st.sampled_from([*plain]))) if plain else set()  # a key says these among the arguments
    options = own | {name: value for name, value in plain.items() if name in shared}
    said = {**own, "debug": False, "instrumentation_mode": ""}
    return f"[{', '.join(texts)}]{said!r}", Specialization(
        signature=signature, constants=tuple(constants), attributes=tuple(attributes), options=options
    )


lists = st.recursive(scalars | st.just(2**64 - 1), lambda inner: st.lists(inner, max_size=3), max_leaves=6)


@st.composite
def _binaries(draw: st.DrawFn, models: Sequence[object], workloads: Sequence[object]) -> tuple[m.Binary, bytes]:
    """A binary, and its cubin."""
    key, specialization = draw(launches())
    plain = factory.make_binary(b"")
    warps = draw(st.integers(1, 32))
    resources = Resources(registers=draw(small), shared=draw(st.integers(0, 99)), local=0)
    cubin = make_cubin(
        "kernel",
        parameters=parameters_of(specialization.signature) or (),
        threads=32 * warps,
        registers=resources.registers,
        code=draw(st.binary(max_size=1500)),
    )
    more = draw(st.dictionaries(names, lists, max_size=3))
    own = {"name": "kernel", "num_warps": warps, "shared": resources.shared}
    return replace(
        plain,
        launch_key=key,
        specialization=specialization,
        metadata={**more, **plain.metadata, **own},
        resources=resources,
        models=draw(_indices(models)),
        workloads=draw(_indices(workloads)),
        cubin=factory.sha256(cubin),
    ), cubin


@st.composite
def contents(draw: st.DrawFn) -> tuple[m.Manifest, dict[str, bytes]]:
    """A manifest without blob table, and its blobs."""
    blobs = {factory.sha256(data): data for data in draw(st.lists(st.binary(max_size=1500), min_size=1, max_size=4))}
    texts = tuple(blobs)
    kinds = {"family": st.sampled_from(("gdn", "kda")), "gate_bound": st.sampled_from((None, -5.0))}
    shapes = st.builds(m.TracedShape, name=text, tp=small, **sizes, dtype=text, **kinds)
    models = draw(st.lists(shapes, min_size=1, max_size=3))
    plain = text.filter(lambda name: not is_single(name))  # a capture would be in the identifier, too
    workloads = draw(st.lists(plain, min_size=1, max_size=3))
    count = draw(st.integers(0, 2))
    kernels = []
    for number in range(count):
        made = draw(st.lists(_binaries(models, workloads), max_size=2, unique_by=lambda pair: pair[0].launch_key))
        binaries = [binary for binary, _ in made]
        blobs |= {binary.cubin: cubin for binary, cubin in made}
        kernel = factory.make_kernel(*binaries, qualname=f"kernel{number}")
        arguments = [  # constexprs of every binary
            name
            for name, kind in (binaries[0].specialization.signature.items() if binaries else ())
            if all(binary.specialization.signature.get(name) == "constexpr" for binary in binaries)
        ]
        own = arguments if binaries else None
        chosen = draw(st.lists(_choices(own), max_size=2, unique_by=lambda choice: comparable(choice.key)))
        relaxed = draw(st.lists(st.sampled_from(arguments), max_size=1)) if arguments else []
        relaxations = tuple(Relaxed(argument=name, value=draw(small), reason=draw(text)) for name in relaxed)
        kernels.append(replace(kernel, choices=tuple(chosen), relaxations=relaxations))
    base = factory.make_manifest(epoch=draw(st.sampled_from((0, 1, 1790000000))))
    files = tuple(m.LicenseFile(path=f"LICENSE.{n}", blob=digest) for n, digest in enumerate(texts))
    manifest = replace(
        base,
        provider=replace(base.provider, license_files=files),
        kernels=tuple(kernels),
        models=tuple(models),
        workloads=tuple(workloads),
        mode=draw(st.sampled_from(("inference", "train"))),
        build=replace(base.build, commit=draw(st.sampled_from((None, "0" * 40))), tool=draw(text)),
    )
    return manifest, blobs


def manifests() -> st.SearchStrategy[m.Manifest]:
    """Manifests with their blob table."""

    def with_table(content: tuple[m.Manifest, dict[str, bytes]]) -> m.Manifest:
        manifest, blobs = content
        cubins = {binary.cubin: None for kernel in manifest.kernels for binary in kernel.binaries}
        order = {**{file.blob: None for file in manifest.provider.license_files}, **cubins}
        table = tuple(m.Blob(sha256=digest, size=len(blobs[digest])) for digest in order)
        return replace(manifest, blobs=table)

    return contents().map(with_table)
