import pytest

from tests.runtime.tiny_model import make_tiny_model


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny")
