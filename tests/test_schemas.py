import jsonschema  # type: ignore[import-untyped]
import pytest
from schemas import FOLDER, FORMS, place, schema


@pytest.mark.parametrize("name", FORMS)
def test_the_schema_in_the_docs_follows_from_the_records(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(FORMS[name].schema())
    assert place(name).read_text() == schema(name), "run: python tests/schemas.py"


def test_there_is_no_schema_of_something_else() -> None:
    assert sorted(FOLDER.iterdir()) == sorted(map(place, FORMS))
