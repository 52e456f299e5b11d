"""Inferences on a real server: registry, object store, gRPC, REST."""

from __future__ import annotations

from tests.support.serving import Platform, values, wait_for

ROWS = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]


async def test_an_endpoint_answers_with_the_version_of_its_alias(platform: Platform) -> None:
    name = await platform.serve(2.0)
    response = platform.infer(name, ROWS)
    assert values(response) == [12.0, 30.0]
    assert response.model_version == "1"
    assert response.parameters["model_version"].string_param.endswith("/versions/1")
    assert response.id == response.parameters["prediction_id"].string_param != ""


async def test_rest_gives_the_same_answer(platform: Platform) -> None:
    name = await platform.serve(2.0)
    body = {"id": "42", "inputs": [{"name": "X", "datatype": "FP32", "shape": [2, 3], "data": ROWS}]}
    response = platform.http.post(f"/v2/models/{name}/infer", json=body)
    assert response.status_code == 200, response.text
    answer = response.json()
    assert answer["id"] == "42"
    assert answer["outputs"] == [{"name": "variable", "datatype": "FP32", "shape": [2, 1], "data": [12.0, 30.0]}]


async def test_a_promotion_swaps_the_version(platform: Platform) -> None:
    name = await platform.serve(2.0)
    assert values(platform.infer(name, ROWS)) == [12.0, 30.0]
    platform.promote(await platform.register(name, 3.0))
    wait_for(lambda: values(platform.infer(name, ROWS)) == [18.0, 45.0])
    assert platform.get(name).alias_revision == 2
