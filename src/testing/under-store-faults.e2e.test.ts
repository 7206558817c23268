/** Under stores that are down, slow, lie and change, as readers of real workers see them: SDK, files, Hub mirror. */

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { JobStatus } from "../base/cluster.ts";
import { isHeadpondError, toHeadpondError } from "../base/errors.ts";
import { MiB } from "../base/units.ts";
import { connect, type HeadpondClient } from "../client/client.ts";
import { sha256, type TestCluster, withCluster } from "./cluster.ts";
import { type Fault, FaultOrigin } from "./fault-origin.ts";

/** Nothing hangs: every question is answered, or its connection cut, within this time. */
const patienceMs = 90_000;

async function withOrigin(use: (origin: FaultOrigin) => Promise<void>): Promise<void> {
  const origin = await FaultOrigin.start();
  try {
    await use(origin);
  } finally {
    await origin.close();
  }
}

// What is lost are the blocks that were on their way to the owner when it died: two of 4 MiB at once, of 384 MiB.
test("a load during which an owner of its blocks is killed reads at most 1.05 of its bytes from the under store", {
  timeout: 150_000,
}, async () => {
  await withOrigin(async (origin) => {
    const weights = randomBytes(384 * MiB);
    origin.put("org/big/model.safetensors", weights);
    await withCluster(
      3,
      async (cluster) => {
        await using client = connect({ masters: [cluster.masterAddress] });
        await client.mount("/models", origin.uri);
        origin.bytesPerSecond = 16 * MiB;
        const job = await client.load("/models/org/big", { to: "2" });
        const before = origin.sentBytes;
        while (origin.sentBytes - before < 150 * MiB) await sleep(20);
        // It owns a third of the blocks, and is not one of those that the load waits for.
        const owner = [0, 1, 2].find((index) => !job.plan.workers.some((id) => id === `w${index}`)) ?? assert.fail();
        await cluster.workers[owner]?.process.stop("SIGKILL");
        const end = await job.done();
        assert.equal(end.state, "succeeded", JSON.stringify(end.failed));
        const amplification = (origin.sentBytes - before) / weights.length;
        console.log(
          `the origin sent ${amplification.toFixed(4)} of the bytes; the job says ${end.originAmplification}`,
        );
        assert.ok(amplification <= 1.05, `the origin sent ${amplification} of the bytes`);
        await cluster.restartWorker(owner);
        assert.equal(
          (await client.load("/models/org/big", { to: "all" }).then((all) => all.done())).state,
          "succeeded",
        );
        const inAll = (origin.sentBytes - before) / weights.length;
        assert.ok(inAll <= 1.05, `with the return of the owner the origin sent ${inAll} of the bytes`);
        for (const worker of cluster.workers) {
          const response = await fetch(`${worker.ready.endpoints["files"]}/models/org/big/model.safetensors`);
          assert.equal(sha256(new Uint8Array(await response.arrayBuffer())), sha256(weights));
        }
      },
      { worker: () => ({ originConcurrency: 2 }) },
    );
  });
});

type Answer = { readonly status: number; readonly retryAfter: string | null; readonly text: string };

async function ask(url: string): Promise<Answer> {
  const response = await fetch(url, { signal: AbortSignal.timeout(patienceMs) });
  return { status: response.status, retryAfter: response.headers.get("retry-after"), text: await response.text() };
}

async function readWhole(client: HeadpondClient, path: string): Promise<Buffer> {
  await using file = await client.open(path);
  const parts: Buffer[] = [];
  for await (const chunk of file.stream()) parts.push(Buffer.from(chunk));
  return Buffer.concat(parts);
}

test("readers of a store that is down, silent, broken, lying or throttling get clear errors in time, and what is held goes on", {
  timeout: 290_000,
  // Each fault is waited for until patience ends: side by side.
  concurrency: true,
}, async (t) => {
  await withOrigin(async (origin) => {
    const held = randomBytes(5 * MiB + 1);
    const cold = randomBytes(5 * MiB + 3);
    origin.put("repo/held.bin", held);
    const faults = ["silent", "stalls", "cuts", "broken", "throttles"] as const satisfies Fault[];
    for (const name of [...faults, "short-range"]) origin.put(`repo/${name}.safetensors`, cold);
    const dying = await FaultOrigin.start();
    dying.put("repo/down.safetensors", cold);
    await withCluster(1, async (cluster) => {
      await using client = connect({ masters: [cluster.masterAddress] });
      await client.mkdir("/models");
      await client.mount("/models/org", origin.uri);
      await client.mount("/models/down", dying.uri);
      assert.equal((await cluster.json<JobStatus>("load", "/models/org/repo/held.bin")).state, "succeeded");
      for (const place of ["org", "down"]) for await (const _ of client.list(`/models/${place}/repo`));
      const { files = "", hf = "" } = cluster.workers[0]?.ready.endpoints ?? {};
      // The mirror knows the revision before the fault; what it lacks are the bytes.
      for (const place of ["org", "down"]) {
        assert.equal((await ask(`${hf}/api/models/${place}/repo/revision/main`)).status, 200);
      }

      const check = async (place: string, name: string): Promise<void> => {
        const [byFiles, byHub, bySdk, heldBytes] = await Promise.all([
          ask(`${files}/models/${place}/repo/${name}.safetensors`),
          ask(`${hf}/${place}/repo/resolve/main/${name}.safetensors`),
          readWhole(client, `/models/${place}/repo/${name}.safetensors`).then(
            () => assert.fail("bytes came from a store that gives none"),
            (error: unknown) => toHeadpondError(error),
          ),
          fetch(`${files}/models/org/repo/held.bin`).then(async (response) =>
            Buffer.from(await response.arrayBuffer()),
          ),
        ]);
        assert.equal(sha256(heldBytes), sha256(held));
        assert.ok([429, 502, 503, 504].includes(byFiles.status), `files: ${byFiles.status} ${byFiles.text}`);
        const document = JSON.parse(byFiles.text) as { code: string; message: string; retryable: boolean };
        assert.ok(document.retryable, byFiles.text);
        assert.equal(byHub.status, 429, byHub.text);
        assert.match(byHub.retryAfter ?? "", /^\d+$/);
        assert.ok(bySdk.retryable, `${bySdk.code}: ${bySdk.message}`);
        assert.match(bySdk.message, /\.safetensors|127\.0\.0\.1/);
      };
      await t.test("a store that answers less than it was asked for is asked until the file is whole", async () => {
        origin.faults.set("repo/short-range.safetensors", "short-range");
        assert.equal(sha256(await readWhole(client, "/models/org/repo/short-range.safetensors")), sha256(cold));
      });
      for (const fault of faults) origin.faults.set(`repo/${fault}.safetensors`, fault);
      const down = async (): Promise<void> => {
        const resume = await dying.down();
        await check("down", "down");
        const listed = await cluster.run("fs", "ls", "/models/down/repo");
        assert.match(listed.stdout, /down\.safetensors/);
        const unknown = await cluster.run("fs", "stat", "/models/down/never", "--json");
        assert.notEqual(unknown.code, 0);
        assert.match(unknown.stdout, /under store http:\/\/127\.0\.0\.1:\d+\/? of mount \/models\/down did not answer/);
        await resume();
      };
      // A store that hangs does not keep others from being read: the one that is down is asked beside it.
      await Promise.all([t.test("down", down), ...faults.map((fault) => t.test(fault, () => check("org", fault)))]);
      await t.test("and once it is well again the bytes come, whole", async () => {
        origin.faults.clear();
        for (const name of [...faults, "down"]) {
          const place = name === "down" ? "down" : "org";
          await eventuallyReads(client, `/models/${place}/repo/${name}.safetensors`, cold);
          const response = await fetch(`${hf}/${place}/repo/resolve/main/${name}.safetensors`);
          assert.equal(sha256(new Uint8Array(await response.arrayBuffer())), sha256(cold));
        }
        await dying.close();
      });
    });
  });
});

async function eventuallyReads(client: HeadpondClient, path: string, wanted: Uint8Array): Promise<void> {
  let last: unknown;
  for (let round = 0; round < 30; round++) {
    try {
      assert.equal(sha256(await readWhole(client, path)), sha256(wanted));
      return;
    } catch (error) {
      if (!isHeadpondError(error)) throw error;
      last = error;
      await sleep(1000);
    }
  }
  throw last as Error;
}

test("a file that changes in its store while it is read gives one content or an error, through every door", {
  timeout: 120_000,
}, async () => {
  await withOrigin(async (origin) => {
    await withCluster(
      1,
      async (cluster) => {
        await using client = connect({ masters: [cluster.masterAddress] });
        await client.mount("/models", origin.uri);
        for (const door of ["sdk", "files", "hf"] as const) {
          const name = `org/${door}/model.safetensors`;
          const [old, young] = [randomBytes(40 * MiB + 1), randomBytes(40 * MiB + 1)];
          origin.put(name, old);
          // Two blocks at a time: the later ones are asked for when the file has changed.
          origin.bytesPerSecond = 8 * MiB;
          const received = await readUntilBroken(cluster, client, door, () => origin.put(name, young));
          origin.bytesPerSecond = Number.POSITIVE_INFINITY;
          assert.ok(received.length > 0, `${door}: nothing came`);
          assert.ok(old.subarray(0, received.length).equals(received), `${door}: two contents were mixed`);
          assert.ok(received.length < old.length, `${door}: the change came too late to be one under the read`);
          await eventuallyReads(client, `/models/${name}`, young);
          const response = await fetch(
            door === "hf"
              ? `${cluster.workers[0]?.ready.endpoints["hf"]}/org/${door}/resolve/main/model.safetensors`
              : `${cluster.workers[0]?.ready.endpoints["files"]}/models/${name}`,
          );
          const again = Buffer.from(await response.arrayBuffer());
          assert.ok(
            again.equals(young),
            `${door}: ${response.status}, ${again.length} bytes that are not the new content`,
          );
        }
      },
      { worker: () => ({ originConcurrency: 2 }) },
    );
  });
});

/** Reads, changes the file once bytes have come, and returns all that came until the end or the break. */
async function readUntilBroken(
  cluster: TestCluster,
  client: HeadpondClient,
  door: "sdk" | "files" | "hf",
  change: () => void,
): Promise<Buffer> {
  const parts: Buffer[] = [];
  const { files = "", hf = "" } = cluster.workers[0]?.ready.endpoints ?? {};
  const take = async (chunks: AsyncIterable<Uint8Array>): Promise<void> => {
    for await (const chunk of chunks) {
      if (parts.length === 0) change();
      parts.push(Buffer.from(chunk));
    }
  };
  try {
    if (door === "sdk") {
      await using file = await client.open(`/models/org/${door}/model.safetensors`);
      await take(file.stream());
    } else {
      const url =
        door === "hf" ? `${hf}/org/hf/resolve/main/model.safetensors` : `${files}/models/org/files/model.safetensors`;
      const response = await fetch(url, { signal: AbortSignal.timeout(patienceMs) });
      assert.equal(response.status, 200);
      await take(response.body ?? assert.fail());
    }
  } catch (error) {
    // The connection is cut, or the error says that the content is gone.
    if (error instanceof assert.AssertionError) throw error;
  }
  return Buffer.concat(parts);
}
