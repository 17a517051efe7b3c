"""What the harness takes from vLLM without being promised it is there in the installed version."""

from __future__ import annotations

import pytest

from harness.models import private_names
from harness.models.private_names import PrivateName
from tests.models.test_private_names import OURS, check

pytestmark = pytest.mark.vllm
OF_VLLM = [name for name in private_names.ALL if name not in OURS]


@pytest.mark.parametrize("name", OF_VLLM, ids=lambda name: name.where)
def test_it_is_there_in_the_installed_version(name: PrivateName) -> None:
    check(name)
