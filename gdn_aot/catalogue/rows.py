"""Rows of a manifest's ``models``: the shapes that an artifact was traced for.

A row leaves out what is as in most models: that the family is GDN, and that the gate has no bound.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gdn_aot.catalogue.models import GDN, OF_SHAPES, ModelShape, all_models

if TYPE_CHECKING:
    from collections.abc import Mapping

USUAL: Mapping[str, object] = {"family": GDN, "gate_bound": 0.0}
"""What rows do not say if it is so; `gdn_aot.artifact.manifest.TracedShape` has the same defaults."""


def value_of(row: Mapping[str, Any], name: str) -> Any:
    """Return a value of a row by its name in `ModelShape`, also one that the row leaves out."""
    return row.get(name) or USUAL.get(name)


def alike(row: Mapping[str, Any], values: Mapping[str, object]) -> bool:
    """Say whether a row has these values, by name; None stands for one that is not known."""
    return all(value is None or value_of(row, name) == value for name, value in values.items())


def shape_of(row: Mapping[str, Any]) -> ModelShape:
    """Return the shape of a row, that of a ``--shape`` included."""
    catalogue = {model.name: model for model in all_models()}
    if row["name"] in catalogue:
        return catalogue[row["name"]].shape(row["tp"], row["dtype"])
    more = {name: value_of(row, name) for name in USUAL}
    own = {**row, **more, "hidden": row["v_heads"] * row["v_dim"]}
    return ModelShape(**own, **OF_SHAPES[own["family"]])
