"""`flashlane doctor` as an operator meets it: what it says of a config and of this machine, and what --live settles about a simulated and a real engine."""

import json
import os
import subprocess

import pytest

from rig import AT_ONCE, DEMO, FLASHLANE, SERVER, Process, endpoint

KEY = "canary-3f1c9b7e5d"
# A slow machine reads a prompt in half a minute.
DOCTOR_S_MAX = 240


def doctor(*arguments: str, expected: int = 0, **environment: str) -> subprocess.CompletedProcess:
    command = [FLASHLANE, "doctor", *arguments]
    inherited = {name: value for name, value in os.environ.items() if name != "FLASHLANE_CONFIG"}
    ran = subprocess.run(
        command, env={**inherited, **environment}, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DOCTOR_S_MAX
    )
    assert ran.returncode == expected, ran.stdout + ran.stderr
    return ran


def checks(ran: subprocess.CompletedProcess) -> dict[tuple[str, str], str]:
    return {(line["about"], line["check"]): line["state"] for line in json.loads(ran.stdout)["checks"]}


def verdicts(ran: subprocess.CompletedProcess) -> dict[str, str]:
    [live] = json.loads(ran.stdout)["live"]
    assert live["tokens_spent"] <= live["tokens_max"]
    return {settled["name"]: settled["verdict"] for settled in live["assumptions"]}


@pytest.fixture
def config(tmp_path):
    def write(text: str) -> str:
        path = tmp_path / "flashlane.toml"
        path.write_text(text)
        return str(path)

    return write


@pytest.fixture(scope="module")
def simulator():
    process = Process([FLASHLANE, "simulate", "--listen", "127.0.0.1:0", "--tokens-per-second", "0", "--first-token-ms", "0"], {"FLASHLANE_SIMULATOR_API_KEY": KEY})
    line = process.wait_for(lambda line: "http://127.0.0.1:" in line, 10)
    yield next(word for word in line.split() if word.startswith("http://")).rstrip(":")
    process.stop()


def engine(url: str, **fields: str | int) -> str:
    text = SERVER + endpoint("engine-1", "throughput", "openai", base_url=url, **fields)
    return text + '\n[[models]]\nname = "flashlane-simulator"\n'


def test_a_config_of_simulators_is_well_and_says_so_without_color(config):
    ran = doctor("--config", config(DEMO))
    assert "can be served" in ran.stdout
    assert "0 failed" in ran.stdout
    assert "\x1b" not in ran.stdout + ran.stderr


def test_a_bad_config_is_told_as_the_check_tells_it_and_the_rest_is_looked_at_all_the_same(config):
    path = config(DEMO + '\n[store]\nfolder = ""\n')
    ran = doctor("--config", path, expected=1)
    checked = subprocess.run([FLASHLANE, "serve", "--config", path, "--check"], capture_output=True, text=True, timeout=10)
    fault = checked.stderr.strip().removeprefix("flashlane: ")
    assert fault in ran.stdout
    assert "machine open files" in ran.stdout
    assert "wafer backend" in ran.stdout


def test_what_is_wrong_with_an_endpoint_is_told_with_what_to_do(config, simulator):
    gone = doctor("--config", config(engine("http://127.0.0.1:9/v1")), "--json", expected=1)
    assert checks(gone)["engine-1", "address"] == "failed"
    keyless = doctor("--config", config(engine(simulator, api_key_env="NO_SUCH_KEY")), expected=1)
    assert "NO_SUCH_KEY" in keyless.stdout
    wrong = doctor("--config", config(engine(simulator, api_key_env="A_KEY")), expected=1, A_KEY="canary-wrong")
    assert "wants another API key" in wrong.stdout
    assert "the key in A_KEY" in wrong.stdout
    assert "canary-wrong" not in wrong.stdout + wrong.stderr


def test_what_surrounds_a_simulated_engine_is_well_and_no_token_is_spent(config, simulator):
    ran = doctor("--config", config(engine(simulator, api_key_env="A_KEY", simulated=True)), "--json", A_KEY=KEY)
    states = checks(ran)
    for check in ("key", "address", "models", "context", "dialect", "clock"):
        assert states["engine-1", check] == "ok", check
    assert json.loads(ran.stdout)["live"] == []


def test_what_is_assumed_of_an_engine_holds_for_the_simulator_and_the_key_is_nowhere(config, simulator, tmp_path):
    path, capture = config(engine(simulator, api_key_env="A_KEY", simulated=True)), tmp_path / "capture.jsonl"
    ran = doctor("--config", path, "--live", "engine-1", "--capture", str(capture), "--json", A_KEY=KEY)
    told = verdicts(ran)
    assert told.pop("reasoning") in ("holds", "could not be told")
    assert set(told.values()) == {"holds"}, told
    kept = capture.read_text()
    assert "data: [DONE]" in kept
    assert (ran.stdout + ran.stderr + kept).count(KEY) == 0
    assert "tokens are spent" in ran.stderr


def test_who_is_to_be_asked_must_be_there(config):
    ran = doctor("--config", config(DEMO), "--live", "nobody", expected=1)
    assert "nobody" in ran.stderr
    assert "wafer, gpu" in ran.stderr


def test_an_engine_in_this_process_has_nothing_to_be_asked(config):
    path = config(SERVER + AT_ONCE + '\n[[models]]\nname = "flashlane-demo"\n')
    assert json.loads(doctor("--config", path, "--live", "at-once", "--json").stdout)["live"] == []


def test_what_is_assumed_of_llama_cpp_holds_for_the_real_one_but_for_its_connections(config, real_model):
    text = SERVER + endpoint("gpu-1", "throughput", "openai", base_url=f"{real_model.url}/v1", dialect="llama_cpp", probe_ms=100)
    text += '\n[[models]]\nname = "smollm2-135m"\ncontext_tokens_max = 8192\n'
    ran = doctor("--config", config(text), "--live", "gpu-1", "--json", expected=1)
    states = checks(ran)
    for check in ("address", "models", "context", "dialect", "load"):
        assert states["gpu-1", check] == "ok", check
    told = verdicts(ran)
    assert told.pop("reasoning") == "could not be told"
    # So small a model may end before the limit.
    assert told.pop("output-limit") in ("holds", "could not be told")
    # It announces Keep-Alive, and closes its connection behind each event stream.
    assert told.pop("reuse") == "does not hold"
    assert set(told.values()) == {"holds"}, told
