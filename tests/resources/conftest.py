"""A team's store in a folder, for slow tests in an S3 server, and for exhaustive ones in Azurite, where it is."""

import pytest
from support.cloud_stores import azurite, make_container


@pytest.fixture(scope="session")
def azure(tmp_path_factory):
    """Azure's store, as Azurite has it, for obstore in this process and in those that it starts."""
    with azurite(tmp_path_factory.mktemp("azurite")) as endpoint, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AZURE_STORAGE_USE_EMULATOR", "true")
        patch.setenv("AZURITE_BLOB_STORAGE_URL", endpoint)
        make_container(endpoint, "team")
        yield "az://team"


@pytest.fixture(
    params=[
        "folder",
        pytest.param("s3", marks=pytest.mark.slow),
        pytest.param("azure", marks=pytest.mark.exhaustive),
    ]
)
def url(request, tmp_path):
    if request.param == "azure":
        return f"{request.getfixturevalue('azure')}/{tmp_path.name}"
    if request.param == "folder":
        (tmp_path / "shared").mkdir()
        return f"file://{tmp_path / 'shared'}"
    return request.getfixturevalue("s3").url(f"team/{tmp_path.name}")


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log"
