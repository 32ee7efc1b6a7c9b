"""The weights of a small encoder."""

import pytest

from eva_coralbay.models import CoralBayEncoder
from tests.eva_coralbay.models import state_dicts


@pytest.fixture(scope="module")
def weights() -> state_dicts.StateDict:
    return CoralBayEncoder(feature_size=12).state_dict()
