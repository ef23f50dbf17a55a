"""The OpenAPI document of the HTTP API, made from the operations and their models, and a page that shows it."""

import html
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from aiohttp import web
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from gateway.answers import ProblemDocument, example_of
from gateway.api.operations import Operation, Parameter, Reply
from gateway.problems import TITLES
from node.version import VERSION

DOCUMENT: web.AppKey[bytes] = web.AppKey("openapi")
PAGE: web.AppKey[str] = web.AppKey("docs")

_Wanted = tuple[type[BaseModel], Literal["validation", "serialization"]]
_Schemas = Mapping[Any, Mapping[str, Any]]

_REFERENCE = "#/components/schemas/{model}"
_TAGS = {
    "votes": "Ballots: one or many, what became of them, the tally, and checks of the whole chain.",
    "elections": "What is voted on.",
    "anchors": "Merkle roots of product batches, and checks of them.",
    "logs": "The RFC 6962 logs behind both, and receipts that anyone can check offline.",
    "admin": "How the validators are.",
    "operation": "For whoever watches the process.",
}
_WAIT = Parameter(
    "Prefer",
    {"type": "string"},
    "wait=5",
    "`wait=SECONDS`: how long the answer may wait for finality; others are ignored (RFC 7240)",
    where="header",
)
_PROBLEM_TEXTS = {
    400: "The request cannot be read.",
    401: "An API key is needed.",
    403: "This is not allowed.",
    404: "There is no such thing.",
    408: "The body did not arrive in time.",
    409: "Something else stands already.",
    413: "The body is too large.",
    415: "The body is not sent as `application/json`.",
    422: "A value is not valid; `detail` names it.",
    429: "Too many requests; `Retry-After` says when to come again.",
    503: "No validator can answer this now, or nothing can be kept.",
}
_CODES = {
    400: ("not-json", "The body is not JSON: unexpected end of data."),
    401: ("no-api-key", "This needs an API key: `Authorization: Bearer KEY`, or `X-API-Key`."),
    403: ("scope-missing", "This API key has not the scope 'vote'."),
    404: ("unknown-election", "There is no election 7."),
    408: ("slow-body", "The body did not arrive within 8 s."),
    409: ("already-cast", "This voter has cast another ballot in this election; the first one stands."),
    413: ("request-entity-too-large", "Request Entity Too Large: POST /api/votes/submit."),
    415: ("not-json-type", "The Content-Type is 'text/plain'; expected application/json."),
    422: ("not-valid", "The body is not valid: election_id: Field required."),
    429: ("too-many-requests", "This client comes too often."),
    503: ("no-validator", "No validator can answer this now: no validator answers."),
}


def openapi(operations: Iterable[Operation], *, body_bytes_max: int) -> dict[str, Any]:
    """The document."""
    operations = tuple(operations)
    replies = [reply for one in operations for reply in one.replies.values()]
    models: list[type[BaseModel]] = [reply.model for reply in replies if not isinstance(reply.model, Mapping)]
    bodies = [one.body for one in operations if one.body is not None]
    models.append(ProblemDocument)
    out: list[_Wanted] = [(model, "serialization") for model in dict.fromkeys(models)]
    taken: list[_Wanted] = [(model, "validation") for model in dict.fromkeys(bodies)]
    keys, components = models_json_schema([*out, *taken], ref_template=_REFERENCE)
    schemas: _Schemas = {model: schema for (model, _), schema in keys.items()}
    paths: dict[str, dict[str, Any]] = {}
    for one in operations:
        paths.setdefault(one.path, {})[one.method.lower()] = _operation(one, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Psephos gateway",
            "version": VERSION,
            "description": "Ballots and Merkle anchors that are final in well under a second. Acknowledged means "
            "durable; `confirmed` and `completed` are said only of what this gateway has itself proven to be in "
            f"a final block. Errors are RFC 9457 problem documents. A body has at most {body_bytes_max} bytes.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": components["$defs"],
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }


def _operation(one: Operation, schemas: _Schemas) -> dict[str, Any]:
    parameters = [_parameter(parameter) for parameter in (*one.parameters, *((_WAIT,) if one.waits else ()))]
    summary, _, rest = one.text.partition(". ")
    scope = "" if one.need == "open" else f" Needs the scope `{one.need}` where the gateway asks for API keys."
    shown: dict[str, Any] = {
        "operationId": one.name,
        "tags": [one.tag],
        "summary": summary.rstrip("."),
        "description": (rest + scope).strip() or summary,
        "responses": {},
    }
    if one.need != "open":
        shown["security"] = [{"bearer": []}, {"apiKey": []}, {}]
    if parameters:
        shown["parameters"] = parameters
    if one.body is not None:
        content = {"schema": schemas[one.body], "example": dict(one.body_example or {})}
        shown["requestBody"] = {"required": True, "content": {"application/json": content}}
    for status, reply in sorted(one.replies.items()):
        shown["responses"][str(status)] = _reply(reply, schemas)
    guards = (403, *((401, 429) if one.need != "open" else ()), *((415,) if one.method == "POST" else ()))
    for status in (400, *one.problems, *guards):  # 400: any request can be unreadable
        problem = _problem(status, schemas)
        known = shown["responses"].setdefault(str(status), problem)
        known["content"] |= problem["content"]
    shown["responses"] = dict(sorted(shown["responses"].items()))
    return shown


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.where,
        "required": parameter.required,
        "description": parameter.text,
        "schema": dict(parameter.schema),
        "example": parameter.example,
    }


def _headers(**more: Any) -> dict[str, Any]:
    return {
        "X-Request-Id": {"schema": {"type": "string"}, "required": True, "description": "the caller's, or made"}
    } | more


def _reply(reply: Reply, schemas: _Schemas) -> dict[str, Any]:
    schema = reply.model if isinstance(reply.model, Mapping) else schemas[reply.model]
    content: dict[str, Any] = {"schema": dict(schema)}
    if reply.shown is not None:
        content["example"] = reply.shown
    return {"description": reply.text, "headers": _headers(), "content": {reply.media_type: content}}


def _problem(status: int, schemas: _Schemas) -> dict[str, Any]:
    code, detail = _CODES[status]
    example = example_of(
        ProblemDocument,
        type=f"urn:psephos:problem:{code}",
        title=TITLES[status],
        status=status,
        detail=detail,
        code=code,
    )
    headers = _headers()
    if status == 429:
        headers["Retry-After"] = {"schema": {"type": "integer"}, "required": True, "description": "seconds"}
    if status == 401:
        headers["WWW-Authenticate"] = {"schema": {"type": "string"}, "required": True, "description": "Bearer"}
    content = {"application/problem+json": {"schema": dict(schemas[ProblemDocument]), "example": example}}
    return {"description": _PROBLEM_TEXTS[status], "headers": headers, "content": content}


async def openapi_json(request: web.Request) -> web.Response:
    """This API, as OpenAPI 3.1."""
    return web.Response(body=request.app[DOCUMENT], content_type="application/json")


async def docs(request: web.Request) -> web.Response:
    """This API, as a page for people. It loads nothing from anywhere."""
    return web.Response(text=request.app[PAGE], content_type="text/html", headers={"Content-Security-Policy": _POLICY})


_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

OPERATIONS = (
    Operation(
        "GET",
        "/openapi.json",
        openapi_json,
        "open",
        "operation",
        {200: Reply({"type": "object"}, "The document.", example={"openapi": "3.1.0"})},
    ),
    Operation(
        "GET",
        "/docs",
        docs,
        "open",
        "operation",
        {200: Reply({"type": "string"}, "The page.", media_type="text/html", example="<!doctype html>")},
    ),
)

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;
max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1c2733;background:#fff}
h1{margin-bottom:0}h2{border-bottom:2px solid #d8dee6;margin-top:3rem}details{border:1px solid #d8dee6;
border-radius:6px;
margin:.6rem 0;padding:.3rem .8rem}summary{cursor:pointer;padding:.3rem 0}pre{background:#f3f5f8;padding:.8rem;
overflow:auto;border-radius:4px;font-size:13px}code{font-family:ui-monospace,monospace}table{border-collapse:collapse}
td,th{border:1px solid #d8dee6;padding:.2rem .6rem;text-align:left;font-size:14px}.m{display:inline-block;
min-width:3.6rem;
font-weight:700}.GET{color:#0b6b3a}.POST{color:#8a4b00}@media(prefers-color-scheme:dark){body{
background:#11161c;color:#d8dee6}pre{background:#1b232c}details,td,th,h2{border-color:#33404d}.GET{color:#5fd39a}.POST{color:#f0b060}}
"""


def page(document: Mapping[str, Any]) -> str:
    """The document as one HTML page with its style in it and no script."""
    parts = [f"<h1>{_text(document['info']['title'])} {_text(document['info']['version'])}</h1>"]
    parts.append(f"<p>{_marked(document['info']['description'])}</p>")
    parts.append('<p>For programs: <a href="openapi.json">openapi.json</a>.</p>')
    for tag in document["tags"]:
        parts.append(f"<h2>{_text(tag['name'])}</h2><p>{_marked(tag['description'])}</p>")
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                if tag["name"] in operation["tags"]:
                    parts.append(_operation_html(method.upper(), path, operation))
    body = "\n".join(parts)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{_text(document['info']['title'])}</title><style>{_STYLE}</style></head><body>{body}</body></html>"
    )


def _operation_html(method: str, path: str, operation: Mapping[str, Any]) -> str:
    parts = [f"<p>{_marked(operation['description'])}</p>"]
    if parameters := operation.get("parameters"):
        rows = "".join(
            f"<tr><td><code>{_text(one['name'])}</code></td><td>{_text(one['in'])}{', required' * one['required']}</td>"
            f"<td>{_marked(one['description'])}</td><td><code>{_text(str(one['example']))}</code></td></tr>"
            for one in parameters
        )
        parts.append(f"<table><tr><th>parameter</th><th>in</th><th>what</th><th>example</th></tr>{rows}</table>")
    if "requestBody" in operation:
        parts.append("<p>Request</p>" + _json(operation["requestBody"]["content"]["application/json"]["example"]))
    for status, reply in operation["responses"].items():
        for media_type, content in reply["content"].items():
            words = f"<p><b>{status}</b> {_marked(reply['description'])} <code>{_text(media_type)}</code></p>"
            parts.append(words + (_json(content["example"]) if "example" in content else ""))
    head = f'<span class="m {method}">{method}</span> <code>{_text(path)}</code> {_marked(operation["summary"])}'
    return f"<details><summary>{head}</summary>{''.join(parts)}</details>"


def _json(value: object) -> str:
    return f"<pre>{_text(json.dumps(value, indent=2, ensure_ascii=False))}</pre>"


def _text(value: str) -> str:
    return html.escape(value)


def _marked(value: str) -> str:
    """Text with its `code` marked."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", _text(value))
