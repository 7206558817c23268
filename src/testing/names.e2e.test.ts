/** Names of every kind through every door of a real cluster. */

import assert from "node:assert/strict";
import { mkdir, writeFile } from "node:fs/promises";
import net from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { isHeadpondError } from "../base/errors.ts";
import { connect } from "../client/client.ts";
import { withCluster } from "./cluster.ts";

/** A GET whose target is sent byte for byte: `fetch` would tidy it up. */
async function rawGet(address: string, target: string | Uint8Array): Promise<{ status: number; body: Buffer }> {
  const { hostname, port } = new URL(address);
  const socket = net.connect(Number(port), hostname);
  const parts: Buffer[] = [];
  socket.on("data", (chunk: Buffer) => parts.push(chunk));
  socket.on("error", () => {});
  const end = Buffer.from(" HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
  socket.write(Buffer.concat([Buffer.from("GET "), Buffer.from(target), end]));
  await new Promise((done) => socket.once("close", done));
  const answer = Buffer.concat(parts);
  return { status: Number(answer.subarray(9, 12).toString()), body: answer.subarray(answer.indexOf("\r\n\r\n") + 4) };
}

function isInvalid(error: unknown): boolean {
  return isHeadpondError(error, "invalid") || assert.fail(String(error));
}

const names = [
  "plain.bin",
  "with space & <b>.bin",
  "per%41cent%2F.bin",
  "q?u#e.bin",
  "\\back\\slash",
  "new\nline",
  "😀".repeat(63),
  "n".repeat(255),
];

test("names of every kind are kept as they are or refused by name, through every door", {
  timeout: 150_000,
}, async (t) => {
  await withCluster(1, async (cluster) => {
    const store = join(cluster.directory, "store");
    await mkdir(join(store, "org/odd"), { recursive: true });
    for (const name of names) await writeFile(join(store, "org/odd", name), `content of ${name}`);
    const notUtf8 = Buffer.concat([Buffer.from(join(store, "org/odd/bad-")), Buffer.from([0xff, 0xfe])]);
    await writeFile(notUtf8, "cannot be named");
    await using client = connect({ masters: [cluster.masterAddress] });
    await client.mount("/models", `file://${store}`);
    const { files = "", hf = "" } = cluster.workers[0]?.ready.endpoints ?? {};
    const api = async (method: string, body: string): Promise<{ status: number; text: string }> => {
      const response = await fetch(`${cluster.master.ready.endpoints["http"]}/api/v1/rpc/${method}`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body,
      });
      return { status: response.status, text: await response.text() };
    };

    await t.test("odd but legal names read back through SDK, CLI, files and the Hub mirror", async () => {
      for (const name of names) {
        const path = `/models/org/odd/${name}`;
        const content = `content of ${name}`;
        await using file = await client.open(path);
        const bytes = await file.read({ position: 0, length: file.descriptor.sizeBytes });
        assert.equal(Buffer.from(bytes).toString(), content);
        assert.equal((await cluster.run("fs", "cat", path)).stdout, content);
        const encoded = encodeURIComponent(name);
        assert.equal((await rawGet(files, `/models/org/odd/${encoded}`)).body.toString(), content);
        assert.equal((await rawGet(hf, `/org/odd/resolve/main/${encoded}`)).body.toString(), content, name);
      }
    });

    await t.test("a name that is not UTF-8 is left out, counted, and named in the log", async () => {
      const listed = await cluster.run("fs", "ls", "/models/org/odd", "--json");
      assert.equal(listed.stdout.trim().split("\n").length, names.length);
      // What was listed a moment ago is not listed again.
      await sleep(600);
      const synced = await cluster.run("fs", "sync", "/models/org/odd", "--json");
      assert.equal((JSON.parse(synced.stdout.trim().split("\n").at(-1) ?? "") as { skipped: number }).skipped, 1);
      assert.match(cluster.master.process.log, /"objectKey":"[^"]*bad-[^"]*".*skipped a name/);
      const shown = await cluster.run("fs", "sync", "/models/org/odd");
      assert.match(shown.stdout, /1 objects are left out/);
      // What arrives is whole, and it is not all that was asked for.
      const loaded = await cluster.run("load", "/models/org/odd");
      assert.equal(loaded.code, 5, loaded.stderr);
      assert.match(loaded.stdout, /left out: 1 objects/);
    });

    await t.test("what a name would do to a terminal is shown, not done", async () => {
      await client.create("/ring\u0007\u001b[2Jbell");
      const listed = await cluster.run("fs", "ls", "/");
      assert.ok(listed.stdout.includes("ring\\x07\\x1b[2Jbell"), listed.stdout);
      const missing = await cluster.run("fs", "stat", "/none\u001b[2J");
      for (const text of [listed.stdout, missing.stderr]) assert.ok(!text.includes("\u001b"), text);
    });

    await t.test("paths that leave the tree, hold NUL, or are too long are invalid everywhere", async () => {
      const tooLong = [`/models/${"n".repeat(256)}`, `/${"é".repeat(128)}`, `/${"a/".repeat(2100)}b`];
      for (const path of ["/models/../etc", "/a/./../b", ...tooLong]) {
        await assert.rejects(client.stat(path), isInvalid);
        await assert.rejects(client.mkdir(path, { recursive: true }), isInvalid);
        assert.equal((await cluster.run("fs", "stat", path)).code, 2);
        assert.equal((await rawGet(files, encodeURI(path))).status, 400);
      }
      for (const path of ["/nul\0", "/half-\ud800"]) {
        await assert.rejects(client.create(path), isInvalid);
        await assert.rejects(client.rename("/models", path), isInvalid);
      }
      for (const body of [
        '{"path":"/a/../b"}',
        '{"path":"/nul\\u0000"}',
        '{"path":"/\\ud800"}',
        '{"path":5}',
        "{}",
        "{",
      ]) {
        const { status, text } = await api("stat", body);
        assert.equal(status, 400, body);
        assert.equal((JSON.parse(text) as { code: string }).code, "invalid");
      }
    });

    await t.test("traps in the encoding of request targets lead nowhere", async () => {
      const traps: readonly (readonly [target: string | Uint8Array, status: number])[] = [
        ["/models/../etc/passwd", 400],
        ["/models/%2e%2e/%2e%2e/etc/passwd", 400],
        ["/models/..%2f..%2fetc/passwd", 400],
        ["/models%2Forg", 400],
        ["/models/%252e%252e/x", 404],
        ["/models/org/odd/%00", 400],
        ["/models/org/odd/%ff", 400],
        ["/models/org/odd/%", 400],
        ["/models/org/odd/%c0%ae%c0%ae", 400],
        [Buffer.from([0x2f, 0xff, 0xfe]), 400],
        ["/models/org/odd/..\\..\\x", 404],
      ];
      for (const [target, wanted] of traps) {
        assert.equal((await rawGet(files, target)).status, wanted, `files ${String(target)}`);
      }
      for (const target of [
        "/org/odd/resolve/main/../../../../etc/passwd",
        "/org/odd/resolve/main/%2e%2e/%2e%2e/secret",
        "/..%2f/x/resolve/main/y",
        "/api/models/%2e%2e/x",
        "/org/odd/resolve/%2e%2e/plain.bin",
        "/org/odd/resolve/main/%00",
        "/org/odd/resolve/main/%ff",
      ]) {
        const { status } = await rawGet(hf, target);
        assert.ok(status === 400 || status === 404, `hf ${target}: ${status}`);
      }
      const doubled = await rawGet(files, "//models//org/./odd/plain.bin");
      assert.equal(doubled.body.toString(), "content of plain.bin");
    });

    await t.test("names that mean something to JavaScript mean nothing here", async () => {
      const made = await api(
        "create",
        '{"path":"/proto","attributes":{"__proto__":"a","constructor":"b","toString":"c"}}',
      );
      assert.equal(made.status, 200, made.text);
      await client.mkdir("/__proto__");
      const { attributes } = await client.stat("/proto");
      assert.deepEqual(
        Object.entries(attributes).sort(([a], [b]) => (a < b ? -1 : 1)),
        [
          ["__proto__", "a"],
          ["constructor", "b"],
          ["toString", "c"],
        ],
      );
      const listed = await cluster.run("fs", "ls", "/");
      assert.match(listed.stdout, / __proto__\//);
      assert.equal((await api("__proto__", "{}")).status, 404);
    });
  });
});
