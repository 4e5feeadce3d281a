"""``gdn-aot models``."""

from __future__ import annotations

from dataclasses import asdict

import click

from gdn_aot.catalogue.models import all_models
from gdn_aot.cli import _options
from gdn_aot.cli._output import emit_json, out, table


@click.command("models")
@_options.as_json
def command(*, as_json: bool) -> None:
    """List the catalogue of models, with where each row's figures are from."""
    models = all_models()
    if as_json:
        emit_json([{**asdict(model), "tp": model.tps()} for model in models])
        return
    heads = ("family", "heads", "v_heads", "k_dim", "v_dim", "dtype")
    lines = [
        (model.name, *(getattr(model, head) for head in heads), ",".join(map(str, model.tps())), model.confidence)
        for model in models
    ]
    out(table(lines, ("model", *heads, "tp", "confidence")))
