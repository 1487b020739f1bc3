"""A headless Chromium, driven by its own protocol over one WebSocket: what a page shows, what it asks for, and what it complains of.

Chromium is the system's (tests/chromium installs it where that can be done). Each browser has a new profile, is started on a free port and ended by its own
process id. It knows nothing of any page.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import urllib.request
from pathlib import Path

from websockets.sync.client import connect

from rig import poll_until

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync
--disable-default-apps --disable-extensions --disable-dev-shm-usage --hide-scrollbars --force-color-profile=srgb --remote-debugging-port=0""".split()
# A page reports its broken rules itself, before any of its own script runs.
WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", event => window.violations.push(`${event.violatedDirective}: ${event.blockedURI}`));
"""


class Browser:
    """One browser with one page."""

    def __init__(self) -> None:
        self._profile = tempfile.TemporaryDirectory(prefix="flashlane-chromium-", ignore_cleanup_errors=True)
        command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={self._profile.name}", "about:blank"]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        port_file = Path(self._profile.name) / "DevToolsActivePort"
        poll_until(lambda: port_file.exists() and len(port_file.read_text().split()) == 2, 30, "a browser")
        port = port_file.read_text().split()[0]
        pages = json.loads(urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=10).read())
        self._line = connect(next(page["webSocketDebuggerUrl"] for page in pages if page["type"] == "page"), max_size=None)
        self._ids = itertools.count(1)
        self.complaints: list[str] = []
        self.asked_for: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Page.addScriptToEvaluateOnNewDocument", source=WATCH)
        # Tab past the last element begins anew, instead of leaving for a window that nobody sees.
        self.call("Emulation.setFocusEmulationEnabled", enabled=True)

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self._line.close()
        self._process.terminate()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._profile.cleanup()

    def call(self, method: str, **params: object) -> dict:
        """One command, and what it came to. What the page did meanwhile is kept."""
        number = next(self._ids)
        self._line.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self._line.recv(timeout=30))
            if message.get("id") == number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return message["result"]
            self._note(message.get("method"), message.get("params", {}))

    def _note(self, event: str | None, params: dict) -> None:
        if event == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.complaints.append(f"{params['entry']['source']}: {params['entry']['text']} {params['entry'].get('url', '')}")
        elif event == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.complaints.append(json.dumps(params["args"]))
        elif event == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(params["exceptionDetails"]))
        elif event == "Network.requestWillBeSent":
            self.asked_for.append(params["request"]["url"])
        elif event == "Network.webSocketCreated":
            self.asked_for.append(params["url"])

    def open(self, url: str) -> None:
        """Goes there, and is there when it returns: what is asked next is not answered by the page of before."""
        self.ask("window.left = true")
        self.call("Page.navigate", url=url)
        poll_until(self._has_arrived, 20, f"the page {url}", every_s=0.02)

    def _has_arrived(self) -> bool:
        try:
            return bool(self.ask("!window.left && document.readyState === 'complete'"))
        except RuntimeError:
            # Asked between the two pages.
            return False

    def ask(self, expression: str) -> object:
        """What an expression of JavaScript is in the page."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def until(self, expression: str, timeout_s: float = 20) -> None:
        """Waits until it is so."""
        poll_until(lambda: self.ask(f"!!({expression})"), timeout_s, expression, every_s=0.05)

    def text(self, selector: str) -> str:
        return str(self.ask(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    def press(self, key: str, code: int = 0, text: str = "", shift: bool = False) -> None:
        """A key, down and up."""
        codes = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32}
        code = code or codes.get(key, 0)
        text = text or {"Enter": "\r", " ": " "}.get(key, "")
        fields = {"key": key, "windowsVirtualKeyCode": code, "modifiers": 8 if shift else 0}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **fields)
        self.call("Input.dispatchKeyEvent", type="keyUp", **fields)

    def type(self, text: str) -> None:
        self.call("Input.insertText", text=text)

    def looks_like(self, width: int = 1280, height: int = 900, scheme: str = "light", phone: bool = False) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def violations(self) -> list[str]:
        return list(self.ask("window.violations") or [])

    def picture(self, path: Path, height_max: int) -> None:
        """The page from its top, whatever of it is in view."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], height_max), "scale": 1}
        data = self.call("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True, optimizeForSpeed=False)["data"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(data))
