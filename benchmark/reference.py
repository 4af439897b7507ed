"""The references of the speed benchmark: what FastAPI costs, and what HTTP itself costs.

`noop`: the same body and the same answer as `POST /predict/{series_id}`, declared as any FastAPI application would,
and nothing done in between. `wire`: a bare ASGI function that reads the body and answers the same bytes always, so
uvicorn and nothing else. Run as `python -m benchmark.reference noop|wire PORT`.
"""

import sys

import uvicorn
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from app.api.schemas import PointAnswer, PointRequest

app = FastAPI()

_ANSWER = PointAnswer(
    anomaly=True,
    model_version="1",
    score=2.82842712474619,
    expected=10.0,
    lower=8.939339828220179,
    upper=11.060660171779821,
    severity=0.6464466094067263,
    p_value=6.914400106940203e-13,
    kind="spike",
)
_BYTES = _ANSWER.model_dump_json().encode()
_HEADERS = [(b"content-type", b"application/json"), (b"content-length", str(len(_BYTES)).encode())]


@app.post("/predict/{series_id}")
async def predict(series_id: str, point: PointRequest, version: str = "latest") -> PointAnswer:  # noqa: ARG001
    """Validate, answer the same thing always."""
    return _ANSWER


async def wire(scope: Scope, receive: Receive, send: Send) -> None:
    """Read the whole body, answer the same bytes always."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body", False):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": _BYTES})


REFERENCES = {"noop": app, "wire": wire}

if __name__ == "__main__":
    uvicorn.run(REFERENCES[sys.argv[1]], port=int(sys.argv[2]), access_log=False, log_level="warning", lifespan="off")
