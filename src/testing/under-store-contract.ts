/**
 * What every under store promises, as tests. A harness opens a fresh, empty store for each of them, and can put objects
 * there from outside; a store that cannot be written runs the part that reads.
 */

import assert from "node:assert/strict";
import { test } from "node:test";
import { type HeadpondError, isHeadpondError } from "../base/errors.ts";
import { Random } from "../base/random.ts";
import {
  compareEntries,
  entryOrderKey,
  type ListEntry,
  type ObjectInfo,
  type ReadOptions,
  type UnderStore,
} from "../under-store/under-store.ts";

export type OpenedStore = {
  readonly store: UnderStore;
  /** Puts an object there as the outside world does. */
  readonly seed: (key: string, bytes: Uint8Array) => Promise<void>;
  /** Closes the store and removes what it held. */
  readonly close: () => Promise<void>;
};

export type StoreHarness = {
  readonly name: string;
  readonly open: () => Promise<OpenedStore>;
  readonly writable: boolean;
  /** Sizes at which the store changes how it writes. */
  readonly writeSizes?: readonly number[];
  /** Names that this store cannot hold, of those that the contract tries. */
  readonly impossibleNames?: readonly string[];
};

const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 32));

/** Names that are legal and have broken programs before. */
const oddNames = [
  " leading and trailing ",
  "a+b c%20d%2Fe",
  "q?x=1&y#z",
  "quote\"s'and`<tags>&amp;",
  "back\\slash",
  "..hidden..",
  "ünï",
  "日本語",
  "😀",
  "\uff5e",
  "new\nline",
  "*[glob]{a,b}",
  `${"n".repeat(251)}.bin`,
];

const hostileKeys = ["../x", "a/../../x", "/abs", "a//b", "a/", "./a", "nul\0", "a/\0", "x".repeat(256), "\ud800"];

export function holdsUnderStoreContract(harness: StoreHarness): void {
  const holds = (claim: string, body: (opened: OpenedStore) => Promise<void>): void => {
    test(`${harness.name}: ${claim}`, async () => {
      const opened = await harness.open();
      try {
        await body(opened);
      } finally {
        await opened.close();
      }
    });
  };

  holds("an empty root lists nothing and is a directory", async ({ store }) => {
    assert.deepEqual(await store.list(""), { entries: [], skipped: 0 });
    assert.equal((await store.head(""))?.kind, "directory");
  });

  holds("pages of any size together give every entry once and in order", async ({ store, seed: put }) => {
    const keys = ["d/a", "d/a-b", "d/a/inner", "d/a.txt", "d/zz/deep/er"].filter((key) => key !== "d/a");
    for (let i = 0; i < 20; i++) keys.push(`d/file-${i}`);
    for (const key of keys) await put(key, bytesOf(key));
    const whole = await listAll(store, "d", 1000);
    assert.equal(whole.length, 24);
    assert.deepEqual(whole.map(entryOrderKey), [...whole].sort(compareEntries).map(entryOrderKey));
    assert.deepEqual(whole.slice(0, 3).map(entryOrderKey), ["d/a-b", "d/a.txt", "d/a/"]);
    for (const limit of [1, 2, 7, 23, 24, 25]) assert.deepEqual(await listAll(store, "d", limit), whole);
  });

  holds("a listing shows one level only, and the same facts as head", async ({ store, seed: put }) => {
    await put("one/two/three.bin", bytesOf("3"));
    await put("one/file.bin", bytesOf("four"));
    const entries = await listAll(store, "one", 10);
    assert.deepEqual(entries.map(entryOrderKey), ["one/file.bin", "one/two/"]);
    for (const entry of entries) {
      const key = entry.kind === "file" ? entry.info.key : entry.key;
      assert.deepEqual(withoutDigest(await store.head(key)), withoutDigest(entry));
    }
  });

  holds("an absent directory is not found or empty, an absent key has no head", async ({ store }) => {
    try {
      assert.deepEqual((await store.list("nowhere")).entries, []);
    } catch (error) {
      assert.equal((error as HeadpondError).code, "not-found");
    }
    assert.equal(await store.head("nowhere"), undefined);
    assert.equal(await store.head("nowhere/else"), undefined);
    await rejectsWith("not-found", readBytes(store, "nowhere", { position: 0, length: 1, etag: "x" }));
  });

  holds("any range gives exactly its bytes", async ({ store, seed: put }) => {
    const random = new Random(seed);
    const bytes = random.bytes(300_000);
    await put("data.bin", bytes);
    const { etag, sizeBytes } = await fileAt(store, "data.bin");
    assert.equal(sizeBytes, bytes.length);
    const ranges = [
      [0, bytes.length],
      [0, 1],
      [bytes.length - 1, 1],
      [1, bytes.length - 2],
      [17, 0],
    ];
    for (let i = 0; i < 10; i++) {
      const position = random.between(0, bytes.length - 1);
      ranges.push([position, random.between(1, bytes.length - position)]);
    }
    for (const [position = 0, length = 0] of ranges) {
      const got = await readBytes(store, "data.bin", { position, length, etag });
      const want = Buffer.from(bytes).subarray(position, position + length);
      assert.equal(Buffer.compare(got, want), 0, `[${position}, +${length}) is wrong, seed ${seed}`);
    }
  });

  holds("a range behind the end is refused", async ({ store, seed: put }) => {
    await put("short.bin", bytesOf("0123456789"));
    const { etag } = await fileAt(store, "short.bin");
    await rejectsWith("invalid", readBytes(store, "short.bin", { position: 10, length: 1, etag }));
    await rejectsWith("invalid", readBytes(store, "short.bin", { position: 5, length: 6, etag }));
  });

  holds("an empty object can be listed and read", async ({ store, seed: put }) => {
    await put("empty", new Uint8Array());
    const { etag, sizeBytes } = await fileAt(store, "empty");
    assert.equal(sizeBytes, 0);
    assert.equal((await readBytes(store, "empty", { position: 0, length: 0, etag })).length, 0);
  });

  holds("only the content that was asked for is read", async ({ store, seed: put }) => {
    await put("model.bin", bytesOf("first content"));
    const first = await fileAt(store, "model.bin");
    const range = { position: 0, length: 5 };
    await rejectsWith("version-mismatch", readBytes(store, "model.bin", { ...range, etag: `"${"0".repeat(32)}"` }));
    await put("model.bin", bytesOf("second content, longer"));
    await rejectsWith("version-mismatch", readBytes(store, "model.bin", { ...range, etag: first.etag }));
    const second = await fileAt(store, "model.bin");
    assert.notEqual(second.etag, first.etag);
    assert.equal(String(await readBytes(store, "model.bin", { ...range, etag: second.etag })), "secon");
  });

  holds("chunks come one after the other, each when the one before was taken", async ({ store, seed: put }) => {
    const bytes = new Random(seed).bytes(3_000_000);
    await put("big.bin", bytes);
    const { etag } = await fileAt(store, "big.bin");
    let active = 0;
    const parts: Uint8Array[] = [];
    await store.read("big.bin", {
      position: 0,
      length: bytes.length,
      etag,
      onChunk: async (chunk) => {
        assert.equal(++active, 1, "two chunks at once");
        await new Promise((resolve) => setImmediate(resolve));
        parts.push(Uint8Array.from(chunk));
        active--;
      },
    });
    assert.equal(Buffer.compare(Buffer.concat(parts), Buffer.from(bytes)), 0);
  });

  holds("a reader that fails ends the read with its own error, and the store goes on", async ({ store, seed: put }) => {
    await put("big.bin", new Uint8Array(2_000_000));
    const { etag } = await fileAt(store, "big.bin");
    const failure = new Error("the disk of the reader is full");
    const range = { position: 0, length: 2_000_000, etag };
    const sync = store.read("big.bin", {
      ...range,
      onChunk: () => {
        throw failure;
      },
    });
    await assert.rejects(sync, (error) => error === failure);
    await assert.rejects(
      store.read("big.bin", { ...range, onChunk: () => Promise.reject(failure) }),
      (error) => error === failure,
    );
    assert.equal((await readBytes(store, "big.bin", range)).length, 2_000_000);
  });

  holds("an aborted call ends with cancelled, before or in the middle", async ({ store, seed: put }) => {
    await put("big.bin", new Uint8Array(4_000_000));
    const { etag } = await fileAt(store, "big.bin");
    await rejectsWith("cancelled", store.list("", { signal: AbortSignal.abort() }));
    await rejectsWith("cancelled", store.head("big.bin", { signal: AbortSignal.abort() }));
    const controller = new AbortController();
    let taken = 0;
    const reading = store.read("big.bin", {
      position: 0,
      length: 4_000_000,
      etag,
      signal: controller.signal,
      onChunk: (chunk) => {
        taken += chunk.length;
        controller.abort();
      },
    });
    await rejectsWith("cancelled", reading);
    assert.ok(taken > 0 && taken < 4_000_000, `${taken} bytes were handed out`);
  });

  holds("names that break programs are names like all others", async ({ store, seed: put }) => {
    const names = oddNames.filter((name) => !harness.impossibleNames?.includes(name));
    for (const name of names) await put(`odd/${name}`, bytesOf(name));
    const listed = (await listAll(store, "odd", 3)).map(entryOrderKey);
    assert.deepEqual(new Set(listed), new Set(names.map((name) => `odd/${name}`)));
    for (const name of names) {
      const { etag, sizeBytes } = await fileAt(store, `odd/${name}`);
      const got = await readBytes(store, `odd/${name}`, { position: 0, length: sizeBytes, etag });
      assert.equal(Buffer.from(got).toString(), name);
    }
  });

  holds("hostile keys are refused by every call", async ({ store }) => {
    for (const key of hostileKeys) {
      await rejectsWith("invalid", store.list(key));
      await rejectsWith("invalid", store.head(key));
      await rejectsWith("invalid", readBytes(store, key, { position: 0, length: 1, etag: "x" }));
      if (!harness.writable) continue;
      await rejectsWith("invalid", store.write(key, { body: bodyOf("x") }));
      await rejectsWith("invalid", store.makeDirectory(key));
      await rejectsWith("invalid", store.remove(key));
      await rejectsWith("invalid", store.removeDirectory(key));
      await rejectsWith("invalid", store.rename(key, "fine"));
      await rejectsWith("invalid", store.rename("fine", key));
    }
  });

  if (!harness.writable) {
    holds("every change is refused as read-only", async ({ store }) => {
      assert.equal(store.traits.writable, false);
      await rejectsWith("read-only", store.write("x", { body: bodyOf("x") }));
      await rejectsWith("read-only", store.makeDirectory("x"));
      await rejectsWith("read-only", store.remove("x"));
      await rejectsWith("read-only", store.removeDirectory("x"));
      await rejectsWith("read-only", store.rename("x", "y"));
    });
    return;
  }

  holds("what is written is read back, at every size", async ({ store }) => {
    const random = new Random(seed);
    for (const size of [0, 1, 70_000, ...(harness.writeSizes ?? [])]) {
      const bytes = random.bytes(size);
      const written = await store.write(`w/size-${size}`, { body: bodyOf(bytes, 65_536), sizeBytes: size });
      assert.equal(written.sizeBytes, size);
      assert.deepEqual(withoutDigestInfo(await fileAt(store, `w/size-${size}`)), withoutDigestInfo(written));
      const range = { position: 0, length: size, etag: written.etag };
      assert.equal(
        Buffer.compare(await readBytes(store, `w/size-${size}`, range), Buffer.from(bytes)),
        0,
        `size ${size}`,
      );
    }
  });

  holds("a write replaces, and the new content has another etag", async ({ store }) => {
    const first = await store.write("x", { body: bodyOf("one") });
    const second = await store.write("x", { body: bodyOf("other") });
    assert.notEqual(first.etag, second.etag);
    assert.equal((await fileAt(store, "x")).etag, second.etag);
  });

  holds("a write that fails leaves the old content, or nothing", async ({ store }) => {
    const old = await store.write("kept", { body: bodyOf("old") });
    const sizes = [10, ...(harness.writeSizes ?? [])];
    for (const size of sizes) {
      const failure = new Error("the source broke");
      const broken = async function* (): AsyncGenerator<Uint8Array> {
        yield* bodyOf(new Uint8Array(size), 65_536);
        throw failure;
      };
      await assert.rejects(store.write("kept", { body: broken() }), (error) => error === failure);
      await assert.rejects(store.write("new", { body: broken() }), (error) => error === failure);
      await rejectsWith("invalid", store.write("kept", { body: bodyOf(new Uint8Array(size)), sizeBytes: size + 1 }));
      await rejectsWith("invalid", store.write("new", { body: bodyOf(new Uint8Array(size)), sizeBytes: size - 1 }));
    }
    assert.equal((await fileAt(store, "kept")).etag, old.etag);
    assert.deepEqual((await listAll(store, "", 10)).map(entryOrderKey), ["kept"]);
  });

  holds("of concurrent exclusive creations exactly one wins, and its bytes are there", async ({ store }) => {
    for (const size of [100, ...(harness.writeSizes ?? [])]) {
      const bodies = Array.from({ length: 8 }, (_, i) => new Uint8Array(size).fill(i + 1));
      const key = `slots/${size}`;
      const outcomes = await Promise.allSettled(
        bodies.map((body) => store.write(key, { body: bodyOf(body, 1 << 20), ifAbsent: true, sizeBytes: size })),
      );
      const winners = outcomes.flatMap((outcome, i) => (outcome.status === "fulfilled" ? [i] : []));
      assert.equal(winners.length, 1, `${winners.length} winners at ${size} bytes`);
      for (const outcome of outcomes) {
        if (outcome.status === "rejected") {
          const { code, message } = outcome.reason as HeadpondError;
          assert.equal(code, "already-exists", message);
        }
      }
      const { etag } = await fileAt(store, key);
      const got = await readBytes(store, key, { position: 0, length: size, etag });
      assert.equal(Buffer.compare(got, Buffer.from(bodies[winners[0] as number] as Uint8Array)), 0);
    }
  });

  holds("directories are made, seen, and removed only when empty", async ({ store }) => {
    await store.makeDirectory("a/b");
    await store.makeDirectory("a/b");
    assert.deepEqual((await listAll(store, "a", 10)).map(entryOrderKey), ["a/b/"]);
    assert.equal((await store.head("a/b"))?.kind, "directory");
    await store.write("a/b/file", { body: bodyOf("x") });
    await rejectsWith("not-empty", store.removeDirectory("a/b"));
    await store.remove("a/b/file");
    await store.removeDirectory("a/b");
    assert.equal(await store.head("a/b"), undefined);
  });

  holds("removing what is gone is no error", async ({ store }) => {
    await store.remove("gone");
    await store.remove("gone/deeper");
    await store.removeDirectory("gone");
    await store.write("file", { body: bodyOf("x") });
    await store.remove("file");
    await store.remove("file");
    assert.equal(await store.head("file"), undefined);
  });

  holds("a file is renamed, also over another one", async ({ store }) => {
    await store.write("from.bin", { body: bodyOf("moved") });
    await store.write("sub/to.bin", { body: bodyOf("replaced content") });
    await store.rename("from.bin", "sub/to.bin");
    assert.equal(await store.head("from.bin"), undefined);
    const { etag, sizeBytes } = await fileAt(store, "sub/to.bin");
    assert.equal(String(await readBytes(store, "sub/to.bin", { position: 0, length: sizeBytes, etag })), "moved");
    await rejectsWith("not-found", store.rename("from.bin", "anywhere"));
  });

  holds("a directory is renamed with all that is in it", async ({ store }) => {
    for (const key of ["old/1", "old/sub/2", "old/sub/deep/3"]) await store.write(key, { body: bodyOf(key) });
    await store.makeDirectory("old/empty");
    await store.rename("old", "new/place");
    assert.equal(await store.head("old"), undefined);
    const names = (await listAll(store, "new/place", 2)).map(entryOrderKey);
    assert.deepEqual(names, ["new/place/1", "new/place/empty/", "new/place/sub/"]);
    const { etag } = await fileAt(store, "new/place/sub/deep/3");
    const range = { position: 0, length: 14, etag };
    assert.equal(String(await readBytes(store, "new/place/sub/deep/3", range)), "old/sub/deep/3");
    await rejectsWith("invalid", store.rename("new", "new/place/below"));
  });
}

export function bytesOf(text: string): Uint8Array {
  return Buffer.from(text);
}

export async function* bodyOf(content: string | Uint8Array, chunkBytes = 1000): AsyncGenerator<Uint8Array> {
  const bytes = typeof content === "string" ? bytesOf(content) : content;
  for (let at = 0; at < bytes.length; at += chunkBytes) yield bytes.subarray(at, at + chunkBytes);
}

export async function listAll(store: UnderStore, key: string, limit: number): Promise<readonly ListEntry[]> {
  const entries: ListEntry[] = [];
  let continuation: string | undefined;
  do {
    const page = await store.list(key, { limit, ...(continuation === undefined ? {} : { continuation }) });
    assert.ok(page.entries.length <= limit, `${page.entries.length} entries on a page of ${limit}`);
    entries.push(...page.entries);
    continuation = page.next;
  } while (continuation !== undefined);
  return entries;
}

/** The file at `key`; fails when there is none. */
export async function fileAt(store: UnderStore, key: string): Promise<ObjectInfo> {
  const entry = await store.head(key);
  assert.equal(entry?.kind, "file", `${key} is no file`);
  return entry.info;
}

export async function readBytes(store: UnderStore, key: string, range: Omit<ReadOptions, "onChunk">): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  await store.read(key, { ...range, onChunk: (chunk) => void parts.push(Uint8Array.from(chunk)) });
  return Buffer.concat(parts);
}

export async function rejectsWith(code: HeadpondError["code"], call: Promise<unknown>): Promise<HeadpondError> {
  const error: unknown = await call.then(
    () => assert.fail(`succeeded instead of failing with ${code}`),
    (reason: unknown) => reason,
  );
  if (!isHeadpondError(error, code)) throw error;
  return error;
}

function withoutDigest(entry: ListEntry | undefined): ListEntry | undefined {
  return entry?.kind === "file" ? { kind: "file", info: withoutDigestInfo(entry.info) } : entry;
}

function withoutDigestInfo(info: ObjectInfo): ObjectInfo {
  const { key, sizeBytes, etag, modifiedMs } = info;
  return { key, sizeBytes, etag, modifiedMs };
}
