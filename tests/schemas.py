"""The JSON Schemas in ``docs/reference/schemas``: ``python tests/schemas.py`` makes them of the records."""

import json
from pathlib import Path
from typing import Any

from gdn_aot import deployment
from gdn_aot.artifact import manifest_json
from gdn_aot.capture import form as capture
from gdn_aot.codec import Form
from gdn_aot.matrix import form as matrix
from gdn_aot.records import numerics, tuning
from gdn_aot.registry.layout import INDEX_FORM
from gdn_aot.registry.lockfile import LOCK_FORM

FOLDER = Path(__file__).parent.parent / "docs/reference/schemas"
FORMS: dict[str, Form[Any]] = {
    "manifest": manifest_json.FORM,
    "capture": capture.FORM,
    "tuning": tuning.FORM,
    "numerics": numerics.FORM,
    "matrix": matrix.FORM,
    "deployment": deployment.FORM,
    "registry": INDEX_FORM,
    "lock": LOCK_FORM,
}


def schema(name: str) -> str:
    """Return the text of the schema of a form."""
    return json.dumps(FORMS[name].schema(), indent=1) + "\n"


def place(name: str) -> Path:
    """Return where it is kept."""
    return FOLDER / f"{name}.schema.json"


if __name__ == "__main__":
    for found in FORMS:
        place(found).write_text(schema(found))
