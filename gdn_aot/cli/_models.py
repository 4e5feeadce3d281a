"""What the commands that build for models make of ``--model``, ``--tp``, ``--shape`` and ``--dtype``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gdn_aot.cli._output import note
from gdn_aot.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gdn_aot.catalogue.models import Selection
    from gdn_aot.catalogue.providers import ProviderInfo


def selected_shapes(
    provider: ProviderInfo,
    models: Sequence[str],
    tp: str,
    shapes: Sequence[str],
    dtypes: Sequence[str],
    *,
    captured: bool | None = None,
) -> Selection:
    """Return the shapes that the options name, and say which sizes divide none.

    Args:
        provider: Whose kernels are built.
        models: Values of ``--model``.
        tp: Value of ``--tp``.
        shapes: Values of ``--shape``.
        dtypes: Values of ``--dtype``.
        captured: A capture is built too, so that no shape need be named; None where the command takes no captures.

    Raises:
        UsageError: One of them is wrong, the provider takes no ``--shape``, or none is named and none is captured.
        NothingSelectedError: None of the sizes divides any of the models.
    """
    from gdn_aot.catalogue.models import Selection, parse_tp, select_shapes

    if shapes and provider.catalogue_only:
        raise UsageError(
            f"--shape is not for provider {provider.name}: {provider.catalogue_only}",
            hint=f"--model for what gdn-aot models lists; else record it: {provider.capture_hint}",
        )
    sizes = parse_tp(tp)
    if not models and not shapes:
        if captured:
            return Selection(shapes=(), skipped=())
        ways = [
            "--model qwen3.5-9b",
            "--model all",
            *([] if provider.catalogue_only else ["--shape"]),
            *([] if captured is None else ["--capture"]),
        ]
        raise UsageError("no model given", hint=f"{', '.join(ways[:-1])} or {ways[-1]}; see gdn-aot models")
    selection = select_shapes(models, sizes, shapes, dtypes)
    for skipped in selection.skipped:
        note(f"skipped: {skipped.reason}")
    return selection
