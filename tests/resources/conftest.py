"""A team's store in a folder, and for slow tests in an S3 server."""

import pytest


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.slow)])
def url(request, tmp_path):
    if request.param == "folder":
        (tmp_path / "shared").mkdir()
        return f"file://{tmp_path / 'shared'}"
    return request.getfixturevalue("s3").url(f"team/{tmp_path.name}")


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log"
