"""Writes proto/openapi.json: the HTTP side of docs/PROTOCOL.md as OpenAPI 3.1.

An endpoint is one entry of PATHS; what is described and not served yet stands in LATER and is left out of the file. Tests compare the file
with this script, and with the routes of the server.

    python3 proto/openapi.py
"""

import json
from pathlib import Path

# Described below, and not served yet: a line goes when its route comes.
LATER: set[tuple[str, str]] = set()

# ---- schemas, in few words

STRING = {"type": "string"}
BOOLEAN = {"type": "boolean"}
INTEGER = {"type": "integer", "minimum": 0}
ANY = {}


def ref(name: str) -> dict:
    return {"$ref": f"#/components/schemas/{name}"}


def one(*values: str) -> dict:
    return {"const": values[0]} if len(values) == 1 else {"enum": list(values)}


def number(low: float, high: float) -> dict:
    return {"type": "number", "minimum": low, "maximum": high}


def integer(low: int, high: int) -> dict:
    return {"type": "integer", "minimum": low, "maximum": high}


def array(items: dict) -> dict:
    return {"type": "array", "items": items}


def nullable(schema: dict) -> dict:
    if isinstance(schema.get("type"), str) and "enum" not in schema:
        return {**schema, "type": [schema["type"], "null"]}
    return {"anyOf": [schema, {"type": "null"}]}


def record(fields: dict, optional: dict | None = None, **more: object) -> dict:
    """An object whose `fields` are always there. Others may come, now or later."""
    return {"type": "object", "properties": {**fields, **(optional or {})}, "required": list(fields), **more}


def union(*names: str) -> dict:
    return {"oneOf": [ref(name) for name in names]}


CHILD_MORE = {"id": STRING, "tier": one("latency", "throughput"), "error": record({"code": STRING, "message": STRING})}
STATUS = one("in_progress", "completed", "incomplete")
METADATA = {"type": "object", "additionalProperties": STRING}

ERRORS = {
    "Error": record(
        {"error": record({"message": STRING, "type": STRING, "param": nullable(STRING), "code": nullable(STRING)})},
        description="Clause 4 of docs/PROTOCOL.md lists types and codes.",
    )
}

OUTPUT = {
    "OutputText": record({"type": one("output_text"), "text": STRING, "annotations": array(ANY)}, {"logprobs": array(ANY)}),
    "Refusal": record({"type": one("refusal"), "refusal": STRING}),
    "ReasoningText": record({"type": one("reasoning_text"), "text": STRING}),
    "OutputMessage": record(
        {
            "id": STRING,
            "type": one("message"),
            "role": one("assistant"),
            "status": STATUS,
            "content": array({"oneOf": [ref("OutputText"), ref("Refusal")]}),
        },
        # The result of a child.
        {"flashlane": record({"child": record({"name": STRING, "model": STRING, "status": one("completed", "incomplete", "failed", "cancelled")}, CHILD_MORE)})},
    ),
    "Reasoning": record(
        {"id": STRING, "type": one("reasoning"), "summary": array(ANY)},
        {"content": array(ref("ReasoningText")), "encrypted_content": nullable(STRING), "status": STATUS},
    ),
    "FunctionCall": record(
        {"id": STRING, "type": one("function_call"), "call_id": STRING, "name": STRING, "arguments": STRING, "status": STATUS},
        {"namespace": nullable(STRING)},
    ),
    "CustomToolCall": record(
        {"id": STRING, "type": one("custom_tool_call"), "call_id": STRING, "name": STRING, "input": STRING},
        {"status": STATUS, "namespace": nullable(STRING)},
    ),
    "Compaction": record({"id": STRING, "type": one("compaction"), "encrypted_content": STRING}),
    "OutputItem": union("OutputMessage", "Reasoning", "FunctionCall", "CustomToolCall", "Compaction"),
    "Usage": record(
        {
            "input_tokens": INTEGER,
            "input_tokens_details": record({"cached_tokens": INTEGER, "cache_write_tokens": INTEGER}),
            "output_tokens": INTEGER,
            "output_tokens_details": record({"reasoning_tokens": INTEGER}),
            "total_tokens": INTEGER,
        }
    ),
    "Response": record(
        {
            "id": {"type": "string", "pattern": "^resp_[0-9a-f]{32}$"},
            "object": one("response"),
            "created_at": INTEGER,
            "status": one("queued", "in_progress", "completed", "incomplete", "failed", "cancelled"),
            "error": nullable(record({"code": STRING, "message": STRING})),
            "incomplete_details": nullable(record({"reason": one("max_output_tokens", "content_filter", "interrupted", "steered")})),
            "completed_at": nullable(INTEGER),
            "output": array(ref("OutputItem")),
            "usage": nullable(ref("Usage")),
            "service_tier": one("auto", "priority", "default"),
            "background": BOOLEAN,
            "frequency_penalty": number(-2, 2),
            "instructions": nullable(STRING),
            "max_output_tokens": nullable(INTEGER),
            "max_tool_calls": nullable(INTEGER),
            "metadata": METADATA,
            "model": STRING,
            "parallel_tool_calls": BOOLEAN,
            "presence_penalty": number(-2, 2),
            "previous_response_id": nullable(STRING),
            "prompt_cache_key": nullable(STRING),
            "prompt_cache_retention": ANY,
            "reasoning": record({"effort": nullable(STRING), "summary": ANY}),
            "safety_identifier": nullable(STRING),
            "store": BOOLEAN,
            "temperature": number(0, 2),
            "text": record({"format": record({"type": one("text", "json_object", "json_schema")})}),
            "tool_choice": {"oneOf": [STRING, {"type": "object"}]},
            "tools": array({"type": "object"}),
            "top_logprobs": integer(0, 20),
            "top_p": number(0, 1),
            "truncation": one("auto", "disabled"),
            "user": nullable(STRING),
        },
        {"conversation": record({"id": STRING}), "flashlane": record({}, {"child": record({"name": STRING, "parent": STRING})})},
    ),
}

CONTENT = {
    "oneOf": [
        STRING,
        array(
            {
                "oneOf": [
                    record({"type": one("input_text", "output_text"), "text": STRING}),
                    record({"type": one("refusal"), "refusal": STRING}),
                    record({"type": one("input_image"), "image_url": STRING}, {"detail": nullable(STRING)}),
                    record({"type": one("input_file")}, {name: nullable(STRING) for name in ("file_data", "file_id", "file_url", "filename")}),
                ]
            }
        ),
    ]
}
CALL = {"call_id": STRING, "name": STRING}

INPUT = {
    "InputMessage": record({"role": one("user", "assistant", "system", "developer"), "content": CONTENT}, {"type": one("message"), "id": STRING}),
    "InputFunctionCall": record({"type": one("function_call"), **CALL, "arguments": STRING}),
    "InputCustomToolCall": record({"type": one("custom_tool_call"), **CALL, "input": STRING}),
    "CallOutput": record({"type": one("function_call_output", "custom_tool_call_output"), "call_id": STRING, "output": CONTENT}),
    "ItemReference": record({"id": STRING}, {"type": one("item_reference")}),
    "InputCompaction": record({"type": one("compaction"), "encrypted_content": STRING}, {"id": nullable(STRING)}),
    "InputItem": {
        "anyOf": [ref(name) for name in ("InputMessage", "InputFunctionCall", "InputCustomToolCall", "CallOutput", "ItemReference", "InputCompaction")]
        + [record({"type": STRING}, description="Clause 5.1 of docs/PROTOCOL.md lists the others, and what becomes of them.")]
    },
    "FunctionTool": record({"type": one("function"), "name": STRING}, {"description": nullable(STRING), "parameters": nullable({"type": "object"}), "strict": nullable(BOOLEAN)}),
    "CustomTool": record({"type": one("custom"), "name": STRING}, {"description": nullable(STRING), "format": nullable({"type": "object"})}),
    "NamespaceTool": record({"type": one("namespace"), "name": STRING}, {"tools": nullable(array({"anyOf": [ref("FunctionTool"), ref("CustomTool"), record({"type": STRING})]})), "description": ANY}),
    "HostedTool": record({"type": {"type": "string", "not": one("function", "custom", "namespace")}}, description="Accepted and not forwarded."),
    "Tool": union("FunctionTool", "CustomTool", "NamespaceTool", "HostedTool"),
    "ToolChoice": {
        "oneOf": [
            one("auto", "none", "required"),
            record({"type": one("function", "custom"), "name": STRING}),
            record({"type": one("allowed_tools"), "tools": array({"type": "object"})}, {"mode": nullable(one("auto", "required"))}),
        ]
    },
    "TextFormat": {
        "oneOf": [
            record({"type": one("text", "json_object")}),
            record({"type": one("json_schema"), "name": STRING, "schema": {"type": "object"}}, {"strict": nullable(BOOLEAN), "description": nullable(STRING)}),
        ]
    },
}

# Fields that a request for a response and one for a count or a compaction have in common.
PROMPT = {
    "model": STRING,
    "input": {"oneOf": [STRING, array(ref("InputItem"))]},
    "instructions": nullable(STRING),
    "previous_response_id": nullable(STRING),
}
TOOLS = {"tools": nullable(array(ref("Tool"))), "tool_choice": nullable(ref("ToolChoice")), "parallel_tool_calls": nullable(BOOLEAN)}
SETTINGS = {
    "reasoning": nullable(record({}, {"effort": nullable(one("none", "minimal", "low", "medium", "high", "xhigh", "max")), "summary": ANY})),
    "text": nullable(record({}, {"format": nullable(ref("TextFormat")), "verbosity": nullable(one("low", "medium", "high"))})),
    "truncation": nullable(one("auto", "disabled")),
}

CHILD = record(
    {"name": {"type": "string", "pattern": "^[A-Za-z0-9_.-]{1,64}$"}, "input": PROMPT["input"]},
    {
        "model": nullable(STRING),
        "tier": nullable(one("latency", "throughput")),
        "instructions": nullable(STRING),
        "reasoning": nullable(record({}, {"effort": SETTINGS["reasoning"]["properties"]["effort"]}, additionalProperties=False)),
        "max_output_tokens": nullable(integer(1, 16_777_216)),
    },
    additionalProperties=False,
)

REQUESTS = {
    "Child": CHILD,
    "Flashlane": record(
        {},
        {"delegate": nullable(array(ref("Child"))), "fan_out": nullable(array(ref("Child")))},
        additionalProperties=False,
        description="Children of the response: clause 14 of docs/PROTOCOL.md. Refused where the server runs none.",
    ),
    "CreateResponse": record(
        {"model": PROMPT["model"], "input": PROMPT["input"]},
        {
            "instructions": PROMPT["instructions"],
            "previous_response_id": PROMPT["previous_response_id"],
            "conversation": nullable({"oneOf": [STRING, record({"id": STRING})]}),
            **TOOLS,
            **SETTINGS,
            "context_management": nullable(array(record({"type": one("compaction")}, {"compact_threshold": nullable(integer(1, 16_777_216))}))),
            "stream": nullable(BOOLEAN),
            "store": nullable(BOOLEAN),
            "max_output_tokens": nullable(integer(1, 16_777_216)),
            "temperature": nullable(number(0, 2)),
            "top_p": nullable(number(0, 1)),
            "presence_penalty": nullable(number(-2, 2)),
            "frequency_penalty": nullable(number(-2, 2)),
            "top_logprobs": nullable(integer(0, 20)),
            "max_tool_calls": nullable(INTEGER),
            "metadata": nullable(METADATA),
            "service_tier": nullable(one("auto", "default", "flex", "priority", "fast", "ultrafast", "scale")),
            "include": nullable(array(STRING)),
            "prompt_cache_key": nullable(STRING),
            "safety_identifier": nullable(STRING),
            "user": nullable(STRING),
            "flashlane": nullable(ref("Flashlane")),
        },
        description="Clause 5 of docs/PROTOCOL.md says what becomes of each field. Unknown fields are ignored.",
    ),
    "CountInput": record({"model": PROMPT["model"], "input": ANY}, description="The body of `POST /v1/responses`; only its length is looked at."),
    "Compact": record({"model": PROMPT["model"]}, {name: PROMPT[name] for name in ("input", "instructions", "previous_response_id")}),
    "CreateConversation": record({}, {"items": nullable(array(ref("InputItem"))), "metadata": nullable(METADATA)}),
    "UpdateConversation": record({"metadata": METADATA}),
    "CreateItems": record({"items": array(ref("InputItem"))}),
    "CreateChatCompletion": record(
        {
            "model": STRING,
            "messages": {**array(record({"role": one("system", "developer", "user", "assistant", "tool", "function")}, {"content": ANY})), "minItems": 1},
        },
        {
            "stream": nullable(BOOLEAN),
            "stream_options": nullable(record({}, {"include_usage": nullable(BOOLEAN)})),
            "max_tokens": nullable(integer(0, 4_294_967_295)),
            "max_completion_tokens": nullable(integer(0, 4_294_967_295)),
            "n": nullable(integer(1, 128)),
            "temperature": nullable(number(0, 2)),
            "top_p": nullable(number(0, 1)),
            "presence_penalty": nullable(number(-2, 2)),
            "frequency_penalty": nullable(number(-2, 2)),
            "tools": nullable(array(ANY)),
            "service_tier": nullable(STRING),
            "prompt_cache_key": nullable(STRING),
        },
        description="Every other field goes to the engine as it is.",
    ),
}

COUNT = {"prompt_tokens": INTEGER, "completion_tokens": INTEGER, "total_tokens": INTEGER}
ANSWERS = {
    "ChatCompletion": record(
        {
            "id": STRING,
            "object": one("chat.completion"),
            "created": INTEGER,
            "model": STRING,
            "choices": array(record({"index": INTEGER, "finish_reason": STRING, "message": record({"role": one("assistant"), "content": nullable(STRING)})})),
            "usage": record(COUNT),
        }
    ),
    "ChatCompletionChunk": record(
        {
            "id": STRING,
            "object": one("chat.completion.chunk"),
            "created": INTEGER,
            "model": STRING,
            "choices": array(record({"index": INTEGER, "delta": record({}), "finish_reason": nullable(STRING)})),
        },
        {"usage": nullable(record(COUNT))},
    ),
    "ChatEvent": union("ChatCompletionChunk", "Error"),
    "Model": record({"id": STRING, "object": one("model"), "created": INTEGER, "owned_by": one("flashlane", "simulator")}),
    "ModelList": record({"object": one("list"), "data": array(ref("Model"))}),
    "CodexCatalog": record({"models": array(record({"slug": STRING, "display_name": STRING, "context_window": INTEGER}))}),
    "DeletedResponse": record({"id": STRING, "object": one("response.deleted"), "deleted": one(True)}),
    "ItemList": record({"object": one("list"), "data": array(record({"id": STRING, "type": STRING})), "first_id": nullable(STRING), "last_id": nullable(STRING), "has_more": BOOLEAN}),
    "ChildList": record(
        {
            "object": one("list"),
            "data": array(
                record(
                    {
                        "id": STRING,
                        "object": one("response.child"),
                        "name": STRING,
                        "model": STRING,
                        "parent": STRING,
                        "status": one("in_progress", "completed", "incomplete", "failed", "cancelled"),
                        "created_at": INTEGER,
                        "error": nullable(record({"code": STRING, "message": STRING})),
                    }
                )
            ),
            "has_more": BOOLEAN,
        }
    ),
    "CountedInput": record({"object": one("response.input_tokens"), "input_tokens": INTEGER}),
    "CompactedResponse": record({"id": STRING, "object": one("response.compaction"), "created_at": INTEGER, "output": array(record({"type": STRING})), "usage": ref("Usage")}),
    "Conversation": record({"id": STRING, "object": one("conversation"), "created_at": INTEGER, "metadata": METADATA}),
    "DeletedConversation": record({"id": STRING, "object": one("conversation.deleted"), "deleted": one(True)}),
    "Item": record({"id": STRING, "type": STRING}),
}

# ---- events of a stream: clause 2 of docs/PROTOCOL.md

ITEM_PLACE = {"item_id": STRING, "output_index": INTEGER}
PART_PLACE = {**ITEM_PLACE, "content_index": INTEGER}
PART = {"part": {"oneOf": [ref("OutputText"), ref("Refusal"), ref("ReasoningText")]}}
NO_LOGPROBS = {"logprobs": {"type": "array", "maxItems": 0}}

EVENTS = {
    **{f"response.{phase}": {"response": ref("Response")} for phase in ("created", "queued", "in_progress", "completed", "incomplete", "failed")},
    "response.output_item.added": {"output_index": INTEGER, "item": ref("OutputItem")},
    "response.compaction.compacting": ITEM_PLACE,
    "response.output_item.done": {"output_index": INTEGER, "item": ref("OutputItem")},
    "response.content_part.added": {**PART_PLACE, **PART},
    "response.content_part.done": {**PART_PLACE, **PART},
    "response.output_text.delta": {**PART_PLACE, "delta": STRING, **NO_LOGPROBS},
    "response.output_text.done": {**PART_PLACE, "text": STRING, **NO_LOGPROBS},
    "response.refusal.delta": {**PART_PLACE, "delta": STRING},
    "response.refusal.done": {**PART_PLACE, "refusal": STRING},
    "response.reasoning_text.delta": {**PART_PLACE, "delta": STRING},
    "response.reasoning_text.done": {**PART_PLACE, "text": STRING},
    "response.function_call_arguments.delta": {**ITEM_PLACE, "delta": STRING},
    "response.function_call_arguments.done": {**ITEM_PLACE, "arguments": STRING, "name": STRING},
    "response.custom_tool_call_input.delta": {**ITEM_PLACE, "delta": STRING},
    "response.custom_tool_call_input.done": {**ITEM_PLACE, "input": STRING},
}


def schema_name(event: str) -> str:
    """`response.output_text.delta` as `OutputTextDeltaEvent`."""
    return "".join(word.title() for word in event.removeprefix("response.").replace(".", "_").split("_")) + "Event"


STREAM = {schema_name(kind): record({"type": one(kind), "sequence_number": INTEGER, **fields}) for kind, fields in EVENTS.items()}
STREAM["KeepaliveEvent"] = record({"type": one("keepalive")})
STREAM["StreamEvent"] = union(*STREAM)

# ---- endpoints

HEADERS = {
    "x-request-id": {"schema": {"type": "string", "pattern": "^req_[0-9a-f]{32}$"}, "required": True},
    "openai-processing-ms": {"schema": STRING, "required": True},
}
# What may answer any request, beside success.
ALWAYS = {
    400: "The request is wrong: `param` names where",
    403: "A web page of another site, or a host name that is not this server's",
    500: "A fault of the server",
}
BODY = {413: "The body is too large", 415: "The body is compressed"}
TURN = {
    404: "No such model",
    429: "The endpoint is at its rate limit, or this client has too much waiting",
    502: "The upstream failed",
    503: "No endpoint can take it, or the server drains",
    504: "The upstream was silent",
}


def streamed(event: str, fields: dict) -> dict:
    """An event stream; its schema is that of one event, the last of which is `data: [DONE]`."""
    data = {"type": "string", "contentMediaType": "application/json", "contentSchema": ref(event)}
    return {"text/event-stream": {"schema": {"anyOf": [record({"data": one("[DONE]")}), record({**fields, "data": data})]}}}


def answers(success: dict, errors: dict) -> dict:
    failed = {"content": {"application/json": {"schema": ref("Error")}}, "headers": HEADERS}
    return {**success, **{str(status): {"description": why, **failed} for status, why in sorted({**ALWAYS, **errors}.items())}}


def json_answer(schema: str | dict, content: dict | None = None) -> dict:
    schema = ref(schema) if isinstance(schema, str) else schema
    return {"200": {"description": "Success", "headers": HEADERS, "content": {"application/json": {"schema": schema}, **(content or {})}}}


def operation(name: str, summary: str, responses: dict, body: str | None = None, parameters: list | None = None) -> dict:
    said: dict = {"operationId": name, "summary": summary, "tags": [name.split(".")[0]]}
    if parameters:
        said["parameters"] = parameters
    if body:
        # A conversation may begin with nothing.
        said["requestBody"] = {"required": body != "CreateConversation", "content": {"application/json": {"schema": ref(body)}}}
    return {**said, "responses": responses}


def in_path(name: str) -> dict:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}


def in_query(name: str, schema: dict) -> dict:
    return {"name": name, "in": "query", "schema": schema}


PAGE = [in_query("after", STRING), in_query("limit", integer(1, 100)), in_query("order", one("asc", "desc")), in_query("include[]", array(STRING))]
RESPONSE_ID, CONVERSATION_ID, ITEM_ID = in_path("response_id"), in_path("conversation_id"), in_path("item_id")
NO_SUCH = {404: "No such id, or another key's"}

PATHS = {
    "/v1/responses": {
        "post": operation(
            "responses.create", "One response, as JSON or as an event stream", answers(json_answer("Response", streamed("StreamEvent", {"event": STRING})), {**BODY, **TURN}), "CreateResponse"
        ),
        "get": operation(
            "responses.connect",
            "WebSocket mode: clause 3 of docs/PROTOCOL.md",
            answers({"101": {"description": "The connection is a WebSocket"}}, {405: "No upgrade was asked for", 426: "Another version of the protocol, or WebSockets are off"}),
        ),
    },
    "/v1/responses/{response_id}": {
        "get": operation(
            "responses.retrieve",
            "A stored response, or the rest of its stream",
            answers(json_answer("Response", streamed("StreamEvent", {"event": STRING})), NO_SUCH),
            parameters=[
                RESPONSE_ID,
                in_query("stream", BOOLEAN),
                in_query("starting_after", INTEGER),
                in_query("include[]", array(STRING)),
                in_query("include_obfuscation", BOOLEAN),
            ],
        ),
        "delete": operation("responses.delete", "Forgets a stored response", answers(json_answer("DeletedResponse"), NO_SUCH), parameters=[RESPONSE_ID]),
    },
    "/v1/responses/{response_id}/cancel": {
        "post": operation("responses.cancel", "Ends a background response", answers(json_answer("Response"), NO_SUCH), parameters=[RESPONSE_ID])
    },
    "/v1/responses/{response_id}/input_items": {
        "get": operation("responses.input_items", "The input of a stored response", answers(json_answer("ItemList"), NO_SUCH), parameters=[RESPONSE_ID, *PAGE])
    },
    "/v1/responses/{response_id}/children": {
        "get": operation("responses.children", "The children of a response", answers(json_answer("ChildList"), NO_SUCH), parameters=[RESPONSE_ID])
    },
    "/v1/responses/compact": {
        "post": operation("responses.compact", "A conversation in fewer tokens", answers(json_answer("CompactedResponse"), {**BODY, **TURN}), "Compact")
    },
    "/v1/responses/input_tokens": {
        "post": operation("responses.input_tokens", "What an input comes to", answers(json_answer("CountedInput"), {**BODY, 404: TURN[404]}), "CountInput")
    },
    "/v1/conversations": {
        "post": operation("conversations.create", "Begins a conversation", answers(json_answer("Conversation"), BODY), "CreateConversation")
    },
    "/v1/conversations/{conversation_id}": {
        "get": operation("conversations.retrieve", "A conversation", answers(json_answer("Conversation"), NO_SUCH), parameters=[CONVERSATION_ID]),
        "post": operation(
            "conversations.update", "Replaces its metadata", answers(json_answer("Conversation"), {**NO_SUCH, **BODY}), "UpdateConversation", [CONVERSATION_ID]
        ),
        "delete": operation("conversations.delete", "Forgets a conversation", answers(json_answer("DeletedConversation"), NO_SUCH), parameters=[CONVERSATION_ID]),
    },
    "/v1/conversations/{conversation_id}/items": {
        "get": operation("conversations.items.list", "Its items", answers(json_answer("ItemList"), NO_SUCH), parameters=[CONVERSATION_ID, *PAGE]),
        "post": operation("conversations.items.create", "Adds items", answers(json_answer("ItemList"), {**NO_SUCH, **BODY}), "CreateItems", [CONVERSATION_ID]),
    },
    "/v1/conversations/{conversation_id}/items/{item_id}": {
        "get": operation("conversations.items.retrieve", "One item", answers(json_answer("Item"), NO_SUCH), parameters=[CONVERSATION_ID, ITEM_ID]),
        "delete": operation("conversations.items.delete", "Forgets an item", answers(json_answer("Conversation"), NO_SUCH), parameters=[CONVERSATION_ID, ITEM_ID]),
    },
    "/v1/chat/completions": {
        "post": operation(
            "chat.completions.create",
            "One chat completion, as JSON or as an event stream",
            answers(json_answer("ChatCompletion", streamed("ChatEvent", {})), {**BODY, **TURN}),
            "CreateChatCompletion",
        )
    },
    "/v1/models": {
        "get": operation(
            "models.list",
            "What this server offers; with `client_version`, as Codex's catalog",
            answers(json_answer({"oneOf": [ref("ModelList"), ref("CodexCatalog")]}), {}),
            parameters=[in_query("client_version", STRING)],
        )
    },
    "/v1/models/{id}": {
        "get": operation("models.retrieve", "One model; an id may have slashes in it", answers(json_answer("Model"), {404: "No such model"}), parameters=[in_path("id")])
    },
}


def served() -> dict:
    paths = {path: {method: said for method, said in methods.items() if (method, path) not in LATER} for path, methods in PATHS.items()}
    return {path: methods for path, methods in paths.items() if methods}


def description() -> dict:
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "flashlane",
            "version": "1",
            "description": "OpenAI's Responses API and Chat Completions, as docs/PROTOCOL.md says.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "http://127.0.0.1:8700"}],
        "security": [{}, {"bearer": []}],
        "paths": served(),
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            "schemas": {**ERRORS, **OUTPUT, **INPUT, **REQUESTS, **ANSWERS, **STREAM},
        },
    }


def text() -> str:
    return json.dumps(description(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    Path(__file__).with_name("openapi.json").write_text(text())
