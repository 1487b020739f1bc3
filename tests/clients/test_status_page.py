"""The status page as somebody sees it who looks at it at night: in a real browser, by its keyboard, on a phone, while endpoints fail and the server restarts.

Skipped where there is no Chromium and none can be installed (tests/chromium says so). With STATUS_PICTURES=1 the pictures in docs/status are taken anew.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

from browser import CHROMIUM, Browser
from rig import ROOT, SERVER, Flashlane, endpoint, fetch, poll_until

PICTURES = ROOT / "docs/status" if os.environ.get("STATUS_PICTURES") else None
HOSTILE = "<img src=x onerror=window.pwned=1>"
# Each tier has two; one of the throughput tier's cannot be reached.
FLEET = (
    SERVER
    + endpoint("wafer-1", "latency", "simulator", first_token_ms=600, tokens_per_second=120)
    + endpoint("wafer-2", "latency", "simulator", first_token_ms=20, tokens_per_second=900)
    + endpoint("gpu-1", "throughput", "simulator", first_token_ms=40, tokens_per_second=300)
    + endpoint("gpu-2", "throughput", "openai", base_url="http://127.0.0.1:9", connect_ms_max=300)
    + """
[routing]
breaker_failures_max = 1
breaker_pause_ms_min = 8000

[queue.latency]
concurrency_max = 8
concurrency_min = 8

[limits.throughput]
requests_per_minute = 6000
tokens_per_minute = 4000000

[[models]]
name = "flashlane-demo"
context_tokens_max = 131072
"""
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here: `tests/chromium` installs it where Debian's packages can be had")
    with Browser() as running:
        yield running


@pytest.fixture(scope="module")
def fleet() -> Iterator[Flashlane]:
    with Flashlane(FLEET) as gateway:
        yield gateway


@pytest.fixture
def page(browser: Browser, fleet: Flashlane) -> Iterator[Browser]:
    yield from opened(browser, fleet)


def opened(browser: Browser, gateway: Flashlane) -> Iterator[Browser]:
    """The page of a gateway, with nothing to complain of by the end."""
    browser.complaints.clear()
    browser.asked_for.clear()
    browser.looks_like()
    browser.open(f"{gateway.admin_url}/")
    browser.until("document.getElementById('phase')?.textContent === 'ready'")
    yield browser
    assert browser.ask("1") == 1
    assert browser.complaints == [] and browser.violations() == []
    own = (f"{gateway.admin_url}/", f"ws://127.0.0.1:{gateway.admin_port}/", "data:")
    assert [url for url in browser.asked_for if not url.startswith(own)] == []


def turn(gateway: Flashlane, text: str = "hello", **fields: object) -> None:
    body = {"model": "flashlane-demo", "input": text, "store": False, **fields}
    fetch(f"{gateway.base_url}/responses", body, timeout_s=30)


def row(table: str, words: str) -> str:
    """The row of a table that has these words, as an expression."""
    return f"[...document.querySelectorAll('#{table} tbody tr')].find(row => row.textContent.includes({json.dumps(words)}))"


def endpoints(gateway: Flashlane) -> dict[str, dict]:
    return {shown["name"]: shown for shown in json.loads(fetch(f"{gateway.admin_url}/endpoints"))}


def focus_by_tab(browser: Browser, label: str) -> None:
    """Goes there as somebody without a mouse does, once it is to be seen."""
    browser.until(f"document.querySelector('[aria-label={json.dumps(label)}]')")
    met = []
    for _ in range(300):
        browser.press("Tab")
        met.append(browser.ask("document.activeElement.getAttribute('aria-label') || document.activeElement.textContent.slice(0, 40)"))
        if met[-1] == label:
            return
    raise AssertionError(f"{label!r} cannot be reached by Tab, only {met}")


def test_the_page_asks_nobody_but_its_own_server(page: Browser, fleet: Flashlane):
    with urllib.request.urlopen(f"{fleet.admin_url}/") as answer:
        policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert "Nobody waits." in page.text("#waiting") and "simulated" in page.text("#endpoints")
    # What is not the page's own does not run in it.
    page.ask("document.body.append(Object.assign(document.createElement('script'), { textContent: 'window.pwned = 1' }))")
    assert page.ask("window.pwned") is None
    assert any("script-src" in violation for violation in page.violations())
    page.ask("window.violations.length = 0")
    page.complaints.clear()


def test_a_turn_is_seen_while_it_runs_and_its_waterfall_once_it_has_ended(page: Browser, fleet: Flashlane):
    fetch(f"{fleet.admin_url}/endpoints/wafer-2", {"state": "cordoned"}, method="PATCH")
    running = threading.Thread(target=turn, args=(fleet, "tell me a story"))
    running.start()
    page.until("document.getElementById('running').textContent.includes('waits for first token')")
    page.until("document.getElementById('running').textContent.includes('streams')")
    assert "wafer-1" in page.text("#running")
    running.join()
    page.until(f"{row('ended', 'completed')} && document.querySelector('#running table').hidden")
    bar = str(page.ask("document.querySelector('#ended .bar').getAttribute('aria-label')"))
    assert "first token" in bar and "stream" in bar
    widths = page.ask("[...document.querySelectorAll('#ended .bar i')].map(part => part.getBoundingClientRect().width)")
    assert len(widths) >= 3 and max(widths) > 20
    turn(fleet, "and another")
    page.until(f"{row('endpoints', 'wafer-1')}.querySelector('polyline').getAttribute('points').split(' ').length > 1")
    fetch(f"{fleet.admin_url}/endpoints/wafer-2", {"state": None}, method="PATCH")


def test_an_endpoint_that_fails_turns_red_and_an_error_is_listed(page: Browser, fleet: Flashlane):
    for number in range(20):
        if endpoints(fleet)["gpu-2"]["health"] == "out":
            break
        turn(fleet, f"number {number}", service_tier="flex")
    page.until(f"{row('endpoints', 'gpu-2')}.querySelector('.pill.bad')")
    assert "out" in str(page.ask(f"{row('endpoints', 'gpu-2')}.textContent"))
    page.until("document.getElementById('said').textContent.includes('gpu-2')")
    states = {name: "cordoned" for name in ("wafer-1", "wafer-2", "gpu-1", "gpu-2")}
    for name, state in states.items():
        fetch(f"{fleet.admin_url}/endpoints/{name}", {"state": state}, method="PATCH")
    with pytest.raises(urllib.error.HTTPError):
        turn(fleet)
    page.until("document.querySelector('#errors .pill.bad')")
    for name in states:
        fetch(f"{fleet.admin_url}/endpoints/{name}", {"state": "active"}, method="PATCH")


def test_an_endpoint_is_cordoned_and_weighed_by_the_keyboard_alone_and_turns_go_elsewhere(page: Browser, fleet: Flashlane):
    focus_by_tab(page, "Cordon wafer-1")
    page.press("Enter")
    page.until("document.getElementById('ask').open")
    page.press("Escape")
    page.until("!document.getElementById('ask').open")
    assert endpoints(fleet)["wafer-1"]["state"] == "active", "nothing happens without a yes"
    assert page.ask("document.activeElement.getAttribute('aria-label')") == "Cordon wafer-1"
    # The browser tells of a closing later than it closes: who asks again at once is answered all the same.
    page.ask("{ const cordon = document.activeElement; cordon.click(); document.getElementById('ask').close(); cordon.click(); }")
    page.until("document.activeElement.id === 'ask-yes'")
    page.press("Enter")
    poll_until(lambda: endpoints(fleet)["wafer-1"]["state"] == "cordoned", 10, "a cordon")
    page.until(f"{row('endpoints', 'wafer-1')}.textContent.includes('cordoned')")
    page.until("document.getElementById('said').textContent.includes('wafer-1 is cordoned')")
    for number in range(4):
        turn(fleet, f"elsewhere {number}")
    page.until("[...document.querySelectorAll('#ended tbody tr')].slice(0, 4).every(row => row.textContent.includes('wafer-2'))")
    focus_by_tab(page, "Weight wafer-1")
    page.press("Enter")
    page.until("document.activeElement.id === 'ask-input'")
    page.ask("document.activeElement.select()")
    page.type("7")
    page.press("Enter")
    page.until(f"{row('endpoints', 'wafer-1')}.textContent.includes('7 (config 1)')")
    focus_by_tab(page, "Uncordon wafer-1")
    page.press(" ")
    page.until("document.activeElement.id === 'ask-yes'")
    page.press("Enter")
    poll_until(lambda: endpoints(fleet)["wafer-1"]["state"] == "active", 10, "an end of the cordon")
    fetch(f"{fleet.admin_url}/endpoints/wafer-1", {"weight": None}, method="PATCH")


def test_it_fits_a_phone_and_both_colour_schemes(page: Browser, fleet: Flashlane):
    turns = [threading.Thread(target=turn, args=(fleet, "show me"), kwargs={"service_tier": tier}) for tier in ("flex", "flex", "priority", "priority")]
    for running in turns:
        running.start()
    page.until("document.querySelectorAll('#running tbody tr').length >= 2")
    backgrounds = []
    for scheme in ("light", "dark"):
        page.looks_like(scheme=scheme)
        backgrounds.append(page.ask("getComputedStyle(document.body).backgroundColor"))
        if PICTURES:
            page.picture(PICTURES / f"{scheme}.png", 1150)
    page.looks_like(width=360, height=740, phone=True)
    assert page.ask("document.documentElement.scrollWidth") <= 360
    small = page.ask("[...document.querySelectorAll('button')].filter(b => b.offsetParent && b.getBoundingClientRect().right > 360).length")
    assert small == 0
    if PICTURES:
        page.picture(PICTURES / "phone.png", 1300)
    page.looks_like(scheme="light")
    for wanted in ("light", "dark"):
        page.ask("document.getElementById('theme').click()")
        assert page.text("#theme") == f"Theme: {wanted}"
        backgrounds.append(page.ask("getComputedStyle(document.body).backgroundColor"))
    page.ask("document.getElementById('theme').click()")
    assert backgrounds[0] == backgrounds[2] != backgrounds[1] == backgrounds[3]
    for running in turns:
        running.join()


CONTRAST = """
(() => {
  const parse = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4).reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const behind = element => { for (; element; element = element.parentElement) { const color = parse(getComputedStyle(element).backgroundColor); if (color[3] !== 0) return color; } };
  const texts = [...document.querySelectorAll("main *, header *")].filter(e => e.offsetParent && [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()));
  return texts.map(e => {
    const [a, b] = [light(parse(getComputedStyle(e).color)), light(behind(e))].sort((a, b) => b - a);
    return [(a + .05) / (b + .05), e.textContent.slice(0, 40)];
  }).filter(([ratio]) => ratio < 4.5);
})()
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_the_contrast_that_wcag_asks_for(page: Browser, scheme: str):
    page.looks_like(scheme=scheme)
    assert page.ask(CONTRAST) == []


def test_names_are_text_whatever_they_say(browser: Browser):
    config = SERVER + endpoint(HOSTILE, "latency", "simulator", first_token_ms=0) + f'\n[[models]]\nname = "{HOSTILE}"\ncontext_tokens_max = 1000\n'
    with Flashlane(config) as gateway:
        for page in opened(browser, gateway):
            turn(gateway, model=HOSTILE)
            page.until(row("ended", HOSTILE))
            assert HOSTILE in page.text("#endpoints")
            focus_by_tab(page, f"Cordon {HOSTILE}")
            page.press("Enter")
            page.until("document.activeElement.id === 'ask-yes'")
            assert HOSTILE in page.text("#ask-title")
            page.press("Enter")
            page.until(f"{row('endpoints', HOSTILE)}.textContent.includes('cordoned')")
            assert page.ask("window.pwned") is None and page.ask("document.querySelectorAll('img').length") == 0


def test_it_says_that_the_server_is_gone_and_comes_back_with_it(browser: Browser):
    config = SERVER + endpoint("wafer", "latency", "simulator") + '\n[[models]]\nname = "flashlane-demo"\ncontext_tokens_max = 1000\n'
    with Flashlane(config) as first:
        port = first.admin_port
        pages = opened(browser, first)
        page = next(pages)
        page.until("document.getElementById('server').textContent.includes('up')")
    page.until("!document.getElementById('link').hidden && document.getElementById('link').textContent.includes('Next try in')")
    assert page.text("#phase") == "not connected"
    # Connections that are refused meanwhile are what is being tried.
    with Flashlane(config.replace('admin_listen = "127.0.0.1:0"', f'admin_listen = "127.0.0.1:{port}"')):
        page.until("document.getElementById('link').hidden && document.getElementById('phase').textContent === 'ready'")
        assert page.violations() == []
    page.complaints.clear()
    page.open("about:blank")


def test_it_asks_for_the_token_where_the_server_does_and_keeps_it_for_the_tab(browser: Browser):
    html = (ROOT / "crates/edge/src/admin/status/page.html").read_bytes()
    first_messages: list[dict] = []
    # A browser opens connections that it does not use.
    quiet = logging.getLogger("quiet")
    quiet.setLevel(logging.CRITICAL)

    def answer(connection: ServerConnection, request: Request) -> Response | None:
        if request.path != "/":
            return None
        return Response(200, "OK", Headers({"content-type": "text/html; charset=utf-8", "content-length": str(len(html)), "connection": "close"}), html)

    def line(connection: ServerConnection) -> None:
        first_messages.append(json.loads(connection.recv()))
        if first_messages[-1]["token"] != "sesame":
            connection.close(4401)
            return
        server = {"version": "1", "started_unix_ms": 0, "phase": "ready", "connections": 1}
        connection.send(json.dumps({"now_unix_ms": 60_000, "server": server}))
        # Ends when the page leaves.
        for _ in connection:
            pass

    with serve(line, "127.0.0.1", 0, process_request=answer, logger=quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.socket.getsockname()[1]
        browser.open(f"http://127.0.0.1:{port}/")
        for said, token in enumerate(("wrong", "sesame"), start=2):
            browser.until("document.getElementById('ask')?.open && document.activeElement.id === 'ask-input' && document.activeElement.value === ''")
            assert browser.ask("document.activeElement.type") == "password"
            browser.type(token)
            browser.press("Enter")
            poll_until(lambda said=said: len(first_messages) == said, 20, f"the token {token}")
        browser.until("document.getElementById('phase').textContent === 'ready'")
        browser.open("about:blank")
        browser.open(f"http://127.0.0.1:{port}/")
        browser.until("document.getElementById('phase')?.textContent === 'ready'")
        assert [message["token"] for message in first_messages] == [None, "wrong", "sesame", "sesame"]
        browser.open("about:blank")
        server.shutdown()
