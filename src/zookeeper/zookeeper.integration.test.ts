/** The client against three real servers: operations, and what happens when servers die, hang, or lose replies. */

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { isHeadpondError } from "../base/errors.ts";
import { Random } from "../base/random.ts";
import { silentLogger } from "../io/logger.ts";
import type { Address, Network } from "../io/network.ts";
import { NodeClock } from "../io/node-clock.ts";
import { TcpNetwork } from "../io/tcp-network.ts";
import { CuttableNetwork } from "../testing/cuttable-network.ts";
import { hasZooKeeper, withZooKeeper, type ZooKeeperEnsemble } from "../testing/zookeeper-ensemble.ts";
import { DigestMd5 } from "./digest-md5.ts";
import { creatorAcl } from "./protocol.ts";
import { ZooKeeper } from "./zookeeper.ts";

const clock = new NodeClock();
const credentials = { user: "headpond", password: 'p"w\\d' };
const available = await hasZooKeeper();

describe("with a real ensemble", { skip: available ? false : "zookeeper (Debian) is not installed" }, () => {
  let directory: string;
  let ensemble: ZooKeeperEnsemble;
  let end: () => void;
  let ended: Promise<void>;

  before(async () => {
    directory = await mkdtemp(join(tmpdir(), "headpond-zk-"));
    await new Promise<void>((ready, failed) => {
      ended = withZooKeeper(
        directory,
        async (started) => {
          ensemble = started;
          ready();
          await new Promise<void>((done) => (end = done));
        },
        { auth: { user: credentials.user, password: credentials.password.replace(/["\\]/g, "\\$&") } },
      );
      ended.catch(failed);
    });
  });

  after(async () => {
    end?.();
    await ended;
    await rm(directory, { recursive: true, force: true });
  });

  const client = (
    options: {
      readonly servers?: readonly Address[];
      readonly network?: Network;
      readonly random?: Random;
      readonly sasl?: DigestMd5;
      readonly auth?: readonly { scheme: string; auth: string }[];
    } = {},
  ): ZooKeeper => {
    const network = new TcpNetwork();
    const random = new Random(Date.now());
    const servers = ensemble.servers;
    return new ZooKeeper({ network, clock, logger: silentLogger, random, servers, sessionTimeoutMs: 2000, ...options });
  };
  const using = async (zookeeper: ZooKeeper, use: (zookeeper: ZooKeeper) => Promise<void>): Promise<void> => {
    try {
      await use(zookeeper);
    } finally {
      await zookeeper.close();
    }
  };

  test("nodes are made, read, changed by version, listed and removed", () =>
    using(client(), async (zookeeper) => {
      const { path, stat } = await zookeeper.create("/basics", Buffer.from("one"));
      assert.equal(path, "/basics");
      assert.equal(stat.version, 0);
      await assert.rejects(zookeeper.create("/basics"), { code: "already-exists" });
      const first = await zookeeper.get("/basics");
      assert.equal(first.data.toString(), "one");
      assert.equal((await zookeeper.set("/basics", Buffer.from("two"), 0)).version, 1);
      await assert.rejects(zookeeper.set("/basics", Buffer.from("three"), 0), { code: "version-mismatch" });
      await zookeeper.create("/basics/größe", new Uint8Array(0));
      const numbered = await zookeeper.create("/basics/n-", undefined, { mode: "persistent-sequential" });
      assert.match(numbered.path, /^\/basics\/n-\d{10}$/);
      assert.deepEqual([...(await zookeeper.children("/basics")).names].sort(), ["größe", numbered.path.slice(8)]);
      await assert.rejects(zookeeper.remove("/basics"), { code: "not-empty" });
      assert.equal(await zookeeper.exists("/none"), undefined);
      await assert.rejects(zookeeper.get("/none"), { code: "not-found" });
      await zookeeper.create("/basics/container", undefined, { mode: "container" });
      await zookeeper.create("/basics/brief", undefined, { ttlMs: 60_000 });
      assert.throws(() => zookeeper.create("/basics/x", undefined, { mode: "ephemeral", ttlMs: 1 }), {
        code: "invalid",
      });
      await zookeeper.sync("/basics");
    }));

  test("a multi with a check of version 0 is all or nothing", () =>
    using(client(), async (zookeeper) => {
      await zookeeper.create("/fence", Buffer.from("epoch 1"));
      const guarded = (): Promise<unknown> =>
        zookeeper.multi([
          { kind: "check", path: "/fence", version: 0 },
          { kind: "create", path: `/guarded-${randomUUID()}`, data: new Uint8Array(0) },
        ]);
      await guarded();
      await zookeeper.set("/fence", Buffer.from("epoch 2"));
      const before = (await zookeeper.children("/")).names.length;
      await assert.rejects(guarded(), (error: unknown) => {
        assert.ok(isHeadpondError(error, "version-mismatch"), String(error));
        assert.equal(error.details?.["operation"], 0);
        return true;
      });
      assert.equal((await zookeeper.children("/")).names.length, before);
      const results = await zookeeper.multi([
        { kind: "create", path: "/multi", data: Buffer.from("a"), options: { mode: "ephemeral" } },
        { kind: "set", path: "/fence", data: Buffer.from("epoch 3"), version: 1 },
        { kind: "remove", path: "/multi", version: -1 },
      ]);
      assert.deepEqual(
        results.map(({ kind }) => kind),
        ["create", "set", "remove"],
      );
      await assert.rejects(zookeeper.multi([{ kind: "remove", path: "/none", version: -1 }]), { code: "not-found" });
    }));

  test("watches tell of changes once, persistent ones always, recursive ones of all below", () =>
    using(client(), (zookeeper) =>
      using(client(), async (other) => {
        const heard: string[] = [];
        const hear =
          (name: string) =>
          ({ type, path }: { type: string; path: string }): number =>
            heard.push(`${name} ${type} ${path}`);
        await zookeeper.exists("/watched", hear("once"));
        const stop = await zookeeper.addWatch("/watched", "persistent", hear("always"));
        await zookeeper.addWatch("/", "recursive", hear("below"));
        await assert.rejects(zookeeper.addWatch("/watched", "recursive", hear("twice")), { code: "invalid" });
        await other.create("/watched");
        await other.create("/watched/child");
        await other.set("/watched/child", Buffer.from("x"));
        await other.remove("/watched/child");
        await zookeeper.sync("/watched");
        await until(() => heard.includes("below deleted /watched/child"));
        stop();
        await other.set("/watched", Buffer.from("y"));
        await zookeeper.sync("/watched");
        await until(() => heard.includes("below changed /watched"));
        assert.equal(heard.filter((line) => line.startsWith("once")).length, 1);
        assert.deepEqual(
          heard.filter((line) => line.startsWith("always")),
          ["always created /watched", "always children /watched", "always children /watched"],
        );
      }),
    ));

  test("an ephemeral node belongs to its session and goes with it", () =>
    using(client(), async (zookeeper) => {
      const owner = client();
      const { stat } = await owner.create("/mine", undefined, { mode: "ephemeral" });
      assert.equal(stat.ephemeralOwner, owner.sessionId);
      await owner.close();
      await zookeeper.sync("/mine");
      assert.equal(await zookeeper.exists("/mine"), undefined);
    }));

  test("a session outlives the server that it was connected with, and its watches with it", () =>
    using(client(), (other) =>
      using(client(), async (zookeeper) => {
        await zookeeper.create("/outlives", undefined, { mode: "ephemeral" });
        const heard: string[] = [];
        await zookeeper.addWatch("/outlives", "persistent", ({ type }) => heard.push(type));
        const { sessionId } = zookeeper;
        // One after the other, so that the one it is connected with is among them, and a majority is always up.
        for (let i = 0; i < 3; i++) {
          await ensemble.stop(i);
          await retried(() => other.set("/outlives", Buffer.from(String(i))));
          await ensemble.start(i);
          await retried(() => zookeeper.get("/outlives"));
        }
        assert.equal(zookeeper.sessionId, sessionId);
        assert.equal(zookeeper.state, "connected");
        await until(() => heard.length >= 1);
      }),
    ));

  test("a server that hangs is left in time, and the session goes on at another", () =>
    using(client(), async (zookeeper) => {
      await zookeeper.create("/hang", undefined, { mode: "ephemeral" });
      const leader = await ensemble.leader();
      // The leader is not frozen: the question is what the client does, not the ensemble.
      const frozen = [0, 1, 2].filter((i) => i !== leader)[0] as number;
      const servers = [ensemble.servers[frozen] as Address, ensemble.servers[leader] as Address];
      const pinned = client({ servers, random: keepingOrder() });
      await using(pinned, async () => {
        await pinned.create("/pinned", undefined, { mode: "ephemeral" });
        ensemble.freeze(frozen);
        try {
          await retried(() => pinned.set("/pinned", Buffer.from("x")));
          assert.notEqual(pinned.state, "expired");
        } finally {
          ensemble.thaw(frozen);
        }
      });
    }));

  test("a client that is cut off for longer than its session is told so, and its nodes are gone", () =>
    using(client(), async (other) => {
      const network = new CuttableNetwork(new TcpNetwork());
      const zookeeper = client({ network });
      await zookeeper.create("/cut", undefined, { mode: "ephemeral" });
      const states: string[] = [];
      zookeeper.onState((state) => states.push(state));
      network.cut();
      await until(async () => (await other.exists("/cut")) === undefined);
      network.heal();
      await until(() => zookeeper.state === "expired");
      assert.equal(states.at(-1), "expired");
      const error = await zookeeper.set("/cut", new Uint8Array(0)).catch((thrown: unknown) => thrown);
      assert.ok(isHeadpondError(error) && !error.retryable, String(error));
    }));

  test("a create whose reply was lost is unknown, and can be found again by its name", () =>
    using(client(), async (other) => {
      const network = new CuttableNetwork(new TcpNetwork());
      const zookeeper = client({ network });
      await using(zookeeper, async () => {
        await zookeeper.create("/election");
        const guid = randomUUID();
        network.dropReplies();
        const lost = await zookeeper
          .create(`/election/${guid}-`, undefined, { mode: "ephemeral-sequential" })
          .catch((error: unknown) => error);
        assert.ok(isHeadpondError(lost, "unknown-outcome"), String(lost));
        network.heal();
        const { names } = await retried(() => zookeeper.children("/election"));
        const mine = names.filter((name) => name.startsWith(guid));
        assert.equal(mine.length, 1);
        const { stat } = await other.get(`/election/${mine[0]}`);
        assert.equal(stat.ephemeralOwner, zookeeper.sessionId);
      });
    }));

  test("who proves to know the password may read what others may not", async () => {
    const sasl = new DigestMd5({ ...credentials, nonce: randomUUID });
    await using(client({ sasl }), async (zookeeper) => {
      await zookeeper.create("/secret", Buffer.from("s"), { acl: creatorAcl });
      assert.equal((await zookeeper.get("/secret")).data.toString(), "s");
    });
    await using(client(), (stranger) => assert.rejects(stranger.get("/secret"), { code: "denied" }));
    const wrong = client({ sasl: new DigestMd5({ user: "headpond", password: "wrong", nonce: randomUUID }) });
    await assert.rejects(wrong.get("/secret"));
    assert.equal(wrong.state, "auth-failed");
    await using(client({ auth: [{ scheme: "digest", auth: "me:pw" }] }), (zookeeper) =>
      zookeeper.create("/digest", Buffer.from("d"), { acl: creatorAcl }).then(() => {}),
    );
    await using(client(), (stranger) => assert.rejects(stranger.get("/digest"), { code: "denied" }));
  });
});

/** The first of two servers is asked first. */
function keepingOrder(): Random {
  for (let seed = 1; ; seed++) if (new Random(seed).shuffle([1, 2])[0] === 1) return new Random(seed);
}

async function until(holds: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = Date.now() + 30_000;
  while (!(await holds())) {
    if (Date.now() > deadline) throw new Error(`it did not come true: ${holds.toString()}`);
    await sleep(20);
  }
}

/** As every user of a session does: what was lost with a connection is asked again. */
async function retried<T>(ask: () => Promise<T>): Promise<T> {
  const deadline = Date.now() + 30_000;
  for (;;) {
    try {
      return await ask();
    } catch (error) {
      if (!isHeadpondError(error) || !error.retryable || Date.now() > deadline) throw error;
      await sleep(20);
    }
  }
}
