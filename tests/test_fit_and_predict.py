"""The contract of POST /fit and POST /predict, over HTTP."""

import httpx

FOUR_POINTS = {"timestamps": [1705000000, 1705000001, 1705000002, 1705000003], "values": [10.0, 10.5, 9.5, 10.0]}


def test_four_points_make_version_1_and_13_is_an_anomaly(client: httpx.Client, series_id: str) -> None:
    fitted = client.post(f"/fit/{series_id}", json=FOUR_POINTS)
    assert fitted.status_code == 200
    assert {"series_id": series_id, "version": "1", "points_used": 4}.items() <= fitted.json().items()
    judged = client.post(f"/predict/{series_id}", json={"timestamp": "1705000010", "value": 13.0})
    assert judged.status_code == 200
    assert {"anomaly": True, "model_version": "1"}.items() <= judged.json().items()
