/** A real master process, killed again and again in the middle of its work: nothing acknowledged is lost, nothing is done twice. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { HeadpondError } from "../base/errors.ts";
import { Random } from "../base/random.ts";
import { silentLogger } from "../io/logger.ts";
import { NodeClock } from "../io/node-clock.ts";
import { TcpNetwork } from "../io/tcp-network.ts";
import { ClusterClient } from "../rpc/cluster-client.ts";
import { masterService, type Origin } from "../rpc/master-service.ts";
import { withCluster } from "../testing/cluster.ts";

const { methods } = masterService;
const clock = new NodeClock();
const lanes = 24;

describe("a master that is killed", () => {
  it("loses nothing acknowledged and applies nothing twice, over kills at random moments", {
    timeout: 120_000,
  }, async () => {
    const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 32));
    console.log(`seed ${seed}`);
    const random = new Random(seed);
    await withCluster(0, async (cluster) => {
      const [host = "", port = ""] = cluster.masterAddress.split(":");
      const client = new ClusterClient({
        network: new TcpNetwork(),
        addresses: [{ host, port: Number(port) }],
        service: masterService,
        self: { software: "test", role: "client", name: "test" },
        clock,
        logger: silentLogger,
        random,
        limits: { attemptTimeoutMs: 2000 },
      });
      const retried = { retryUnknown: true, timeoutMs: 60_000 } as const;
      const { sessionId } = await client.call(methods.openSession, { client: "killer" }, { timeoutMs: 60_000 });
      let sequence = 0;
      let isOver = false;
      /** How often each counter was raised, as acknowledged; a lane works on its own directory, one change at a time. */
      const counts = new Map<string, number>();
      const present = new Set<string>();
      const absent = new Set<string>();
      let changes = 0;
      const outstanding = new Set<number>();
      /** One change with a number of its own, sent again until it is answered. */
      const change = async <R>(make: (origin: Origin) => Promise<R>): Promise<R> => {
        const own = ++sequence;
        outstanding.add(own);
        try {
          return await make({ sessionId, sequence: own, acknowledged: Math.min(...outstanding) - 1 });
        } finally {
          outstanding.delete(own);
        }
      };

      const lane = async (number: number): Promise<void> => {
        const directory = `/lane-${number}`;
        await change((origin) => client.call(methods.mkdir, { path: directory, recursive: true, origin }, retried));
        for (let n = 0; !isOver; n++) {
          const path = `${directory}/${n}`;
          // Exclusive: applied twice, the second would answer that it exists.
          await change((origin) => client.call(methods.create, { path, exclusive: true, origin }, retried));
          present.add(path);
          if (n % 3 === 1) {
            const to = `${directory}/renamed-${n}`;
            await change((origin) => client.call(methods.rename, { from: path, to, replace: false, origin }, retried));
            present.delete(path);
            absent.add(path);
            present.add(to);
          }
          if (n % 5 === 4) {
            // A file that is already gone would be `not-found` the second time.
            await change((origin) => client.call(methods.remove, { path: `${directory}/${n}`, origin }, retried)).catch(
              (error: unknown) => {
                if (n % 3 !== 1 || (error as HeadpondError).code !== "not-found") throw error;
              },
            );
            present.delete(path);
            absent.add(path);
          }
          const { status } = await client.call(methods.stat, { path: directory }, { ...retried, readOnly: true });
          counts.set(directory, status.childCount ?? 0);
          changes++;
        }
      };
      const working = Promise.all(Array.from({ length: lanes }, (_, number) => lane(number)));
      working.catch(() => {});
      const kills = 4;
      for (let kill = 0; kill < kills; kill++) {
        await clock.sleep(random.between(50, 600));
        await cluster.restartMaster("SIGKILL");
      }
      await clock.sleep(200);
      isOver = true;
      await working;
      await cluster.restartMaster("SIGKILL");

      const exists = async (path: string): Promise<boolean> => {
        try {
          await client.call(methods.stat, { path }, { ...retried, readOnly: true });
          return true;
        } catch (error) {
          assert.equal(error instanceof HeadpondError && error.code, "not-found", `${path}: ${String(error)}`);
          return false;
        }
      };
      for (const path of present) assert.equal(await exists(path), true, `${path} was acknowledged and is lost`);
      for (const path of absent) assert.equal(await exists(path), false, `${path} was taken away and is back`);
      for (const [directory, count] of counts) {
        const names = [...present].filter((path) => path.startsWith(`${directory}/`));
        const { status } = await client.call(methods.stat, { path: directory }, { ...retried, readOnly: true });
        assert.equal(status.childCount, names.length, `${directory} had ${count} children at its last look`);
      }
      assert.ok(changes > lanes, `${changes} rounds were made`);
      console.log(`${changes} rounds of ${lanes} lanes over ${kills + 1} kills`);
      await client.close();
    });
  });
});
