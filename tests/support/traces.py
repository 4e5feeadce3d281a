"""Small traces made by hand: kernels without a source, launches that nothing needs to compile."""

from gdn_aot.launches import Kernel, Specialization
from gdn_aot.tracing.records import Trace, TracedLaunch, Tuning, Users


def make_kernel(name: str, cache_key: str = "ab" * 32) -> Kernel:
    """Return a kernel of module ``m``."""
    return Kernel(
        module="m", qualname=name, cache_key=cache_key, source_sha256="", sources=(), dependencies=(), globals=()
    )


def make_trace(kernels: tuple[str, ...], launches: list[int], tunings: list[Tuning], plain: dict[int, Users]) -> Trace:
    """Return a trace; ``launches`` are the kernels of its launches, whose keys are their numbers."""
    return Trace(
        provider_version="0.6.0",
        triton_version="3.6.0",
        ptxas_version="12.9.86",
        kernels=[make_kernel(name) for name in kernels],
        launches=[
            TracedLaunch(kernel=kernel, key=str(number), specialization=Specialization({}, (), (), {}))
            for number, kernel in enumerate(launches)
        ],
        tunings=tunings,
        workloads=["prefill", "decode"],
        plain=plain,
    )
