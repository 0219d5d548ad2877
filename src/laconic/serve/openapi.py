"""The description of the server for machines: OpenAPI 3.1, https://spec.openapis.org/oas/v3.1.0."""

from __future__ import annotations

from typing import Any

import laconic
from laconic.hub import PACKAGED
from laconic.serve.api import BUDGETS, COUNTERS, INPUTS, LARGEST, METHODS, PATTERN, PATTERNS

Schema = dict[str, Any]

_COUNT = {"type": "integer", "minimum": 0}
_SPANS = {
    "type": "array",
    "items": {"type": "array", "items": _COUNT, "minItems": 2, "maxItems": 2},
    "description": "Half-open ranges of code points of the original: sorted, disjoint, not touching.",
}
_UNITS = {
    "type": "array",
    "items": {"type": "array", "prefixItems": [_COUNT, {"type": ["number", "null"]}], "minItems": 2, "maxItems": 2},
    "description": "[end, score] of each unit, in order; only if scores were asked for.",
}
_MESSAGE = {"type": "object", "required": ["role"], "properties": {"role": {"type": "string"}}}
_PATH = {"type": "array", "items": {"type": ["string", "integer"]}}
_FIELDS: Schema = {
    "text": {"type": "string"},
    "messages": {
        "type": "array",
        "items": _MESSAGE,
        "description": "As OpenAI or Anthropic have them. System prompts, calls of tools and the newest user message "
        "stay as they are.",
    },
    "documents": {"type": "array", "items": {"type": "string"}, "description": "Compressed within one budget."},
    "rate": {
        "type": "number",
        "exclusiveMinimum": 0,
        "maximum": 1,
        "description": "Share of tokens that stays; without any budget 0.5.",
    },
    "tokens": {"type": "integer", "minimum": 1, "description": "Most tokens that stay, counted on the result."},
    "threshold": {"type": "number", "minimum": 0, "maximum": 1, "description": "Keep what scores at least this."},
    "question": {
        "type": "string",
        "description": "Keep what answers it; a method that reads no questions refuses it, except for documents.",
    },
    "protect": {
        "type": "array",
        "items": {"type": "string", "maxLength": PATTERN},
        "maxItems": PATTERNS,
        "description": "Regular expressions (of the Python package regex): what they match stays.",
    },
    "newest": {"type": "boolean", "description": "May the newest user message be shortened, too?"},
    "method": {"enum": list(METHODS), "description": "By default what the server was started with."},
    "model": {"enum": list(PACKAGED), "description": f"Of the method {METHODS[0]}."},
    "counter": {"enum": list(COUNTERS), "description": "Whose tokens are counted."},
    "scores": {"type": "boolean", "description": "Also the score of every unit."},
}
_NUMBERS: Schema = {
    "tokens_before": _COUNT,
    "tokens_after": _COUNT,
    "rate": {"type": "number", "minimum": 0, "maximum": 1, "description": "tokens_after / tokens_before"},
    "met": {"type": "boolean", "description": "Was the budget kept? Not if protected text alone exceeds it."},
    "method": {"type": "string"},
    "model": {"type": "string", "description": "Empty where there is none."},
    "counter": {"type": "string"},
    "seconds": {"type": "number", "minimum": 0},
}
_PART = {
    "type": "object",
    "required": ["path", "fixed", "spans"],
    "properties": {
        "path": {**_PATH, "description": "Keys and indices from the list of messages to the text."},
        "fixed": {"type": "boolean", "description": "It stays as it is."},
        "spans": _SPANS,
    },
}
_ENTRY = {
    "type": "object",
    "properties": {
        "time": {"type": ["number", "string"]},
        "protocol": {"type": "string"},
        "upstream": {"type": "string"},
        "status": {"type": "integer"},
        "tokens_before": _COUNT,
        "tokens_after": _COUNT,
        "reasons": {"type": "object", "additionalProperties": _COUNT},
        "ms": {"type": "number", "minimum": 0},
        "stream": {"type": "boolean"},
    },
}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "object", "required": ["message"], "properties": {"message": {"type": "string"}}}},
}
_LEDGER = {
    "type": "object",
    "required": ["requests", "totals"],
    "properties": {"requests": {"type": "array", "items": _ENTRY}, "totals": {"type": "object"}},
}


def description() -> Schema:
    """The whole document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "laconic",
            "version": laconic.__version__,
            "description": "Prompt compression: the smallest verbatim part of a prompt that still does the job.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "."}],  # wherever this document is
        "security": [{}, {"key": []}],  # a server without a key asks for none
        "paths": {
            "/v1/compress": {"post": _compress()},
            "/v1/ledger": {"get": _read("ledger", "Recent requests: counts and reasons, never contents.", _LEDGER)},
            "/healthz": {"get": _read("health", "Is the server up?", {"type": "object"})},
            "/metrics": {"get": _metrics()},
        },
        "components": {
            "securitySchemes": {"key": {"type": "apiKey", "in": "header", "name": "x-laconic-key"}},
            "schemas": {
                "TextRequest": _request("text", BUDGETS),
                "MessagesRequest": _request("messages", BUDGETS, "newest"),
                "DocumentsRequest": _request("documents", ("rate", "tokens")),
                "CompressedText": _result({"text": {"type": "string"}, "spans": _SPANS}),
                "CompressedMessages": _result(
                    {
                        "messages": {"type": "array", "items": _MESSAGE},
                        "parts": {"type": "array", "items": _PART},
                    }
                ),
                "CompressedDocuments": _result(
                    {
                        "text": {"type": "string"},
                        "order": {"type": "array", "items": _COUNT},
                        "dropped": {"type": "array", "items": _COUNT},
                        "spans": {"type": "array", "items": _SPANS},
                    }
                ),
                "Error": _ERROR,
            },
        },
    }


def _compress() -> Schema:
    """The operation of `POST /v1/compress`."""
    names = ("Text", "Messages", "Documents")
    errors = {
        "400": "Not JSON",
        "413": f"More than {LARGEST:,} bytes",
        "415": "Not sent as application/json",
        "422": "A value is wrong; the message says what to pass",
        "503": "Too many are waiting; try again after Retry-After seconds",
    }
    body = {"oneOf": [_ref(f"{name}Request") for name in names]}
    answer = {"oneOf": [_ref(f"Compressed{name}") for name in names]}
    return {
        "operationId": "compress",
        "summary": "Compress a text, chat messages or documents within one budget.",
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": body,
                    "example": {"text": "Please note that the meeting was moved to 14:30.", "rate": 0.6},
                }
            },
        },
        "responses": {"200": _json("What was kept", answer), **_refusals(errors)},
    }


def _read(name: str, summary: str, schema: Schema) -> Schema:
    return {"operationId": name, "summary": summary, "responses": {"200": _json("Now", schema), **_refusals({})}}


def _metrics() -> Schema:
    text = {"description": "Now", "content": {"text/plain": {"schema": {"type": "string"}}}}
    return {
        "operationId": "metrics",
        "summary": "Counters in the text format of Prometheus.",
        "responses": {"200": text, **_refusals({})},
    }


def _refusals(errors: dict[str, str]) -> Schema:
    """Descriptions of statuses, and of 401, which any path may give."""
    return {status: _json(text, _ref("Error")) for status, text in {"401": "The key is wrong", **errors}.items()}


def _json(text: str, schema: Schema) -> Schema:
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _request(kind: str, budgets: tuple[str, ...], *more: str) -> Schema:
    """A body with one of INPUTS, at most one budget, and what else there is for it."""
    others = [name for name in _FIELDS if name not in (*INPUTS, *BUDGETS, "newest")]
    names = (kind, *budgets, *others, *more)
    pairs = [{"required": [a, b]} for k, a in enumerate(budgets) for b in budgets[k + 1 :]]
    return {
        "type": "object",
        "required": [kind],
        "properties": {name: _FIELDS[name] for name in names},
        "additionalProperties": False,
        "not": {"anyOf": pairs},
        "dependentSchemas": {"model": {"properties": {"method": {"const": METHODS[0]}}}},
    }


def _result(properties: Schema) -> Schema:
    """An answer; `units` are there if scores were asked for: one list for a text, else one a part."""
    units = _UNITS if set(properties) == {"text", "spans"} else {"type": "array", "items": _UNITS}
    return {
        "type": "object",
        "required": [*properties, *_NUMBERS],
        "properties": {**properties, **_NUMBERS, "units": units},
        "additionalProperties": False,
    }
