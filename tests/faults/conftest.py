"""What the fault tests share."""

import logging
import os
import tempfile
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _expected_damage_is_not_told_of():
    logger = logging.getLogger("featx.store")
    level = logger.level
    logger.setLevel(logging.ERROR)
    yield
    logger.setLevel(level)


@pytest.fixture
def folder():
    """A folder in memory where there is one: waiting for a real disk would only make loops slow."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as name:
        Path(name).chmod(0o755)
        yield Path(name)
