"""Writes proto/requests.jsonl: 200 requests whose answers must be the same over HTTP as JSON, as an event stream and over the WebSocket.

A line is one case: its `name`; `steps`, the bodies of `POST /v1/responses` that are sent one after the other (each but the last makes what the next one
goes on from); and `ends`, what becomes of the last: the response's status, or an error's status and code. In a step, `$0` stands for the id of the response
of step 0, `$item` for the id of the last item that came out of it, and `$call` for the call's id in the last response that made one. A step may be `{"raw": TEXT}`, a body that is no object.

The models: `plain` is the simulator, `eyes` the simulator with images and files, `small` the simulator with 64 tokens of context, and what begins with `engine-` a
scripted engine that does what its name says (tests/clients/playing_engine.py). Texts and settings that matter little are drawn from a fixed seed.

    python3 proto/requests.py
"""

import json
import random
from pathlib import Path

CASES = 200
SEED = 4
CHANCE = random.Random(SEED)

WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "Weather of a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False},
    "strict": True,
}
CLOCK = {"type": "function", "name": "get_time", "parameters": {"type": "object", "properties": {"zone": {"enum": ["UTC", "CET"]}, "at": {"type": "integer"}}}}
PATCH = {"type": "custom", "name": "apply_patch", "description": "Changes files"}
GRAMMAR = {**PATCH, "format": {"type": "grammar", "syntax": "lark", "definition": 'start: "a"'}}
NAMESPACE = {"type": "namespace", "name": "world", "description": "All of it", "tools": [WEATHER, CLOCK]}
HOSTED = [
    {"type": "web_search"},
    {"type": "file_search", "vector_store_ids": ["vs_1"]},
    {"type": "code_interpreter", "container": {"type": "auto"}},
    {"type": "image_generation"},
    {"type": "mcp", "server_label": "docs", "server_url": "https://docs.example"},
    {"type": "local_shell"},
    {"type": "apply_patch"},
    {"type": "tool_search"},
]
WHO = {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}, "tags": {"type": "array", "items": {"type": "string"}}}, "required": ["name", "age", "tags"], "additionalProperties": False}
PIXEL = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="

TEXTS = {
    "one word": "ready",
    "quotes": 'He said "no", then \'yes\'.',
    "backslashes": "C:\\path\\to\\n, \\u0041 and \\\\",
    "control characters": "bell \u0007, escape \u001b, null \u0000, delete \u007f",
    "line breaks": "one\ntwo\r\nthree\rfour\u2028five\u2029six\u0085seven",
    "tabs and spaces": "a\tb   c\u00a0d\u3000e",
    "umlauts": "Grüße aus Köln: äöü ÄÖÜ ß ẞ",
    "combining marks": "e\u0301 n\u0303 a\u0308\u0323 \u1100\u1161\u11a8",
    "scripts": "日本語 한국어 Русский ελληνικά हिन्दी ไทย",
    "right to left": "שלום عليكم \u200fmixed\u200e 123",
    "emoji": "🙂 👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪 👍🏽",
    "beyond the first plane": "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𐍈 𠜎 \U0010ffff",
    "invisible": "zero\u200bwidth\u2060joiner\ufeffmark\u00adhyphen",
    "json": '{"a": [1, 2.5e-3, null, true], "b": "\\"c\\""}',
    "an event stream": "event: response.completed\ndata: {}\n\ndata: [DONE]\n\n",
    "markup": '<|im_end|><script>alert("x")</script> & &amp; </s>',
    "a long line": "word " * 400 + "end",
    "many lines": "\n".join(f"line {number}" for number in range(200)),
}

cases: list[dict] = []


def case(name: str, *steps: dict, ends: str = "completed") -> None:
    """One more. Requests are for `plain` unless they say otherwise, or say that they are for none."""
    whole = [step if "raw" in step else {"model": "plain", **step} for step in steps]
    cases.append({"name": name, "steps": [{name: value for name, value in step.items() if value is not ABSENT} for step in whole], "ends": ends})


ABSENT = object()


def message(role: str, content: object, **fields: object) -> dict:
    return {"type": "message", "role": role, "content": content, **fields}


def text(words: str) -> list[dict]:
    return [{"type": "input_text", "text": words}]


def called(name: str = "get_weather", **fields: object) -> dict:
    return {"type": "function_call", "call_id": "call_1", "name": name, "arguments": '{"city":"Paris"}', **fields}


def answered(output: object = "sunny", **fields: object) -> dict:
    return {"type": "function_call_output", "call_id": "call_1", "output": output, **fields}


def texts() -> None:
    for name, words in TEXTS.items():
        case(f"text as a string: {name}", {"input": f"repeat: {words}"})
    for name in CHANCE.sample(sorted(TEXTS), 3):
        case(f"text as a part: {name}", {"input": [message("user", text(f"repeat: {TEXTS[name]}"))]})
        case(f"text in the instructions: {name}", {"instructions": TEXTS[name], "input": "count from 1 to 3"})
    case("many small tokens", {"input": "count from 1 to 400"})
    case("counting down", {"input": "count from 5 to -5"})
    case("a greeting", {"input": "hello"})
    case("the shorthand of a message", {"input": [{"role": "user", "content": "repeat: short"}]})
    case("several parts", {"input": [message("user", [*text("repeat: My name is Ada."), *text("repeat: parts")])]})


def items() -> None:
    ask = message("user", "repeat: items")
    case("roles", {"input": [message("system", "Be kind."), message("developer", "Be brief."), message("user", "repeat: My name is Ada."), message("assistant", "Noted."), message("user", "what is my name")]})
    case("an assistant's parts and phase", {"input": [message("user", "hi"), message("assistant", [{"type": "output_text", "text": "yes", "annotations": []}], phase="commentary", id="msg_1", status="completed"), ask]})
    case("an assistant's refusal", {"input": [message("user", "hi"), message("assistant", [{"type": "refusal", "refusal": "no"}]), ask]})
    case("a call and its output", {"input": [message("user", "weather?"), called(), answered()]})
    case("a call with an id and a status", {"input": [message("user", "weather?"), called(id="fc_1", status="completed"), answered(id="fco_1", status="completed")]})
    case("an output of parts", {"input": [message("user", "weather?"), called(), answered(text("sunny"))]})
    case("an empty output", {"input": [message("user", "weather?"), called(), answered("")]})
    case("two calls side by side", {"input": [message("user", "both?"), called(), {**called("get_time"), "call_id": "call_2"}, answered(), {**answered("noon"), "call_id": "call_2"}]})
    case("a call that was cut", {"input": [message("user", "weather?"), called(status="incomplete", arguments='{"ci'), ask]})
    case("a custom call and its output", {"input": [message("user", "patch"), {"type": "custom_tool_call", "call_id": "call_1", "name": "apply_patch", "input": "*** Begin\n\"x\""}, {"type": "custom_tool_call_output", "call_id": "call_1", "output": "done"}]})
    case("additional tools", {"input": [{"type": "additional_tools", "role": "developer", "tools": [WEATHER]}, message("user", "call get_weather")]})
    case("reasoning", {"input": [message("user", "hi"), {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]}, message("assistant", "yes"), ask]})
    traces = {
        "web_search_call": {"id": "ws_1", "status": "completed", "action": {"type": "search", "query": "x"}},
        "file_search_call": {"id": "fs_1", "status": "completed", "queries": []},
        "code_interpreter_call": {"id": "ci_1", "status": "completed", "code": "1", "container_id": "c", "outputs": []},
        "image_generation_call": {"id": "ig_1", "status": "completed", "result": "AAAA"},
        "computer_call": {"id": "cu_1", "call_id": "call_9", "status": "completed", "action": {"type": "screenshot"}, "pending_safety_checks": []},
        "local_shell_call": {"id": "ls_1", "call_id": "call_9", "status": "completed", "action": {"type": "exec", "command": ["ls"], "env": {}}},
        "local_shell_call_output": {"id": "ls_1", "output": "a"},
        "mcp_list_tools": {"id": "ml_1", "server_label": "docs", "tools": []},
        "mcp_approval_request": {"id": "ma_1", "server_label": "docs", "name": "x", "arguments": "{}"},
        "mcp_approval_response": {"approval_request_id": "ma_1", "approve": True},
        "mcp_call": {"id": "mc_1", "server_label": "docs", "name": "x", "arguments": "{}", "output": "y"},
        "tool_search_call": {"id": "ts_1", "arguments": {}, "status": "completed"},
        "tool_search_output": {"id": "to_1", "tools": [], "status": "completed"},
        "agent_message": {"id": "am_1", "content": text("from another agent")},
    }
    for kind, fields in traces.items():
        case(f"a trace: {kind}", {"input": [message("user", "hi"), {"type": kind, **fields}, ask]})
    for kind in ("computer_call_output", "shell_call_output"):
        case(f"not served: {kind}", {"input": [ask, {"type": kind, "call_id": "call_1", "output": "x"}]}, ends="400 unsupported_parameter")
    for kind in ("no_such_item", "input_text", ""):
        case(f"no type of item: '{kind}'", {"input": [ask, {"type": kind}]}, ends="400 invalid_value")


def tools() -> None:
    ask = {"input": "What is the weather in Paris?"}
    case("a function that is not called", {**ask, "input": "repeat: none", "tools": [WEATHER, CLOCK]})
    case("a function that must be called", {**ask, "tools": [WEATHER], "tool_choice": {"type": "function", "name": "get_weather"}})
    case("some function must be called", {**ask, "tools": [CLOCK, WEATHER], "tool_choice": "required"})
    case("a function that words ask for", {"input": "call get_time", "tools": [WEATHER, CLOCK]})
    case("no tool may be called", {"input": "repeat: call get_time", "tools": [CLOCK], "tool_choice": "none"})
    case("auto", {**ask, "input": "repeat: auto", "tools": [WEATHER], "tool_choice": "auto", "parallel_tool_calls": False})
    case("a custom tool", {"input": "Write a file a.txt containing hi with apply_patch.", "tools": [PATCH]})
    case("a custom tool that must be called", {"input": "append `x \"y\" \\z` to notes.md", "tools": [PATCH], "tool_choice": {"type": "custom", "name": "apply_patch"}})
    case("a custom tool with a grammar", {"input": "call apply_patch", "tools": [GRAMMAR]})
    case("a namespace", {"input": "call world__get_time", "tools": [NAMESPACE]})
    case("a tool of a namespace that must be called", {**ask, "tools": [NAMESPACE], "tool_choice": {"type": "function", "name": "get_weather", "namespace": "world"}})
    case("tools of every kind", {**ask, "tools": [WEATHER, PATCH, NAMESPACE, *HOSTED], "tool_choice": {"type": "function", "name": "get_weather"}})
    for tool in HOSTED:
        case(f"hosted: {tool['type']}", {"input": "repeat: hosted", "tools": [tool]})
    allowed = {"type": "allowed_tools", "tools": [{"type": "function", "name": "get_time"}]}
    case("allowed tools", {"input": "repeat: call get_weather", "tools": [WEATHER, CLOCK], "tool_choice": {**allowed, "mode": "auto"}})
    case("allowed tools, one of which must be called", {**ask, "tools": [WEATHER, CLOCK], "tool_choice": {**allowed, "mode": "required"}})
    case("a choice that is not offered", {**ask, "tools": [WEATHER], "tool_choice": {"type": "function", "name": "other"}}, ends="400 invalid_value")
    case("a hosted tool that must be called", {**ask, "tool_choice": {"type": "web_search"}}, ends="400 unsupported_parameter")
    case("a choice of no kind", {**ask, "tools": [WEATHER], "tool_choice": "always"}, ends="400 invalid_value")
    case("a function without a name", {**ask, "tools": [{"type": "function"}]}, ends="400 missing_required_parameter")
    case("a namespace in a namespace", {**ask, "tools": [{"type": "namespace", "name": "a", "tools": [NAMESPACE]}]}, ends="400 invalid_value")


def structure() -> None:
    schema = {"type": "json_schema", "name": "who", "schema": WHO, "strict": True}
    case("a schema", {"input": "Who?", "text": {"format": schema}})
    case("a schema with a description, and verbosity", {"input": "Who?", "text": {"format": {**schema, "strict": False, "description": "A person"}, "verbosity": "low"}})
    case("a JSON object", {"input": "repeat: as JSON", "text": {"format": {"type": "json_object"}}})
    case("plain text, said so", {"input": "repeat: as text", "text": {"format": {"type": "text"}, "verbosity": "high"}})
    case("a schema with choices", {"input": "Which?", "text": {"format": {**schema, "schema": {"type": "object", "properties": {"colour": {"enum": ["red", "green"]}, "sure": {"type": "boolean"}}, "required": ["colour", "sure"]}}}})
    case("a schema beside tools", {"input": "Who?", "tools": [WEATHER], "tool_choice": "none", "text": {"format": schema}})
    case("a schema that is cut", {"input": "Who?", "text": {"format": schema}, "max_output_tokens": 2}, ends="incomplete")
    case("a schema without a schema", {"input": "Who?", "text": {"format": {"type": "json_schema", "name": "who"}}}, ends="400 missing_required_parameter")
    case("no format", {"input": "Who?", "text": {"format": {"type": "xml"}}}, ends="400 invalid_value")


def settings() -> None:
    values = {
        "temperature": [0, 0.7, 2],
        "top_p": [0, 0.5, 1.0],
        "presence_penalty": [-2, 0.25],
        "frequency_penalty": [1.5, 2],
        "top_logprobs": [0, 20],
        "max_tool_calls": [0, 7],
        "parallel_tool_calls": [True, False],
        "metadata": [{}, {"team": "a", "ключ": "значение \"q\""}],
        "truncation": ["auto", "disabled"],
        "service_tier": ["auto", "default", "priority", "flex"],
        "prompt_cache_key": ["session-1"],
        "prompt_cache_retention": ["in_memory", "24h"],
        "safety_identifier": ["someone"],
        "user": ["somebody \\ \u00e9"],
        "store": [True, False],
        "reasoning": [{"effort": "low"}, {"effort": "none", "summary": "auto"}, {"summary": "detailed"}],
        "include": [["reasoning.encrypted_content"], []],
        "client_metadata": [{"a": "b"}],
        "stream_options": [{"include_obfuscation": False}],
        "no_such_field": [[1, {"x": None}]],
    }
    for number in range(5):
        chosen = {name: CHANCE.choice(values[name]) for name in CHANCE.sample(sorted(values), 6)}
        case(f"settings {number}: {', '.join(sorted(chosen))}", {"input": f"repeat: settings {number}", **chosen})
    case("every setting null", {"input": "repeat: nulls", **dict.fromkeys(sorted(values))})


def limits() -> None:
    for tokens in (1, 16, 100):
        case(f"cut after {tokens}", {"input": "count from 1 to 1000", "max_output_tokens": tokens}, ends="incomplete")
    case("a limit that is not met", {"input": "repeat: short", "max_output_tokens": 1000})
    case("a call that is cut", {"input": "call get_weather", "tools": [WEATHER], "max_output_tokens": 2}, ends="incomplete")
    case("a custom call that is cut", {"input": "call apply_patch", "tools": [PATCH], "max_output_tokens": 3}, ends="incomplete")
    case("an input beyond the model's context", {"model": "small", "input": "word " * 200}, ends="400 context_length_exceeded")
    case("a chain beyond the model's context", {"model": "small", "input": "repeat: " + "word " * 20}, {"model": "small", "input": "word " * 25, "previous_response_id": "$0"}, ends="400 context_length_exceeded")


def chains() -> None:
    name = {"input": "repeat: My name is Ada.", "instructions": "Be kind."}
    asked = {"input": "what is my name", "previous_response_id": "$0"}
    case("a chain of two", name, asked)
    case("a chain of three", name, {"input": "repeat: on", "previous_response_id": "$0"}, {**asked, "previous_response_id": "$1"})
    case("a fork", name, {"input": "repeat: My name is Bob.", "previous_response_id": "$0"}, asked)
    case("a chain with other settings", {**name, "tools": [WEATHER], "metadata": {"a": "b"}}, {**asked, "instructions": "Be brief.", "max_output_tokens": 50})
    case("a chain of items", {"input": [message("user", "repeat: My name is Ada.")]}, {**asked, "input": [message("user", text("what is my name"))]})
    call = {"input": "What is the weather in Paris?", "tools": [WEATHER], "tool_choice": {"type": "function", "name": "get_weather"}}
    output = {"type": "function_call_output", "call_id": "$call", "output": "sunny"}
    case("a tool's round trip", call, {"input": [output], "tools": [WEATHER], "previous_response_id": "$0"})
    case("a tool's round trip with a word", call, {"input": [output, message("user", "repeat: thanks")], "tools": [WEATHER], "previous_response_id": "$0"})
    patch = {"input": "call apply_patch", "tools": [PATCH]}
    case("a custom tool's round trip", patch, {"input": [{**output, "type": "custom_tool_call_output"}], "tools": [PATCH], "previous_response_id": "$0"})
    case("on from what was cut", {"input": "count from 1 to 1000", "max_output_tokens": 8}, {"input": "repeat: enough", "previous_response_id": "$0"})
    case("on from what the model refused", {"model": "engine-refuses", "input": "hi"}, {"input": "repeat: anyway", "previous_response_id": "$0"})
    case("additional tools stay", {"input": [{"type": "additional_tools", "tools": [WEATHER]}, message("user", "hello")]}, {"input": "call get_weather", "previous_response_id": "$0"})
    reference = {"type": "item_reference", "id": "$item"}
    case("a reference to an output", {"input": "repeat: My name is Ada."}, {"input": [message("user", "what did you say"), reference, message("user", "repeat: that")]})
    case("a reference to an item of the chain", name, {"input": [reference, message("user", "what is my name")], "previous_response_id": "$0"})
    case("a reference to nothing", {"input": [{**reference, "id": "msg_" + "0" * 32 + "_0"}, message("user", "hi")]}, ends="404 None")
    told = {"model": "engine-speaks", "input": [message("user", "word " * 300), message("assistant", "yes " * 100), message("user", "go on")]}
    case("a compaction by a trigger", {**told, "input": [*told["input"], {"type": "compaction_trigger"}]})
    case("a compaction by a threshold", {**told, "input": [message("user", "word " * 1500), *told["input"]], "context_management": [{"type": "compaction", "compact_threshold": 1000}]})
    case("on from a compaction", {**told, "input": [*told["input"], {"type": "compaction_trigger"}]}, asked)
    case("a blob of nobody's", {"input": [{"type": "compaction", "encrypted_content": "AXS3" * 20}, message("user", "hi")]}, ends="400 invalid_value")
    case("a warm-up", {"input": "repeat: My name is Ada.", "generate": False})
    case("a warm-up by the cache's option", {"input": "hello", "prompt_cache_options": {"prewarm": True}})
    case("a warm-up without input", {"generate": False, "instructions": "Be kind.", "tools": [WEATHER]})
    case("on from a warm-up", {"input": "repeat: My name is Ada.", "generate": False}, asked)
    case("on from a warm-up of tools alone", {"generate": False, "tools": [WEATHER]}, {"input": "call get_weather", "tools": [WEATHER], "previous_response_id": "$0"})
    case("on from what is not there", {**asked, "previous_response_id": "resp_" + "0" * 32}, ends="400 previous_response_not_found")
    case("on from what is no id", {**asked, "previous_response_id": "what \"ever\""}, ends="400 previous_response_not_found")
    case("an output that nobody asked for", {"input": [answered()]}, ends="400 None")
    case("an output that the chain did not ask for", name, {"input": [answered()], "previous_response_id": "$0"}, ends="400 None")


def engines() -> None:
    """What the simulator does not do."""
    ask = {"input": "hello", "tools": [WEATHER, PATCH]}
    for does in ("refuses", "reasons", "reasons-and-calls", "calls-twice", "speaks-and-calls", "calls-patch", "says-nothing", "counts-nothing", "escapes"):
        case(f"an engine: {does}", {"model": f"engine-{does}", **ask})
    for does in ("is-cut-by-length", "is-filtered"):
        case(f"an engine: {does}", {"model": f"engine-{does}", **ask}, ends="incomplete")
    for does in ("breaks-off", "speaks-nonsense", "fails-in-its-stream"):
        case(f"an engine: {does}", {"model": f"engine-{does}", **ask}, ends="failed")
    # What it says before its answer has begun is a plain error everywhere.
    codes = {400: "400 None", 401: "502 server_error", 404: "502 server_error", 413: "413 payload_too_large", 422: "400 None", 429: "429 rate_limit_exceeded", 500: "502 server_error", 503: "502 server_error"}
    for status, ends in codes.items():
        case(f"an engine: {status}", {"model": f"engine-{status}", **ask}, ends=ends)
    case("an engine: its context is too long", {"model": "engine-overflows", **ask}, ends="400 context_length_exceeded")
    case("an engine: silence", {"model": "engine-is-silent", **ask}, ends="504 server_error")


def images() -> None:
    image, file = {"type": "input_image", "image_url": PIXEL, "detail": "low"}, {"type": "input_file", "filename": "a.txt", "file_data": "data:text/plain;base64,aGk="}
    for name, part in (("an image", image), ("an image by its URL", {**image, "image_url": "https://pictures.example/a.png"}), ("a file", file)):
        ask = {"input": [message("user", [*text("repeat: seen"), part])]}
        case(f"{name} for a model that takes it", {"model": "eyes", **ask})
        case(f"{name} for a model that does not", ask, ends="400 invalid_value")
    case("an image that was uploaded", {"model": "eyes", "input": [message("user", [{"type": "input_image", "file_id": "file_1"}])]}, ends="400 unsupported_parameter")


def errors() -> None:
    ask = {"input": "hello"}
    for field in ("prompt", "moderation"):
        case(f"not served: {field}", {**ask, field: {"id": "x"}}, ends="400 unsupported_parameter")
    wrong = {
        "temperature": "hot", "input": 5, "instructions": ["a"], "tools": "all", "metadata": "m", "store": "no", "max_output_tokens": "many", "previous_response_id": 5, "include": "all", "parallel_tool_calls": 1,
    }
    for field, value in wrong.items():
        case(f"a wrong type: {field}", {**ask, field: value}, ends="400 invalid_type")
    beyond = {"temperature": 2.1, "top_p": -0.1, "top_logprobs": 21, "max_output_tokens": 0, "truncation": "some", "service_tier": "gold"}
    for field, value in beyond.items():
        case(f"a wrong value: {field}", {**ask, field: value}, ends="400 invalid_value")
    case("a wrong value: reasoning.effort", {**ask, "reasoning": {"effort": "extreme"}}, ends="400 invalid_value")
    case("a wrong type: metadata.a", {**ask, "metadata": {"a": 1}}, ends="400 invalid_type")
    case("no model", {**ask, "model": ABSENT}, ends="400 missing_required_parameter")
    case("no input", {}, ends="400 missing_required_parameter")
    case("an empty list", {"input": []}, ends="400 invalid_value")
    case("a model that is not there", {**ask, "model": "nobody \"x\""}, ends="404 model_not_found")
    case("a role that is not there", {"input": [message("tool", "x")]}, ends="400 invalid_value")
    case("a part of no type", {"input": [message("user", [{"type": "input_smell"}])]}, ends="400 invalid_value")
    case("a conversation beside a response", {**ask, "conversation": "conv_1", "previous_response_id": "resp_1"}, ends="400 mutually_exclusive_parameters")
    case("a limit beyond all models", {**ask, "max_output_tokens": 1 << 40}, ends="400 invalid_value")
    for name, raw in (("half an object", '{"model":"plain",'), ("a list", "[1]"), ("a word", "hello"), ("nothing", "")):
        case(f"no JSON object: {name}", {"raw": raw}, ends="400 invalid_json")


def written() -> str:
    for group in (texts, items, tools, structure, settings, limits, chains, engines, images, errors):
        group()
    lines = [json.dumps(case, ensure_ascii=True, separators=(",", ":")) for case in cases]
    assert len(lines) == len({json.dumps(case["steps"]) for case in cases}) == len({case["name"] for case in cases}) == CASES, len(lines)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    Path(__file__).with_suffix(".jsonl").write_text(written())
