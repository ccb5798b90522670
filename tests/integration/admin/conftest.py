"""What the tests of operators share."""

import pytest
from support.operators import operator_of
from support.system import Credential, World


@pytest.fixture
def operator(world: World) -> Credential:
    return operator_of(world)
