"""The reference of the speed benchmark: what FastAPI itself costs.

The same body and the same answer as `POST /predict/{series_id}`, declared as any FastAPI application would, and
nothing done in between. Run as `python -m benchmark.reference PORT`.
"""

import sys

import uvicorn
from fastapi import FastAPI

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
)


@app.post("/predict/{series_id}")
async def predict(series_id: str, point: PointRequest, version: str = "latest") -> PointAnswer:  # noqa: ARG001
    """Validate, answer the same thing always."""
    return _ANSWER


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), access_log=False, log_level="warning")
