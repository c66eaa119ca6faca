"""OpenAI's client, as far as it goes here: which models there are."""

import openai
import pytest

from pool import Pool


def connect(pool: Pool) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{pool.url}/v1", api_key="any", max_retries=0)


def test_models(pool):
    """The base and its adapters, each saying of what it is made."""
    found = list(connect(pool).models.list())
    assert [model.id for model in found] == [pool.name, *pool.adapters]
    assert {model.object for model in found} == {"model"}
    assert [model.parent for model in found] == [None] + [pool.name] * len(pool.adapters)
    assert all(model.created > 0 and model.owned_by and model.root for model in found)


def test_model(pool):
    for name in [pool.name, *pool.adapters]:
        assert connect(pool).models.retrieve(name).id == name
    with pytest.raises(openai.NotFoundError) as refused:
        connect(pool).models.retrieve("nobody")
    assert "nobody" in refused.value.body
