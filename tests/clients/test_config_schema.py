"""The JSON Schema of the config, as editors use it: what flashlane takes is valid by it, and what flashlane refuses in a field is not."""

import json
import re
import subprocess
import tomllib

import jsonschema
import pytest

from rig import FLASHLANE, ROOT

EXAMPLE = ROOT / "deploy/flashlane.toml"


def run(*arguments) -> str:
    return subprocess.run([FLASHLANE, *arguments], capture_output=True, text=True, timeout=20, check=True).stdout


@pytest.fixture(scope="module")
def schema() -> jsonschema.Draft7Validator:
    described = json.loads(run("config", "schema"))
    jsonschema.Draft7Validator.check_schema(described)
    return jsonschema.Draft7Validator(described)


def test_the_shipped_configs_are_valid(schema):
    schema.validate(tomllib.loads(EXAMPLE.read_text()))
    schema.validate(tomllib.loads(run("serve", "--check")))


@pytest.mark.parametrize("page", ["README.md", "docs/ARCHITECTURE.md", "docs/BACKENDS.md", "docs/OPERATIONS.md", "docs/ROUTING.md"])
def test_what_the_pages_show_of_configs_is_valid(schema, page):
    for shown in re.findall(r"```toml\n(.*?)```", (ROOT / page).read_text(), re.DOTALL):
        # Digests are cut short there.
        schema.validate(tomllib.loads(re.sub(r'"[0-9a-f]*(…|\.\.\.)"', f'"{"0" * 64}"', shown)))


ENGINE = '[[endpoints]]\nname = "e"\ntier = "latency"\nbackend = "openai"\nbase_url = "http://127.0.0.1:8000/v1"\n'
SIMULATOR = '[[endpoints]]\nname = "e"\ntier = "latency"\nbackend = "simulator"\n'
MODEL = '[[models]]\nname = "m"\n'


def whole(text: str) -> str:
    """With what every config needs."""
    return text + "".join(part for part in (SIMULATOR, MODEL) if part.partition("\n")[0] not in text)


@pytest.mark.parametrize(
    "text",
    [
        "[server]\nlisten = 8700\n",
        "[server]\nlistens = '127.0.0.1:8700'\n",
        "[server.limits]\nrequest_bytes_max = 0\n",
        "[server.limits]\nheader_bytes_max = 8191\n",
        "[server.tls]\ncertificate_file = 'c.pem'\n",
        "[server.admin]\ntoken_sha256 = ['abc']\n",
        "[limits.latency]\nrequests_per_minute = 0\n",
        "[queue.throughput]\nclaimed_percent_max = 101\n",
        "[telemetry]\nlog_format = 'xml'\n",
        "[telemetry]\ntrace_sample_percent = 101\n",
        "[runtime]\nworker_threads = 0\n",
        ENGINE + 'dialect = "vlm"\n',
        ENGINE + "weight = 1001\n",
        ENGINE + "profile = 'gpu'\n",
        ENGINE + "transport = 'http'\n",
        SIMULATOR + "idle_ms_max = 1000\n",
        SIMULATOR + "colour = 'red'\n",
        MODEL + "route = 'latency'\n",
        MODEL + "context_tokens_max = 0\n",
        "[[rules]]\nroute = 'latency-only'\nwhen = { effort = 'high' }\n",
        "[[keys]]\nname = 'a'\n",
        "[[guards]]\nname = 'g'\nurl = 'http://127.0.0.1:9/'\ndeadline_ms = 0\n",
    ],
)
def test_what_flashlane_refuses_in_a_field_is_not_valid(schema, tmp_path, text):
    (tmp_path / "flashlane.toml").write_text(whole(text))
    checked = subprocess.run([FLASHLANE, "serve", "--check", "--config", tmp_path / "flashlane.toml"], capture_output=True, text=True, timeout=20)
    assert checked.returncode == 64, checked.stdout
    assert not schema.is_valid(tomllib.loads(whole(text))), text


def test_nothing_else_of_these_is_refused(schema, tmp_path):
    (tmp_path / "flashlane.toml").write_text(whole(""))
    run("serve", "--check", "--config", tmp_path / "flashlane.toml")
    schema.validate(tomllib.loads(whole("")))


@pytest.mark.parametrize("text", [ENGINE + 'dialect = "sglang"\nprobe_ms = 100\n', SIMULATOR + 'profile = "wafer"\n', "[store]\nfolder = 'data'\n"])
def test_fields_of_a_backend_are_valid_there(schema, text):
    schema.validate(tomllib.loads(text))
