"""A real model behind flashlane: SmolLM2 on llama.cpp's server as the throughput tier, beside the simulated wafer tier."""

import os
import subprocess
import time

import openai
import pytest
from websockets.sync.client import connect

from rig import DEMO, FLASHLANE, ROOT, Flashlane, poll_until
from test_openai_python import texts, until_completed

MODEL = "smollm2-135m"


@pytest.fixture(scope="module")
def both_tiers(real_model):
    """The simulated wafer tier for one model, the real engine for the other."""
    gpu = f'backend = "openai"\ndialect = "llama_cpp"\nbase_url = "{real_model.url}/v1"\n'
    config = DEMO.replace('tier = "throughput"\nbackend = "simulator"\n', f'tier = "throughput"\n{gpu}')
    config += 'route = "latency-only"\n\n'
    config += f'[[models]]\nname = "{MODEL}"\ncontext_tokens_max = 8192\nroute = "throughput-only"\n'
    with Flashlane(config) as running:
        yield running


@pytest.fixture(scope="module")
def client(both_tiers):
    with openai.OpenAI(base_url=both_tiers.base_url, api_key="sk-dummy", max_retries=0, timeout=60) as client:
        yield client


def test_the_second_turn_of_a_chain_carries_the_first(client):
    with client.responses.connect() as connection:
        connection.response.create(model=MODEL, input="Name three colours.", max_output_tokens=24, store=False)
        first = until_completed(connection)
        connection.response.create(model=MODEL, input="And a fourth?", max_output_tokens=24, previous_response_id=first[-1].response.id, store=False)
        second = until_completed(connection)
    before, after = first[-1].response.usage, second[-1].response.usage
    assert texts(first)
    assert texts(second)
    assert after.input_tokens > before.input_tokens + before.output_tokens


def test_both_tiers_answer(client):
    for model in (MODEL, "flashlane-demo"):
        response = client.responses.create(model=model, input="Say hello.", max_output_tokens=16)
        assert response.output_text
        assert response.model == model


def test_a_cut_by_length_is_incomplete(client):
    # Without sampling: the model may draw an answer that is shorter.
    response = client.responses.create(model=MODEL, input="Count from one to one hundred.", max_output_tokens=8, temperature=0)
    assert response.status == "incomplete"
    assert response.usage.output_tokens == 8


def test_a_context_overflow_is_named(client):
    with pytest.raises(openai.BadRequestError) as raised:
        client.responses.create(model=MODEL, input="word " * 9000)
    assert raised.value.code == "context_length_exceeded"


def test_a_client_that_goes_away_cancels_the_generation(both_tiers, real_model):
    before = real_model.process.output.count("cancel task")
    url = f"ws://127.0.0.1:{both_tiers.port}/v1/responses"
    with connect(url) as connection:
        connection.send(f'{{"type":"response.create","model":"{MODEL}","input":"Write a very long story.","max_output_tokens":4000,"temperature":0,"store":false}}')
        while "output_text.delta" not in connection.recv(timeout=30):
            pass
        assert real_model.metric("requests_processing") == 1
        connection.socket.close()
        gone_at_s = time.monotonic()
        poll_until(lambda: real_model.metric("requests_processing") == 0, 5, "llama.cpp works on nothing any more")
    assert time.monotonic() - gone_at_s < 1
    assert real_model.process.output.count("cancel task") == before + 1


def test_the_demo_shows_a_turn_on_each_tier(real_model):
    ran = subprocess.run([ROOT / "tests/demo", real_model.url], env={**os.environ, "FLASHLANE": str(FLASHLANE)}, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "latency" in ran.stdout and "throughput" in ran.stdout, ran.stdout
    assert "simulat" in ran.stdout, "what is simulated says so"
