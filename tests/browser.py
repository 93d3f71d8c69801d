"""Headless Chromium over its DevTools pipe: no driver, no socket, nothing to download."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import itertools
import json
import os
import select
import shutil
import subprocess
import sys
import time

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--remote-debugging-pipe", "--window-size=1440,1000"),
    "--host-resolver-rules=MAP * ~NOTFOUND",
)
AS_PIPE = "import os, sys; r, w = int(sys.argv[1]), int(sys.argv[2]); os.dup2(r, 3), os.dup2(w, 4); os.execv(sys.argv[3], sys.argv[3:])"
STILL = {"name": "prefers-reduced-motion", "value": "reduce"}
KEYS = {"Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, " ": 32, "Tab": 9}


def chromium():
    """The browser's path, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def _pipe():
    """A pipe whose ends are not 3 and 4: these are what the browser's ends become."""
    ends = os.pipe()
    moved = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends]
    for end in ends:
        os.close(end)
    return moved


class Browser:
    """One browser with one page at a time.

    Attributes:
        events: (method, parameters) of all that the page did since it was opened: requests, dialogs, errors, messages.
    """

    def __init__(self, folder, path=None):
        (theirs_in, self._out), (self._in, theirs_out) = _pipe(), _pipe()
        command = [sys.executable, "-c", AS_PIPE, str(theirs_in), str(theirs_out), path or chromium(), *FLAGS, f"--user-data-dir={folder}", "about:blank"]
        self._log = (folder / "stderr").open("w")
        self._process = subprocess.Popen(command, pass_fds=(theirs_in, theirs_out), stdout=self._log, stderr=self._log)
        os.close(theirs_in)
        os.close(theirs_out)
        self._ids, self._rest, self._session = itertools.count(1), b"", None
        self.events = []
        self.command("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])

    def close(self):
        with contextlib.suppress(Exception):
            self.command("Browser.close")
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
        os.close(self._in)
        os.close(self._out)
        self._log.close()

    # -- the protocol ----------------------------------------------------------------------------------------------------
    def _read(self, seconds):
        """The next message; None if there is none in time."""
        end = time.monotonic() + seconds
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._in], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                return None
            chunk = os.read(self._in, 1 << 20)
            if not chunk:
                raise RuntimeError("the browser ended")
            self._rest += chunk
        text, _, self._rest = self._rest.partition(b"\0")
        return json.loads(text)

    def _take(self, message):
        if "method" in message:
            self.events.append((message["method"], message["params"]))
            if message["method"] == "Page.javascriptDialogOpening":
                self.command("Page.handleJavaScriptDialog", accept=False)

    def command(self, method, **params):
        """Sends a command and waits for its answer; remembers what happens meanwhile."""
        number = next(self._ids)
        message = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._out, data) :]
        while (answer := self._read(30)) is not None:
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self._take(answer)
        raise TimeoutError(method)

    # -- the page --------------------------------------------------------------------------------------------------------
    def open(self, url, width=1440, height=1000, dark=False):
        """Opens an address in a page of its own."""
        if self._session:
            self.command("Page.close")
            self._session = None
        self.events.clear()
        target = self.command("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.command("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.command(f"{domain}.enable")
        self.command("Emulation.setFocusEmulationEnabled", enabled=True)
        self.size(width, height)
        self.dark(dark)
        self.command("Page.navigate", url=url)
        while not any(name == "Page.loadEventFired" for name, _ in self.events):
            message = self._read(30)
            assert message is not None, "the page did not load"
            self._take(message)

    def size(self, width, height, scale=1):
        self.command("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=False)

    def dark(self, dark):
        self.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}, STILL])
        self.js("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def js(self, code):
        """The value of an expression in the page."""
        answer = self.command("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True, userGesture=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"].get("exception", {}).get("description", answer["exceptionDetails"]))
        return answer["result"].get("value")

    def find(self, selector, text=None):
        """The middle of the first element that is seen; with a text, of the first with exactly that text."""
        code = f"""(() => {{
          const e = [...document.querySelectorAll({json.dumps(selector)})].find((e) => e.getClientRects().length && ({json.dumps(text)} === null || e.textContent.trim() === {json.dumps(text)}));
          if (!e) return null;
          e.scrollIntoView({{ block: "center", inline: "center" }});
          const r = e.getBoundingClientRect();
          return [r.left + r.width / 2, r.top + r.height / 2];
        }})()"""
        place = self.js(code)
        assert place, f"no {selector} {text or ''}"
        return place

    def move(self, selector, text=None):
        x, y = self.find(selector, text)
        self.command("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        return x, y

    def click(self, selector, text=None):
        """A real click of the mouse on an element."""
        x, y = self.move(selector, text)
        for kind in ("mousePressed", "mouseReleased"):
            self.command("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key):
        """A key of the keyboard."""
        for kind in ("rawKeyDown", "keyUp"):
            self.command("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=KEYS[key])

    def type(self, selector, text):
        """Writes into a field in place of what is there."""
        self.click(selector)
        self.js(f"document.querySelector({json.dumps(selector)}).select()")
        self.command("Input.insertText", text=text)

    def choose(self, selector, value):
        """Chooses an option of a select by its value."""
        self.set(selector, value)
        assert self.js(f"document.querySelector({json.dumps(selector)}).value") == value, f"{selector} has no option {value!r}"

    def set(self, selector, value):
        """Gives a field or a select a value, as if it was typed or chosen."""
        code = "((s, v) => { s.value = v; s.dispatchEvent(new Event('input', { bubbles: true })); })"
        self.js(f"{code}(document.querySelector({json.dumps(selector)}), {json.dumps(value)})")

    def texts(self, selector):
        """What is written in all elements that a selector finds."""
        return self.js(f"[...document.querySelectorAll({json.dumps(selector)})].map((e) => e.textContent.trim())")

    def clipboard(self):
        return self.js("navigator.clipboard.readText()")

    def screenshot(self, path):
        path.write_bytes(base64.b64decode(self.command("Page.captureScreenshot", format="png")["data"]))

    def did(self, *methods):
        """What the page did of some kinds."""
        return [(name, params) for name, params in self.events if name in methods]
