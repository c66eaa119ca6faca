import pytest

from pool import Pool


@pytest.fixture(scope="session")
def digits():
    """The sample of images: its base model has a classifier of its own."""
    pool = Pool("digits")
    yield pool
    pool.stop()


@pytest.fixture(scope="session")
def packages():
    """The sample of texts: three classifiers of texts and one of their tokens, on a base model without any."""
    pool = Pool("packages")
    yield pool
    pool.stop()


@pytest.fixture(params=["digits", "packages"])
def pool(request):
    """Each of the two in turn."""
    return request.getfixturevalue(request.param)
