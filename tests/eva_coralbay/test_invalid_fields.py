"""Tests how what pydantic finds wrong is said."""

import pydantic
import pytest

from eva_coralbay import _invalid_fields


class _Inner(pydantic.BaseModel):
    count: int


class _Outer(pydantic.BaseModel, extra="forbid"):
    name: str
    parts: list[_Inner] = []

    @pydantic.field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if not name.isalpha():
            raise ValueError("has to be of letters.")
        return name


def _explain(content: dict[str, object]) -> str:
    with pytest.raises(pydantic.ValidationError) as error:
        _Outer.model_validate(content)
    return _invalid_fields.explain(error.value)


def test_says_field_fault_and_value_in_one_line() -> None:
    assert _explain({"name": "a1", "parts": [{"count": "x\ny"}]}) == (
        "'name': has to be of letters, got 'a1'; 'parts.0.count': Input should be a valid integer, "
        "unable to parse string as an integer, got 'x\\ny'"
    )


def test_says_the_first_few_of_many() -> None:
    message = _explain({"name": "a", **{f"other{i}": 1 for i in range(30)}})

    assert message.endswith(" and 20 more") and "http" not in message


def test_says_any_other_error_as_it_is() -> None:
    assert _invalid_fields.explain(ValueError("no JSON")) == "no JSON"
