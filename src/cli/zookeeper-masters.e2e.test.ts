/** Masters with the journal in shared storage as an operator meets them: founding, joining, looking, handing over, taking out, and no ZooKeeper. */

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { hasZooKeeper, withZooKeeper } from "../testing/zookeeper-ensemble.ts";
import { freePortBlock, headpondBin, type StartedRole, startRole } from "./role-process.ts";

const skip = (await hasZooKeeper()) ? false : "zookeeper (Debian) is not installed";

type Answer = { readonly code: number | null; readonly json: Record<string, unknown>; readonly text: string };

async function headpond(...args: readonly string[]): Promise<Answer> {
  const child = spawn(process.execPath, [headpondBin, ...args, "--json"], { stdio: ["ignore", "pipe", "ignore"] });
  let text = "";
  child.stdout.on("data", (chunk: Buffer) => (text += chunk.toString()));
  const code = await new Promise<number | null>((done) => child.once("close", done));
  return { code, text, json: JSON.parse(text === "" ? "{}" : text) as Record<string, unknown> };
}

test("masters over a shared directory are founded once, join by starting, and are seen, moved and taken out", {
  skip,
  timeout: 280_000,
}, async () => {
  const directory = await mkdtemp(join(tmpdir(), "headpond-zk-cli-"));
  const roles = new Map<string, StartedRole>();
  const port = await freePortBlock(8);
  const passwordFile = join(directory, "password");
  await writeFile(passwordFile, "not to be guessed\n");
  try {
    await withZooKeeper(
      directory,
      async (ensemble) => {
        const store = join(directory, "store");
        await mkdir(store);
        const servers = ensemble.servers.map((server) => `${server.host}:${server.port}`);
        const fileOf = async (id: string, more: object = {}): Promise<string> => {
          const own = port + Number(id.slice(1)) * 2;
          const file = join(directory, `${id}.yaml`);
          const auth = { auth: "sasl", user: "headpond", passwordFile };
          const config = {
            master: { id, dir: join(directory, id), rpc: `127.0.0.1:${own}`, http: `127.0.0.1:${own + 1}` },
            journal: { type: "zookeeper", zookeeper: { servers, store: `file://${store}`, ...auth, ...more } },
          };
          await writeFile(file, JSON.stringify(config));
          return file;
        };
        const start = async (id: string): Promise<void> => {
          roles.set(id, await startRole(id, ["master", "--config", await fileOf(id)]));
        };
        const seeds = ["m1", "m2", "m3"].map((_, i) => `127.0.0.1:${port + (i + 1) * 2}`).join(",");
        const ask = (command: string): Promise<Answer> => headpond(...command.split(" "), "--masters", seeds);

        // An empty store may be one that is not mounted.
        await assert.rejects(start("m1"), /holds no journal, and a start founds none/);
        const founded = await headpond("format", "--config", await fileOf("m1"));
        assert.equal(founded.code, 0, founded.text);
        await Promise.all(["m1", "m2"].map(start));
        await start("m3");

        const { clusterId } = founded.json;
        const status = await until(
          () => ask("cluster status"),
          ({ json }) => (json["masters"] as { role: string }[]).length === 3 && json["leader"] !== null,
        );
        assert.equal(status.json["clusterId"], clusterId);
        assert.equal(status.json["journal"], "zookeeper");
        const other = await headpond("format", "--config", await fileOf("m4"), "--cluster-id", "another");
        assert.equal(other.code, 2, other.text);
        assert.match(String(other.json["message"]), /holds the journal of cluster/);

        for (let n = 0; n < 5; n++) assert.equal((await ask(`fs mkdir /d${n}`)).code, 0);
        assert.equal((await ask("journal checkpoint")).code, 0);
        const verified = await ask("journal verify");
        assert.deepEqual([verified.code, verified.json["ok"]], [0, true], verified.text);
        assert.ok(Number(verified.json["entries"]) >= 5, verified.text);
        const journal = await ask("journal status");
        assert.deepEqual(journal.json["election"], { connected: true, candidates: 3 });
        for (const id of ["m1", "m3", "m2"]) {
          const moved = await ask(`cluster transfer ${id}`);
          assert.equal(moved.json["leader"], id, moved.text);
        }
        const atRest = await headpond("journal", "verify", "--dir", join(directory, "m1", "journal"));
        assert.match(String(atRest.json["message"]), /holds no log/);

        // The others, not least m3's watcher, learn that it has gone.
        await roles.get("m3")?.process.stop();
        await until(
          () => ask("cluster members"),
          ({ json }) => {
            const members = json["members"] as { id: string; reachable: boolean }[];
            return members.length === 3 && members.some(({ id, reachable }) => id === "m3" && !reachable);
          },
        );
        const live = await ask("cluster remove m1");
        assert.equal(live.code, 2, live.text);
        const removed = await until(
          () => ask("cluster remove m3"),
          ({ code }) => code === 0,
        );
        assert.equal(removed.json["changed"], true);
        await until(
          () => ask("cluster members"),
          ({ json }) => (json["members"] as unknown[]).length === 2,
        );

        await Promise.all([0, 1, 2].map((i) => ensemble.stop(i)));
        const alone = await until(
          () => ask("journal status"),
          ({ json }) => (json["election"] as { connected: boolean }).connected === false,
        );
        assert.equal(alone.code, 0);
        assert.equal((await ask("fs mkdir /without-zookeeper")).code, 0);
        const refused = await ask("cluster transfer");
        assert.equal(refused.code, 4, refused.text);
        assert.match(String(refused.json["message"]), /ZooKeeper does not answer/);
        assert.equal((await ask("fs mkdir /still")).code, 0);
        const doctor = await ask("doctor");
        assert.match(doctor.text, /ZooKeeper does not answer/);
      },
      { auth: { user: "headpond", password: "not to be guessed" } },
    );
  } finally {
    await Promise.all([...roles.values()].map(({ process }) => process.stop()));
    await rm(directory, { recursive: true, force: true });
  }
});

async function until(ask: () => Promise<Answer>, holds: (answer: Answer) => boolean): Promise<Answer> {
  const deadline = Date.now() + 60_000;
  for (;;) {
    const answer = await ask();
    if (answer.code !== null && holdsOrNot(answer, holds)) return answer;
    if (Date.now() > deadline) throw new Error(`it did not come true: ${holds.toString()}: ${answer.text}`);
    await sleep(100);
  }
}

/** An answer of another form is one of a moment without a leader. */
function holdsOrNot(answer: Answer, holds: (answer: Answer) => boolean): boolean {
  try {
    return holds(answer);
  } catch {
    return false;
  }
}
