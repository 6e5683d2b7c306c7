"""The stock SDK for Python, unchanged, against `slipstream dev`, which this starts and stops."""

import asyncio
import json
import unittest

from centrifuge import Client, ClientEventHandler, SubscriptionEventHandler

from server import PATIENCE_S, Server

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
