// The stock SDK, unchanged, against a running server.

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { Centrifuge } from "centrifuge";
import WebSocket from "ws";

import { PATIENCE_MS, WS_URL, freshChannel, publish, rest, soon } from "./support.mjs";

/** A client and, for each channel, what the SDK told its application. */
function newClient(t) {
  const client = new Centrifuge(WS_URL, { websocket: WebSocket, timeout: PATIENCE_MS, minReconnectDelay: 50 });
  t.after(() => client.disconnect());
  return client;
}

function event(source, name) {
  return soon(new Promise((resolve) => source.once(name, resolve)), name);
}

/** Subscribes, and keeps every publication in the order in which it came. */
async function follow(client, channel) {
  const subscription = client.newSubscription(channel);
  const received = [];
  const waiting = [];
  subscription.on("publication", (publication) => {
    received.push(publication);
    for (const wait of waiting.splice(0)) wait();
  });
  const subscribed = event(subscription, "subscribed");
  subscription.subscribe();
  const context = await subscribed;
  const count = async (wanted) => {
    const enough = (async () => {
      while (received.length < wanted) await new Promise((resolve) => waiting.push(resolve));
    })();
    await soon(enough, `${wanted} publications (have ${received.length})`);
    return received;
  };
  return { subscription, received, context, count };
}

function ascending(publications) {
  return publications.every((publication, i) => i === 0 || publications[i - 1].offset < publication.offset);
}

const numbers = (publications) => publications.map((publication) => publication.data.n);

describe("the stock SDK", () => {
  test("connects, subscribes, publishes and receives", async (t) => {
    const channel = freshChannel();
    const client = newClient(t);
    const connected = event(client, "connected");
    client.connect();
    assert.ok((await connected).client, "a connection has an id");

    const { context, count } = await follow(client, channel);
    assert.equal(context.recoverable, true);
    assert.ok(context.streamPosition?.epoch, "an empty channel has a position too");

    await client.publish(channel, { n: 1 });
    await publish(channel, { n: 2 });
    const received = await count(2);
    assert.deepEqual(numbers(received), [1, 2]);
    assert.ok(ascending(received));
    assert.ok(received[0].info?.client, "a client's publication tells who it was");
    assert.equal(received[1].info, undefined, "a backend's does not");
  });

  test("comes back to everything it missed, in order, once", async (t) => {
    const channel = freshChannel();
    const client = newClient(t);
    client.connect();
    const { subscription, received, count } = await follow(client, channel);
    await publish(channel, { n: 1 });
    await count(1);

    client.disconnect();
    for (let n = 2; n <= 41; n++) await publish(channel, { n });
    const resubscribed = event(subscription, "subscribed");
    client.connect();
    const context = await resubscribed;
    assert.equal(context.wasRecovering, true);
    assert.equal(context.recovered, true);

    await publish(channel, { n: 42 });
    await count(42);
    assert.deepEqual(numbers(received), Array.from({ length: 42 }, (_, i) => i + 1));
    assert.ok(ascending(received));
  });

  test("recovers an empty channel, and the first publication it missed there", async (t) => {
    const channel = freshChannel();
    const client = newClient(t);
    client.connect();
    const { subscription, count } = await follow(client, channel);

    for (const missed of [0, 1]) {
      client.disconnect();
      for (let n = 1; n <= missed; n++) await publish(channel, { n });
      const resubscribed = event(subscription, "subscribed");
      client.connect();
      assert.equal((await resubscribed).recovered, true, `${missed} missed`);
    }
    assert.deepEqual(numbers(await count(1)), [1]);
  });

  test("is told that a position of another epoch cannot be recovered", async (t) => {
    const channel = freshChannel();
    await publish(channel, { n: 1 });
    const client = newClient(t);
    client.connect();
    const subscription = client.newSubscription(channel, { since: { offset: 1, epoch: "another" } });
    const received = [];
    subscription.on("publication", (publication) => received.push(publication));
    const subscribed = event(subscription, "subscribed");
    subscription.subscribe();
    const context = await subscribed;
    assert.deepEqual([context.wasRecovering, context.recovered], [true, false]);
    assert.deepEqual(received, []);
  });

  test("reads history forwards, backwards and from a position", async (t) => {
    const channel = freshChannel();
    for (let n = 1; n <= 5; n++) await publish(channel, { n });
    const client = newClient(t);
    client.connect();
    const { subscription } = await follow(client, channel);

    const all = await subscription.history({ limit: 100 });
    assert.deepEqual(numbers(all.publications), [1, 2, 3, 4, 5]);
    const newest = await subscription.history({ limit: 2, reverse: true });
    assert.deepEqual(numbers(newest.publications), [5, 4]);
    const since = { offset: all.publications[1].offset, epoch: all.epoch };
    const rest = await subscription.history({ limit: 2, since });
    assert.deepEqual(numbers(rest.publications), [3, 4]);
    const none = await subscription.history({ limit: 0 });
    assert.deepEqual(none.publications, []);
    assert.equal(none.offset, all.offset);
  });

  test("talks on an ephemeral channel, which has no history", async (t) => {
    const channel = freshChannel("live");
    const [talker, listener] = [newClient(t), newClient(t)];
    talker.connect();
    listener.connect();
    const { context, count, subscription } = await follow(listener, channel);
    assert.equal(context.recoverable, false);
    await talker.publish(channel, { n: 1 });
    assert.deepEqual(numbers(await count(1)), [1]);
    await assert.rejects(subscription.history({ limit: 1 }), { code: 108 });
  });

  test("is refused what needs a token, and what has no rule", async (t) => {
    const client = newClient(t);
    client.connect();
    for (const [channel, code] of [["chat:room", 103], ["nowhere:room", 102]]) {
      const subscription = client.newSubscription(channel);
      const refused = event(subscription, "unsubscribed");
      subscription.subscribe();
      assert.equal((await refused).code, code, channel);
    }
  });

  test("keeps the order of fifty publications sent at once", async (t) => {
    const channel = freshChannel();
    const client = newClient(t);
    client.connect();
    const { count } = await follow(client, channel);
    const wanted = Array.from({ length: 50 }, (_, i) => i);
    await soon(Promise.all(wanted.map((n) => client.publish(channel, { n }))), "publishing");
    assert.deepEqual(numbers(await count(50)), wanted);
  });

  test("sees who is there, and who comes, changes and goes", async (t) => {
    const channel = freshChannel();
    const [ann, bob] = [newClient(t), newClient(t)];
    ann.connect();
    const here = ann.newSubscription(channel, { joinLeave: true });
    const heard = { join: [], leave: [] };
    for (const kind of ["join", "leave"]) here.on(kind, ({ info }) => heard[kind].push(info.client));
    const subscribed = event(here, "subscribed");
    const own = event(here, "join");
    here.subscribe();
    await subscribed;
    const { info } = await own;

    const came = event(here, "join");
    bob.connect();
    const connected = event(bob, "connected");
    const there = bob.newSubscription(channel);
    there.subscribe();
    const { client } = await connected;
    assert.equal((await came).info.client, client);

    assert.deepEqual(await here.presenceStats(), { numClients: 2, numUsers: 1 });
    const { clients } = await here.presence();
    assert.deepEqual(Object.keys(clients).sort(), [info.client, client].sort());

    await bob.rpc("slipstream.presence.update", { channel, state: { typing: true } });
    const after = await here.presence();
    assert.equal(after.clients[client].client, client, "a field more does no harm");

    const went = event(here, "leave");
    there.unsubscribe();
    assert.equal((await went).info.client, client);
    assert.deepEqual(await here.presenceStats(), { numClients: 1, numUsers: 1 });
    assert.deepEqual(heard, { join: [info.client, client], leave: [client] });
  });

  test("is subscribed, unsubscribed and disconnected by a backend, through Centrifugo's server API", async (t) => {
    const channel = freshChannel();
    const { result: first } = await rest("POST", "/api/publish", { channel, data: { n: 1 } });
    await publish(channel, { n: 2 });
    const client = newClient(t);
    const connected = event(client, "connected");
    client.connect();
    const mine = { user: "", client: (await connected).client };
    const received = [];
    client.on("publication", (publication) => received.push(publication));

    const subscribed = event(client, "subscribed");
    const recover_since = { offset: first.offset, epoch: first.epoch };
    const done = await rest("POST", "/api/subscribe", { ...mine, channel, recover_since });
    assert.deepEqual(done, { result: {} });
    const context = await subscribed;
    assert.deepEqual([context.channel, context.recoverable], [channel, true]);
    const another = new Promise((resolve) => {
      client.on("publication", () => received.length >= 2 && resolve());
      if (received.length >= 2) resolve();
    });
    await publish(channel, { n: 3 });
    await soon(another, "both publications");
    assert.deepEqual(numbers(received), [2, 3], "what it was to recover, and what came");

    const { result } = await rest("POST", "/api/channels", { pattern: `${channel}*` });
    assert.deepEqual(result, { channels: { [channel]: { num_clients: 1 } } });
    const info = await rest("POST", "/api/info", {});
    assert.ok(info.result.nodes[0].num_clients >= 1);

    const unsubscribed = event(client, "unsubscribed");
    await rest("POST", "/api/unsubscribe", { ...mine, channel });
    assert.equal((await unsubscribed).channel, channel);

    const disconnected = event(client, "disconnected");
    const how = { code: 4501, reason: "enough" };
    await rest("POST", "/api/disconnect", { ...mine, disconnect: how });
    const { code, reason } = await disconnected;
    assert.deepEqual({ code, reason }, how, "and it stays away");
  });
});
