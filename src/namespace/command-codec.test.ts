import assert from "node:assert/strict";
import { test } from "node:test";
import { isHeadpondError } from "../base/errors.ts";
import type { InodeId, JobId, MountId, SessionId } from "../base/ids.ts";
import type { Path } from "../base/path.ts";
import { Random } from "../base/random.ts";
import type { Command, CommandKind } from "./command.ts";
import { decode, decodeCommand, encodeCommand } from "./command-codec.ts";

const at = (text: string): Path => text as Path;
const big = 2 ** 53 - 1;
const timeMs = 1_800_000_000_123;
const ownership = { mode: 0o7777, owner: "ann", group: "gr\u00fcppe" };

/** One of every kind, and of every optional field. */
const samples: readonly Command[] = [
  {
    kind: "create",
    timeMs,
    path: at("/a/\u{1F600}"),
    exclusive: true,
    recursive: false,
    forWriting: true,
    attributes: { b: "2", a: "" },
    ...ownership,
  },
  {
    kind: "create",
    timeMs,
    path: at(`/${"n".repeat(255)}`),
    exclusive: false,
    recursive: true,
    forWriting: false,
    attributes: {},
    ...ownership,
    requestId: "r",
  },
  {
    kind: "complete",
    timeMs,
    inodeId: big as InodeId,
    contentVersion: 3,
    sizeBytes: big,
    etag: '"e"',
    modifiedMs: 0,
    digest: { algorithm: "sha256", value: "ab".repeat(32) },
  },
  { kind: "complete", timeMs, inodeId: 1 as InodeId, contentVersion: 3, sizeBytes: 0, etag: "", modifiedMs: big },
  { kind: "mkdir", timeMs, path: at("/d"), recursive: true, exclusive: false, attributes: { k: "v" }, ...ownership },
  { kind: "remove", timeMs, path: at("/d"), recursive: true, expect: "directory", ifVersion: 7 },
  { kind: "remove", timeMs, path: at("/d"), recursive: false, expect: "file" },
  { kind: "rename", timeMs, from: at("/a"), to: at("/b"), replace: true },
  { kind: "set-attributes", timeMs, path: at("/a"), set: {}, remove: [] },
  {
    kind: "set-attributes",
    timeMs,
    path: at("/a"),
    set: { x: "y" },
    remove: ["z", ""],
    mode: 1,
    owner: "o",
    group: "",
    modifiedMs: 4,
    ifVersion: 0,
  },
  { kind: "pin", timeMs, path: at("/a"), pinned: true },
  { kind: "ttl", timeMs, path: at("/a"), ttlMs: null, action: "free" },
  { kind: "replicas", timeMs, path: at("/a"), min: 1, max: 2 },
  { kind: "mount", timeMs, path: at("/m"), uri: "s3://b/p", options: { a: "b" }, secretOptions: ["a"], readOnly: true },
  { kind: "unmount", timeMs, path: at("/m"), force: false },
  {
    kind: "sync-rows",
    timeMs,
    mountId: 1 as MountId,
    directoryInodeId: 2 as InodeId,
    listingBeganVersion: 3,
    rows: [
      {
        name: "f",
        kind: "file",
        sizeBytes: 300,
        etag: "e",
        modifiedMs: 1,
        digest: { algorithm: "crc32c", value: "00000000" },
      },
      { name: "d", kind: "directory", sizeBytes: 0, etag: "", modifiedMs: 0 },
    ],
  },
  {
    kind: "sync-end",
    timeMs,
    directoryInodeId: 2 as InodeId,
    listingBeganVersion: 3,
    goneNames: ["a", "\u00e9"],
    finished: true,
  },
  {
    kind: "finish-intent",
    timeMs,
    intentId: 5,
    outcome: "undone",
    error: { code: "denied", message: "m", retryable: false, outcome: "none" },
  },
  { kind: "open-session", timeMs, timeoutMs: 1, client: "c" },
  { kind: "renew-sessions", timeMs, sessionIds: [1, big] as SessionId[] },
  { kind: "close-session", timeMs, sessionId: 1 as SessionId },
  { kind: "expire-sessions", timeMs, limit: 1 },
  { kind: "reclaim", timeMs, limit: 1 },
  { kind: "expire-ttl", timeMs, limit: 1 },
  { kind: "put-job", timeMs, document: "{}" },
  { kind: "job-progress", timeMs, jobId: 1 as JobId, progress: "{}" },
  { kind: "remove-job", timeMs, jobId: 1 as JobId },
  { kind: "record-revision", timeMs, directoryInodeId: 1 as InodeId, commit: "0".repeat(40), files: [], metadata: "" },
  { kind: "set-setting", timeMs, key: "k", value: null },
  { kind: "set-feature-level", timeMs, level: 1 },
];

test("every kind of command survives encoding, with and without origin and request id", () => {
  const kinds = new Set<CommandKind>();
  for (const sample of samples) {
    kinds.add(sample.kind);
    const origin = { sessionId: 300 as SessionId, sequence: 2 ** 40, acknowledged: 0 };
    for (const command of [sample, { ...sample, origin }, { ...sample, origin, requestId: "\u{1F600}" }] as Command[]) {
      assert.deepEqual(decodeCommand(encodeCommand(command)), command);
    }
  }
  assert.equal(kinds.size, 26);
});

test("an attempt differs from the first one only before the body", () => {
  for (const sample of samples) {
    const first = encodeCommand({
      ...sample,
      timeMs: 1,
      origin: { sessionId: 1 as SessionId, sequence: 1, acknowledged: 0 },
    } as Command);
    const again = encodeCommand({
      ...sample,
      timeMs: 2,
      origin: { sessionId: 1 as SessionId, sequence: 1, acknowledged: 2 ** 30 },
    } as Command);
    assert.deepEqual(first.subarray(decode(first).bodyOffset), again.subarray(decode(again).bodyOffset));
  }
  const attributes = encodeCommand({ ...samples[0], attributes: { a: "", b: "2" } } as Command);
  assert.deepEqual(attributes, encodeCommand(samples[0] as Command), "attributes have one order");
});

test("damaged and newer commands are refused by name, never misread as an exception of ours", () => {
  const seed = Number(process.env["HEADPOND_SEED"] ?? Math.floor(Math.random() * 2 ** 31));
  console.log(`HEADPOND_SEED=${seed}`);
  const random = new Random(seed);
  for (const sample of samples) {
    const bytes = encodeCommand(sample);
    for (let length = 0; length < bytes.length; length++) {
      assert.throws(
        () => decodeCommand(bytes.subarray(0, length)),
        (error) => isHeadpondError(error, "corrupt", "unsupported"),
      );
    }
    assert.throws(() => decodeCommand(Buffer.concat([bytes, Buffer.of(0)])), { code: "unsupported" });
    for (let i = 0; i < 200; i++) {
      const damaged = Buffer.from(bytes);
      const position = random.between(0, bytes.length - 1);
      damaged[position] = (damaged[position] as number) ^ (1 << random.between(0, 7));
      try {
        decodeCommand(damaged);
      } catch (error) {
        assert.ok(isHeadpondError(error, "corrupt", "unsupported"), String(error));
      }
    }
  }
  const newer = Buffer.from(encodeCommand(samples[0] as Command));
  newer[0] = 2;
  assert.throws(() => decodeCommand(newer), { code: "unsupported" });
});
