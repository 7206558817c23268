/** The programs in examples/ run as they are, say what they should, and leave nothing behind. */

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { access } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { hasZooKeeper } from "../testing/zookeeper-ensemble.ts";

const examples = fileURLToPath(new URL("../../examples", import.meta.url));

async function runExample(name: string): Promise<{ readonly code: number | null; readonly output: string }> {
  const child = spawn(process.execPath, [join(examples, name)], {
    env: { ...process.env, NO_COLOR: "1" },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let output = "";
  child.stdout.on("data", (chunk: Buffer) => (output += chunk.toString()));
  child.stderr.on("data", (chunk: Buffer) => (output += chunk.toString()));
  const code = await new Promise<number | null>((done) => child.once("close", done));
  return { code, output };
}

test("three masters lose their leader under a load and a writer, and nothing else", { timeout: 180_000 }, async () => {
  const { code, output } = await runExample("three-masters.ts");
  assert.equal(code, 0, output);
  const [, killed, pid] = /(m[123]) led \(pid ([0-9]+)\).*kill -9/.exec(output) ?? [];
  const [, successor] = /(m[123]) leads now/.exec(output) ?? [];
  assert.ok(killed !== undefined && successor !== undefined && killed !== successor, output);
  const [, acknowledged, failed] = /writer +([0-9]+) files acknowledged, ([0-9]+) failed/.exec(output) ?? [];
  assert.ok(Number(acknowledged) > 0, output);
  assert.equal(failed, "0", output);
  assert.match(output, /load +succeeded, origin \/ unique bytes 1\.00/);
  assert.match(output, new RegExp(`${acknowledged} of ${acknowledged} files`));
  assert.equal(output.match(/ {2}m[123] +127\.0\.0\.1:[0-9]+ +(leader|standby) /g)?.length, 6, output);
  assert.throws(() => process.kill(Number(pid), 0), "the killed master's process is gone");
  const [, directory = ""] = /below (\/\S+)/.exec(output) ?? [];
  await assert.rejects(access(directory), "its directory is gone");
});

test("masters over a shared directory lose their primary and all of ZooKeeper, and nothing else", {
  timeout: 180_000,
  skip: (await hasZooKeeper()) ? false : "zookeeper (Debian) is not installed",
}, async () => {
  const { code, output } = await runExample("three-masters-zookeeper.ts");
  assert.equal(code, 0, output);
  const [, killed] = /(m[123]) led \(pid [0-9]+\): kill -9/.exec(output) ?? [];
  const [, successor] = /(m[123]) leads now/.exec(output) ?? [];
  assert.ok(killed !== undefined && successor !== undefined && killed !== successor, output);
  const [, before, after] = /ZooKeeper is back; (m[123]) led, (m[123]) leads/.exec(output) ?? [];
  assert.ok(before !== undefined && before === after, output);
  const [, there, acknowledged] = /([0-9]+) of ([0-9]+) files, 0 failed/.exec(output) ?? [];
  assert.ok(Number(acknowledged) > 0 && there === acknowledged, output);
  assert.match(output, /epochs in the store: [3-9]/);
  const [, directory = ""] = /below (\/\S+)/.exec(output) ?? [];
  await assert.rejects(access(directory), "its directory is gone");
});
