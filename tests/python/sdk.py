"""The stock SDK for Python, unchanged, against `slipstream dev`, which this starts and stops.

The binary is SLIPSTREAM_BIN, or the one that `cargo build` leaves in target/debug.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import os
import pathlib
import signal
import subprocess
import tempfile
import unittest
import urllib.request

from centrifuge import Client, ClientEventHandler, SubscriptionEventHandler

ROOT = pathlib.Path(__file__).parents[2]
BINARY = os.environ.get("SLIPSTREAM_BIN", str(ROOT / "target/debug/slipstream"))
API_KEY = "key-of-the-sdk-tests"
PATIENCE_S = 20


def encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Server:
    """`slipstream dev` with a folder of its own."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="slipstream-python-")
        arguments = ["dev", "--listen", "127.0.0.1:0", "--data-dir", self.folder.name, "--dev-key", API_KEY]
        self.process = subprocess.Popen([BINARY, *arguments], stdout=subprocess.PIPE, text=True)
        for line in self.process.stdout:
            if line.startswith("ready "):
                self.url = line.split()[1]
                return
        raise RuntimeError("`slipstream dev` ended before it was ready")

    def token(self, claims: dict) -> str:
        secret = pathlib.Path(self.folder.name, "token-secret").read_text().strip()
        head = encode(json.dumps({"alg": "HS256", "typ": "JWT"}).encode())
        signed = f"{head}.{encode(json.dumps(claims).encode())}"
        return f"{signed}.{encode(hmac.digest(secret.encode(), signed.encode(), hashlib.sha256))}"

    def publish(self, channel: str, data) -> None:
        request = urllib.request.Request(
            f"{self.url}/v1/channels/{channel}/publications",
            data=json.dumps({"data": data}).encode(),
            headers={"X-API-Key": API_KEY, "Content-Type": "application/json"},
        )
        urllib.request.urlopen(request, timeout=PATIENCE_S).close()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(PATIENCE_S)
        self.process.stdout.close()
        self.folder.cleanup()
        return code


class Heard:
    """What an SDK told its application, by kind."""

    def __init__(self):
        self.queues = {}

    def note(self, kind: str):
        async def handler(context):
            self.queues.setdefault(kind, asyncio.Queue()).put_nowait(context)

        return handler

    async def next(self, kind: str):
        queue = self.queues.setdefault(kind, asyncio.Queue())
        return await asyncio.wait_for(queue.get(), PATIENCE_S)

    def on(self, handler, *kinds: str):
        for kind in kinds:
            setattr(handler, f"on_{kind}", self.note(kind))
        return handler


class StockSdk(unittest.IsolatedAsyncioTestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server()

    @classmethod
    def tearDownClass(cls):
        assert cls.server.stop() == 0, "`slipstream dev` did not stop in order"

    def client(self, heard: Heard, *kinds: str, token: str = "") -> Client:
        address = self.server.url.replace("http", "ws", 1) + "/connection/websocket"
        client = Client(address, events=heard.on(ClientEventHandler(), *kinds), token=token)
        self.addAsyncCleanup(client.disconnect)
        return client

    async def test_presence_with_joins_and_leaves(self):
        heard = Heard()
        ann = self.client(Heard(), token=self.server.token({"sub": "ann", "info": {"name": "Ann"}}))
        await ann.connect()
        events = heard.on(SubscriptionEventHandler(), "subscribed", "join", "leave")
        here = ann.new_subscription("public:python", events=events, join_leave=True)
        await here.subscribe()
        await heard.next("subscribed")
        own = (await heard.next("join")).info
        self.assertEqual((own.user, own.conn_info), ("ann", {"name": "Ann"}))

        bob = self.client(Heard())
        await bob.connect()
        there = bob.new_subscription("public:python")
        await there.subscribe()
        came = (await heard.next("join")).info
        stats = await here.presence_stats()
        self.assertEqual((stats.num_clients, stats.num_users), (2, 2))
        clients = (await here.presence()).clients
        self.assertEqual(set(clients), {own.client, came.client})

        await there.unsubscribe()
        self.assertEqual((await heard.next("leave")).info.client, came.client)
        stats = await here.presence_stats()
        self.assertEqual((stats.num_clients, stats.num_users), (1, 1))

    async def test_server_side_subscriptions(self):
        heard = Heard()
        token = self.server.token({"sub": "ann", "channels": ["chat:python"]})
        client = self.client(heard, "subscribed", "publication", token=token)
        await client.connect()
        self.assertEqual((await heard.next("subscribed")).channel, "chat:python")
        self.server.publish("chat:python", {"n": 1})
        self.assertEqual((await heard.next("publication")).pub.data, {"n": 1})
        # Away and back: what was missed comes with the connect.
        await client.disconnect()
        self.server.publish("chat:python", {"n": 2})
        await client.connect()
        self.assertTrue((await heard.next("subscribed")).recovered)
        self.assertEqual((await heard.next("publication")).pub.data, {"n": 2})


if __name__ == "__main__":
    unittest.main(verbosity=2)
