"""The OpenAPI document: what FastAPI makes of the routes, with our errors and keys."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from app.api.documentation import problems
from app.api.gate import wanted
from app.api.schemas import Problem
from app.errors import RateLimitExceeded, ScopeMissing, Unauthenticated

_KEYS = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key, as `Authorization: Bearer tm_...`."},
    "header": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "The same in a header of its own.",
    },
}
_REFUSALS = problems(Unauthenticated, ScopeMissing, RateLimitExceeded)


def describe(app: FastAPI, *, asks_for_keys: bool) -> dict[str, Any]:
    """The document of these routes; operations say that they take a key where the service asks for one."""
    document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    document["components"]["schemas"] |= problem.pop("$defs") | {"Problem": problem}
    if asks_for_keys:
        document["components"]["securitySchemes"] = _KEYS
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                _ask_for_key(operation, method.upper(), path)
    return document


def _ask_for_key(operation: dict[str, Any], method: str, path: str) -> None:
    scope = wanted(method, path)[0]
    if scope is None:
        return
    operation["security"] = [{name: []} for name in _KEYS]
    operation["responses"] |= {str(status): answer for status, answer in _REFUSALS.items()}
    description = f"Takes the scope `{scope}`."
    operation["description"] = (
        f"{operation['description']}\n\n{description}" if "description" in operation else description
    )
