"""The service in the terms of OpenAPI 3.1, for those who generate clients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import featx

if TYPE_CHECKING:
    from featx.model import Model
    from featx.packing import PackedModel
    from featx.serving.settings import Serving

_NUMBER, _TEXT = {"type": "number"}, {"type": "string"}
_BASE64 = {"type": "string", "contentEncoding": "base64"}
_REFUSALS = {
    "400": "The request cannot be understood.",
    "401": "The token is missing or wrong.",
    "408": "The request did not arrive in time.",
    "413": "Too many bytes, images or pixels.",
    "415": "Another content type.",
    "422": "No image of the request could be read; the rows have the reasons.",
    "429": "Too many images wait.",
    "503": "No answer in time, or the service is ending.",
}


def description(model: Model | PackedModel, how: Serving) -> dict[str, Any]:
    """Return the document for a model, whose answer depends on what it predicts.

    Parameters
    ----------
    model : Model or PackedModel
    how : Serving
    """
    form = _object({"image": {"type": "array", "items": {"type": "string", "format": "binary"}}})
    named = _object({"id": _TEXT, "data": _BASE64}, required=["data"])
    images = {"type": "array", "maxItems": how.max_images, "items": {"anyOf": [_BASE64, named]}}
    bodies = {
        "multipart/form-data": {"schema": form},
        "application/json": {"schema": _object({"images": images}, required=["images"])},
        "image/*": {"schema": {"type": "string", "format": "binary"}},
    }
    error = {"$ref": "#/components/schemas/Error"}
    refusals = {status: _answer(text, error) for status, text in _REFUSALS.items()}
    predict = {
        "summary": "What the model says of images.",
        "operationId": "predict",
        "parameters": [{"name": "top", "in": "query", "schema": {"type": "integer", "minimum": 1, "default": 5}}],
        "requestBody": {"required": True, "content": bodies},
        "responses": {"200": _answer("A row an image, in order.", _answered(model)), **refusals},
    }
    if how.token is not None:
        predict["security"] = [{"token": []}]
    health = _object({"status": _TEXT, "model": _TEXT, "waiting": {"type": "integer"}})
    paths = {
        "/predict": {"post": predict},
        "/healthz": {"get": {"summary": "Whether it answers.", "responses": {"200": _answer("It does.", health)}}},
        "/metrics": {
            "get": {
                "summary": "Counters for Prometheus.",
                "responses": {"200": {"description": "Text.", "content": {"text/plain": {"schema": _TEXT}}}},
            }
        },
    }
    schemas = {"Error": _object({"error": _object({"type": _TEXT, "message": _TEXT})})}
    return {
        "openapi": "3.1.0",
        "info": {"title": "featx", "version": featx.__version__, "description": repr(model).strip("<>")},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _answered(model: Model | PackedModel) -> dict[str, Any]:
    names, maybe_number = {"type": "array", "items": _TEXT}, {"type": ["number", "null"]}
    pair = {"type": "array", "prefixItems": [_TEXT, _NUMBER], "minItems": 2, "maxItems": 2}
    row: dict[str, Any] = {"id": _TEXT, "familiarity": maybe_number, "error": {"type": ["string", "null"]}}
    if model.outputs is None:
        row |= {"label": {"type": ["string", "null"]}, "probability": maybe_number}
        row["top"] = {"type": "array", "items": pair}
        return _object({"classes": names, "predictions": {"type": "array", "items": _object(row)}})
    if model.outputs.task == "multilabel":
        row |= {"labels": {"type": ["array", "null"], "items": _TEXT}, "top": {"type": "array", "items": pair}}
    else:
        ends = {"type": "array", "items": maybe_number, "minItems": 2, "maxItems": 2}
        row["values"] = {"type": ["object", "null"], "additionalProperties": _NUMBER}
        row["intervals90"] = {"type": ["object", "null"], "additionalProperties": ends}
    return _object({"task": _TEXT, "predictions": {"type": "array", "items": _object(row)}})


def _object(properties: dict[str, Any], required: list[str] | None = None) -> dict[str, Any]:
    return {"type": "object", "properties": properties, **({"required": required} if required else {})}


def _answer(text: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": schema}}}
