"""proto/openapi.json against a running flashlane: schemathesis asks whatever the description allows and what it does not, and every event of a stream is one
that is described."""

import json
import runpy
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import jsonschema
import pytest

from rig import DEMO, ROOT, Flashlane, fetch

DESCRIPTION = ROOT / "proto/openapi.json"
SCRIPT = runpy.run_path(str(DESCRIPTION.with_suffix(".py")))
MODEL = "flashlane-demo"
# An engine that does not keep anybody waiting.
DEMO_AT_ONCE = DEMO.replace('backend = "simulator"', 'backend = "simulator"\nfirst_token_ms = 0\ntokens_per_second = 0')
# All but whether valid data is accepted: a tool may be chosen that is not offered, which no schema says.
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance,negative_data_rejection,unsupported_method"


@pytest.fixture(scope="module")
def at_once():
    with Flashlane(DEMO_AT_ONCE) as running:
        yield running


def of_this_gateway() -> dict:
    """The description, with the one model that the gateway under test has."""
    description = json.loads(DESCRIPTION.read_text())
    for schema in description["components"]["schemas"].values():
        if "model" in schema.get("properties", {}):
            schema["properties"]["model"] = {"const": MODEL}
    return description


def test_the_description_is_what_its_script_writes():
    assert SCRIPT["text"]() == DESCRIPTION.read_text(), "run python3 proto/openapi.py"


def test_no_request_finds_a_server_error_or_an_answer_that_is_not_described(at_once, tmp_path):
    (tmp_path / "openapi.json").write_text(json.dumps(of_this_gateway()))
    command: list[str | Path] = [Path(sys.executable).with_name("st"), "run", tmp_path / "openapi.json", "--url", at_once.base_url.removesuffix("/v1")]
    command += ["--checks", CHECKS, "--max-examples", "15", "--seed", "1", "--no-color", "--request-timeout", "10"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=110)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    completed = [row for row in fetch(f"{at_once.admin_url}/metrics").splitlines() if row.startswith("flashlane_turns_total") and 'outcome="completed"' in row]
    assert sum(float(row.split()[-1]) for row in completed) > 20, "hardly a request reached a model"


def test_what_is_described_for_later_is_refused(at_once):
    """An endpoint that is served now leaves the script's list of what comes later. One beside `/v1/responses/{id}` is taken for an id of a wrong method."""
    for method, path in sorted(SCRIPT["LATER"]):
        request = urllib.request.Request(at_once.base_url.removesuffix("/v1") + path.replace("{", "").replace("}", ""), b"{}" if method == "post" else None, method=method.upper())
        with pytest.raises(urllib.error.HTTPError) as raised:
            urllib.request.urlopen(request, timeout=10)
        code = json.loads(raised.value.read())["error"]["code"]
        assert (raised.value.code, code) in ((404, "unknown_url"), (405, "method_not_allowed")), (method, path)


@pytest.mark.parametrize(
    "asked",
    [
        {"input": "repeat: described"},
        {"input": "count from 1 to 100", "max_output_tokens": 16},
        {"input": "What is the weather in Paris?", "tools": [{"type": "function", "name": "get_weather", "parameters": {"type": "object"}}], "tool_choice": "required"},
        {"input": "Write a patch.", "tools": [{"type": "custom", "name": "apply_patch"}], "tool_choice": "required"},
    ],
    ids=["text", "incomplete", "function", "custom tool"],
)
def test_every_event_of_a_stream_is_described(at_once, asked):
    streamed = fetch(f"{at_once.base_url}/responses", {"model": MODEL, "stream": True, **asked})
    events = [json.loads(line.removeprefix("data: ")) for line in streamed.splitlines() if line.startswith("data: {")]
    assert len(events) > 4
    schemas = json.loads(DESCRIPTION.read_text())["components"]
    described = jsonschema.Draft202012Validator({"$ref": "#/components/schemas/StreamEvent", "components": schemas})
    for event in events:
        described.validate(event)
