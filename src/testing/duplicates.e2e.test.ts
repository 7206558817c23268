/** A second process where only one may be: it is refused by name, and the first one goes on. */

import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { ClusterStatus } from "../base/cluster.ts";
import { startRole } from "../cli/role-process.ts";
import { runCli, withCluster, writeModel } from "./cluster.ts";

type Settings = Record<string, Record<string, unknown>>;

test("a second process on the same directory, port or id is refused by name, and the first one goes on", {
  timeout: 150_000,
}, async (t) => {
  await withCluster(1, async (cluster) => {
    const { directory } = cluster;
    await writeModel(join(directory, "store"), { "m/model.safetensors": "weights" });
    assert.equal((await cluster.run("mount", "/models", `file://${join(directory, "store")}`)).code, 0);
    /** The file of settings of the role that runs, with some changed. */
    const changed = async (role: string, change: Settings): Promise<string> => {
      const settings = JSON.parse(await readFile(join(directory, `${role}.yaml`), "utf8")) as Settings;
      for (const [section, values] of Object.entries(change)) settings[section] = { ...settings[section], ...values };
      const file = join(directory, "second.yaml");
      await writeFile(file, JSON.stringify(settings));
      return file;
    };
    /** Runs the role, which must end by itself; its exit code and last words. */
    const refused = async (role: "master" | "worker-0", change: Settings): Promise<string> => {
      const command = role === "master" ? "master" : "worker";
      const result = await runCli([command, "--config", await changed(role, change)], directory);
      assert.notEqual(result.code, 0, `a second ${role} started: ${result.stdout}`);
      return `${result.code} ${result.stderr}`;
    };
    const goesOn = async (): Promise<void> => {
      assert.equal((await cluster.run("fs", "cat", "/models/m/model.safetensors")).stdout, "weights");
      assert.equal((await cluster.run("fs", "mkdir", "-p", "/still/there")).code, 0);
    };
    const freePorts = { data: "127.0.0.1:0", http: "127.0.0.1:0" };

    await t.test("two masters on one directory", async () => {
      const second = await refused("master", { master: { rpc: "127.0.0.1:0", http: "127.0.0.1:0" } });
      assert.match(second, /^4 .*master: already in use by another process: stop it/s);
      const erased = await runCli(["format", "--dir", join(directory, "master"), "--erase", "x"], directory);
      assert.match(erased.stderr, /already in use by another process/);
      await goesOn();
    });
    await t.test("two masters on one port", async () => {
      const second = await refused("master", {
        master: { dir: join(directory, "other-master"), http: "127.0.0.1:0" },
      });
      assert.match(second, /^4 .*address already in use 127\.0\.0\.1:\d+: another process listens there/s);
      await goesOn();
    });
    await t.test("two workers on one cache directory", async () => {
      const gateways = { hf: "127.0.0.1:0", files: "127.0.0.1:0" };
      const second = await refused("worker-0", { worker: { ...freePorts, id: "other" }, gateways });
      assert.match(second, /^4 .*worker-0 is in use by another worker: give each its own directory/s);
      await goesOn();
    });
    await t.test("two workers with one id", async () => {
      const dirs = [{ path: join(directory, "other-cache"), capacity: "1GiB" }];
      const gateways = { hf: "127.0.0.1:0", files: "127.0.0.1:0" };
      const file = await changed("worker-0", { worker: { ...freePorts, dirs }, gateways });
      const second = await startRole("second", ["worker", "--config", file]);
      try {
        const reason =
          /worker id w0 is in use by a live worker at .*: give the one at .* another id, or stop the other/;
        let words = "";
        for (let round = 0; round < 100 && !reason.test(words); round++) {
          const response = await fetch(`${second.ready.endpoints["http"]}/readyz`);
          assert.equal(response.status, 503);
          words = await response.text();
          await sleep(100);
        }
        assert.match(words, reason);
        assert.match(second.process.log, reason);
        const { workers } = await cluster.json<ClusterStatus>("cluster", "status");
        assert.deepEqual(
          workers.map(({ id, state, data }) => [id, state, data]),
          [["w0", "live", cluster.workers[0]?.ready.endpoints["data"]]],
        );
        await goesOn();
      } finally {
        await second.process.stop("SIGKILL");
      }
    });
  });
});
