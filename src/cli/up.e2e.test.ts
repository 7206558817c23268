/** `up` with several masters in one process: founded, found again after kill -9, and grown from a single one. */

import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import type { MasterStatus } from "../base/cluster.ts";
import { type CliResult, runCli } from "../testing/cluster.ts";
import { freePortBlock, type ServerProcess, startRole } from "./role-process.ts";

class Up {
  readonly directory: string;
  readonly #portBase: number;
  #process: ServerProcess | undefined;

  private constructor(directory: string, portBase: number) {
    this.directory = directory;
    this.#portBase = portBase;
  }

  static async use(run: (up: Up) => Promise<void>): Promise<void> {
    const up = new Up(await mkdtemp(join(tmpdir(), "headpond-up-")), await freePortBlock(40));
    try {
      await run(up);
    } finally {
      await up.stop("SIGKILL");
      await rm(up.directory, { recursive: true, force: true });
    }
  }

  /** Returns the addresses of the masters in its ready line. */
  async start(...flags: readonly string[]): Promise<readonly string[]> {
    const { process, ready } = await startRole("up", [
      ...["up", "--dir", join(this.directory, "data"), "--port-base", String(this.#portBase), ...flags],
    ]);
    this.#process = process;
    return ready.masters ?? [];
  }

  async stop(signal: NodeJS.Signals): Promise<number | null> {
    await this.#process?.stop(signal);
    return this.#process?.child.exitCode ?? null;
  }

  run(...args: readonly string[]): Promise<CliResult> {
    return runCli([...args, "--masters", `127.0.0.1:${this.#portBase}`], this.directory);
  }

  async voters(): Promise<string[]> {
    const { stdout } = await this.run("cluster", "members", "--json");
    const { members } = JSON.parse(stdout) as { readonly members: readonly MasterStatus[] };
    return members.filter(({ voter, reachable }) => voter && reachable === true).map(({ id }) => id);
  }
}

test("three masters in one process are found again after kill -9", { timeout: 120_000 }, async () => {
  await Up.use(async (up) => {
    assert.equal((await up.start("--masters", "3")).length, 3);
    assert.deepEqual(await up.voters(), ["m1", "m2", "m3"]);
    assert.equal((await up.run("fs", "mkdir", "/kept")).code, 0);
    await up.stop("SIGKILL");
    await assert.rejects(up.start("--masters", "2"), /has 3; remove one first/);
    assert.equal((await up.start()).length, 3, "as many as there are");
    assert.equal((await up.run("fs", "stat", "/kept")).code, 0);
    assert.equal(await up.stop("SIGTERM"), 0);
  });
});

test("what one master began grows to three, and nothing is copied by hand", { timeout: 120_000 }, async () => {
  await Up.use(async (up) => {
    assert.equal((await up.start()).length, 1);
    assert.equal((await up.run("fs", "mkdir", "/kept")).code, 0);
    await up.stop("SIGTERM");
    const refusal = await up.start("--masters", "3").then(
      () => assert.fail("it started"),
      (error: unknown) => String(error),
    );
    // The message is the command to run.
    const [, command = ""] = /`headpond ([^`]+)` makes it the first of several/.exec(refusal) ?? [];
    const migrated = await runCli(command.split(" "), up.directory);
    assert.equal(migrated.code, 0, `${refusal}\n${migrated.stderr}`);
    assert.equal((await up.start("--masters", "3")).length, 3);
    assert.deepEqual(await up.voters(), ["m1", "m2", "m3"]);
    assert.equal((await up.run("fs", "stat", "/kept")).code, 0);
  });
});
