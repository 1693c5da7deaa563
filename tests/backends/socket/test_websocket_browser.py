"""A browser's WebSocket: a script in the page is the client, and reports what happened to it."""

from __future__ import annotations

from pathlib import Path

from tests.browser import showing
from tests.links import serving
from trio_chardev.backends.socket.addresses import InetAddress
from trio_chardev.backends.socket.socket import SocketOptions
from trio_chardev.events import Event

TALK = """<!doctype html><meta charset="utf-8"><script>
const socket = new WebSocket("ws://127.0.0.1:PORT/", ["binary"]);
socket.binaryType = "arraybuffer";
socket.onopen = () => {
  socket.send("protocol " + socket.protocol + ", text ä\\r");  // as xterm.js does
  socket.send(Uint8Array.from({length: 256}, (_, i) => i));
  socket.send(new Uint8Array(200000).fill(7));
};
let got = 0;
socket.onmessage = event => {
  got += event.data.byteLength;
  if (got == 300000) socket.send("got all");
  if (new Uint8Array(event.data).at(-1) == 1) socket.close(4000, "done");
};
socket.onclose = event => {
  const again = new WebSocket("ws://127.0.0.1:PORT/");
  again.onopen = () => again.send(`closed ${event.code} ${event.wasClean}`);
};
</script>"""

STRANGER = """<!doctype html><script>
const refused = new WebSocket("ws://127.0.0.1:PORT/", ["binary"]);
refused.onopen = () => refused.send("what it must not");
refused.onerror = () => {
  new WebSocket("ws://127.0.0.1:OTHER/").onopen = event => event.target.send("refused");
};
</script>"""


async def test_a_page_sends_text_and_binary_and_closes(tmp_path: Path) -> None:
    options = SocketOptions(addr=InetAddress("127.0.0.1", "0"), websocket=True, origins=("null",))
    async with serving(options) as server, showing(at_port(TALK, server.port), tmp_path):
        sent = "protocol binary, text ä\r".encode() + bytes(range(256)) + b"\7" * 200_000
        await server.received_all(sent)
        await server.send(bytes(300_000))
        await server.received_all(b"got all")
        await server.send(b"\1")
        await server.received_all(b"closed 4000 true")
        assert server.events == [Event.OPENED, Event.CLOSED, Event.OPENED]


async def test_a_page_from_elsewhere_is_refused(tmp_path: Path) -> None:
    """One from a file has no host, and so is not from the same."""
    addr = InetAddress("127.0.0.1", "0")
    async with (
        serving(SocketOptions(addr=addr, websocket=True)) as server,
        serving(SocketOptions(addr=addr, websocket=True, origins=("*",))) as other,
    ):
        page = at_port(STRANGER, server.port).replace("OTHER", str(other.port))
        async with showing(page, tmp_path):
            await other.received_all(b"refused")
    assert server.events == []


def at_port(page: str, port: int) -> str:
    return page.replace("PORT", str(port))
