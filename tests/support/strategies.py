"""Random manifests and the blobs that belong to them."""

from collections.abc import Sequence

import factory
from hypothesis import strategies as st
from msgspec.structs import replace

from gdn_aot.artifact import manifest as m
from gdn_aot.artifact.names import is_capture
from gdn_aot.launches import ArgumentPath, Config, Json, Relaxed, Resources, Specialization

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
constants = scalars | free.map(lambda value: {"constexpr": value}) | text.map(lambda value: {"dtype": value})
arguments = st.lists(st.integers(0, 9), min_size=1, max_size=2).map(tuple)


def _paths(values: st.SearchStrategy[Json]) -> st.SearchStrategy[tuple[tuple[ArgumentPath, Json], ...]]:
    return st.lists(st.tuples(arguments, values), max_size=2).map(tuple)


def _indices(items: Sequence[object]) -> st.SearchStrategy[tuple[int, ...]]:
    return st.sets(st.sampled_from(range(len(items))), min_size=1).map(lambda found: tuple(sorted(found)))


sizes = dict.fromkeys(("heads", "v_heads", "k_dim", "v_dim", "conv_width"), small)
configs = st.builds(
    Config,
    kwargs=st.dictionaries(text, scalars, max_size=2).map(lambda kwargs: tuple(kwargs.items())),
    num_warps=st.integers(1, 64),
    num_stages=st.integers(0, 9),
    num_ctas=st.integers(1, 16),
    maxnreg=st.none() | st.integers(1, 255),
)
choices = st.builds(
    m.Choice,
    key=keys,
    config=configs,
    provenance=st.sampled_from(("measured", "transferred", "default")),
    derived=st.booleans(),
    note=text,
)
specializations = st.builds(
    Specialization,
    signature=st.dictionaries(text, st.just("constexpr") | text | st.lists(text, max_size=2), max_size=3),
    constants=_paths(constants),
    attributes=_paths(st.lists(st.tuples(text, scalars), max_size=2).map(tuple)),
    options=st.dictionaries(text, free, max_size=2),
)


@st.composite
def contents(draw: st.DrawFn) -> tuple[m.Manifest, dict[str, bytes]]:
    """A manifest without blob table, and its blobs."""
    blobs = {factory.sha256(data): data for data in draw(st.lists(st.binary(max_size=1500), min_size=1, max_size=4))}
    digests = list(blobs)
    models = draw(st.lists(st.builds(m.TracedShape, name=text, tp=small, **sizes, dtype=text), min_size=1, max_size=3))
    plain = text.filter(lambda name: not is_capture(name))  # a capture would be in the identifier, too
    workloads = draw(st.lists(plain, min_size=1, max_size=3))
    count = draw(st.integers(0, 2))
    kernels = []
    for number in range(count):
        binaries = draw(
            st.lists(
                st.builds(
                    m.Binary,
                    launch_key=text,
                    specialization=specializations,
                    metadata=st.dictionaries(text, free, max_size=3),
                    resources=st.builds(Resources, registers=small, shared=small, local=small),
                    models=_indices(models),
                    workloads=_indices(workloads),
                    cubin=st.sampled_from(digests),
                ),
                max_size=2,
                unique_by=lambda binary: binary.launch_key,
            )
        )
        kernel = factory.make_kernel(*binaries, qualname=f"kernel{number}")
        chosen = draw(st.lists(choices, max_size=2, unique_by=lambda choice: choice.key))
        arguments = [  # constexprs of every binary
            name
            for name, kind in (binaries[0].specialization.signature.items() if binaries else ())
            if all(binary.specialization.signature.get(name) == "constexpr" for binary in binaries)
        ]
        relaxed = draw(st.lists(st.sampled_from(arguments), max_size=1)) if arguments else []
        relaxations = tuple(Relaxed(argument=name, value=draw(small), reason=draw(text)) for name in relaxed)
        kernels.append(replace(kernel, choices=tuple(chosen), relaxations=relaxations))
    base = factory.make_manifest(epoch=draw(st.sampled_from((0, 1, 1790000000))))
    files = tuple(m.LicenseFile(path=f"LICENSE.{n}", blob=digest) for n, digest in enumerate(digests))
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
