"""A page with xterm.js on a WebSocket, from Debian's package node-xterm."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

LIBRARY = Path("/usr/share/nodejs/xterm/lib")

LOADER = """
const modules = {}, loaded = {};
const resolve = (folder, name) => {
  const parts = folder ? folder.split("/") : [];
  for (const part of name.split("/")) {
    if (part === "..") parts.pop(); else if (part !== ".") parts.push(part);
  }
  return parts.join("/");
};
const load = path => {
  if (!(path in loaded)) {
    const module = loaded[path] = {exports: {}};
    const folder = path.split("/").slice(0, -1).join("/");
    modules[path](name => load(resolve(folder, name)), module, module.exports);
  }
  return loaded[path].exports;
};
"""

PAGE = """<!doctype html><meta charset="utf-8"><div id="t"></div><script>
LOADER
MODULES
const { Terminal } = load("public/Terminal");
const terminal = new Terminal({cols: 80, rows: 24});
terminal.open(document.getElementById("t"));
const socket = new WebSocket("ws://127.0.0.1:PORT/");
socket.binaryType = "arraybuffer";
const type = text => terminal._core.handler(text);  // what a key does
const shown = () => Array.from({length: 24}, (_, y) =>
  terminal._core.buffer.translateBufferLineToString(y, true)).join("|");
const keys = KEYS;
socket.onmessage = event => {
  terminal.write(new TextDecoder().decode(event.data));
  setTimeout(() => {
    while (keys.length && shown().includes(keys[0][0])) type(keys.shift()[1]);
  }, 300);
};
terminal.on("data", data => socket.send(data));
</script>"""


def page_of(port: int, *keys: tuple[str, str]) -> str:
    """Make the page; each of *keys* is a text that the screen shows, and what is typed then."""
    if not LIBRARY.exists():
        if os.environ.get("TRIO_CHARDEV_REQUIRE_PEERS") == "1":
            pytest.fail("node-xterm is not installed, and TRIO_CHARDEV_REQUIRE_PEERS=1")
        pytest.skip("node-xterm is not installed")
    modules = "\n".join(
        f"modules[{json.dumps(str(path.relative_to(LIBRARY).with_suffix('')))}] = "
        f"function (require, module, exports) {{\n{path.read_text()}\n}};"
        for path in sorted(LIBRARY.rglob("*.js"))
        if not path.name.endswith(".test.js") and "addons" not in path.parts
    )
    page = PAGE.replace("LOADER", LOADER).replace("PORT", str(port))
    return page.replace("KEYS", json.dumps(keys)).replace("MODULES", modules)
