import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { test } from "node:test";
import { Random } from "../base/random.ts";
import { silentLogger } from "../io/logger.ts";
import { NodeDisk } from "../io/node-disk.ts";
import {
  bodyOf,
  bytesOf,
  fileAt,
  holdsUnderStoreContract,
  listAll,
  readBytes,
  rejectsWith,
} from "../testing/under-store-contract.ts";
import { LocalUnderStore } from "./local.ts";
import { entryOrderKey } from "./under-store.ts";

type Opened = { store: LocalUnderStore; root: string; close: () => Promise<void> };

async function open(options: { readonly links?: "inside" | "all" } = {}): Promise<Opened> {
  const parent = fs.mkdtempSync(path.join(os.tmpdir(), "headpond-local-"));
  const root = path.join(parent, "mount");
  fs.mkdirSync(root);
  const dependencies = { root, disk: new NodeDisk(), random: new Random(Date.now()), logger: silentLogger, ...options };
  const store = await LocalUnderStore.open(dependencies);
  const close = async (): Promise<void> => {
    await store.close();
    fs.rmSync(parent, { recursive: true });
  };
  return { store, root, close };
}

holdsUnderStoreContract({
  name: "local",
  writable: true,
  writeSizes: [3_000_000],
  open: async () => {
    const { store, root, close } = await open();
    const seed = async (key: string, bytes: Uint8Array): Promise<void> => {
      fs.mkdirSync(path.dirname(path.join(root, key)), { recursive: true });
      fs.writeFileSync(path.join(root, key), bytes);
    };
    return { store, seed, close };
  },
});

function claim(name: string, body: (opened: Opened) => Promise<void>, options: { readonly links?: "all" } = {}): void {
  test(`local: ${name}`, async () => {
    const opened = await open(options);
    try {
      await body(opened);
    } finally {
      await opened.close();
    }
  });
}

claim("a file that changes while it is read is noticed", async ({ store, root }) => {
  const file = path.join(root, "f");
  fs.writeFileSync(file, Buffer.alloc(4_000_000, 1));
  for (const change of [
    () => fs.appendFileSync(file, "x"),
    () => fs.truncateSync(file, 2_000_000),
    () => fs.writeFileSync(file, Buffer.alloc(2_000_000, 2)),
    () => fs.utimesSync(file, 1, 1),
  ]) {
    const { etag, sizeBytes } = await fileAt(store, "f");
    let isChanged = false;
    const onChunk = (): void => {
      if (!isChanged) change();
      isChanged = true;
    };
    await rejectsWith("version-mismatch", store.read("f", { position: 0, length: sizeBytes, etag, onChunk }));
  }
});

claim("a file replaced by rename while it is read is read whole in its old content", async ({ store, root }) => {
  fs.writeFileSync(path.join(root, "f"), Buffer.alloc(3_000_000, 1));
  const { etag } = await fileAt(store, "f");
  let sum = 0;
  await store.read("f", {
    position: 0,
    length: 3_000_000,
    etag,
    onChunk: (chunk) => {
      fs.writeFileSync(path.join(root, "new"), Buffer.alloc(3_000_000, 2));
      fs.renameSync(path.join(root, "new"), path.join(root, "f"));
      for (const byte of chunk) sum += byte;
    },
  });
  assert.equal(sum, 3_000_000);
  assert.notEqual((await fileAt(store, "f")).etag, etag);
});

claim("links inside the mount are followed, links out of it are refused and not listed", async ({ store, root }) => {
  fs.writeFileSync(path.join(root, "../secret"), "secret");
  fs.writeFileSync(path.join(root, "blob"), "blob");
  fs.symlinkSync("blob", path.join(root, "inside"));
  fs.symlinkSync("../secret", path.join(root, "outside"));
  fs.symlinkSync("..", path.join(root, "parent"));
  fs.symlinkSync(".", path.join(root, "loop"));
  fs.symlinkSync("self", path.join(root, "self"));
  fs.symlinkSync("nothing", path.join(root, "dangling"));
  const page = await store.list("");
  assert.deepEqual(page.entries.map(entryOrderKey), ["blob", "inside"]);
  assert.equal(page.skipped, 4);
  const { etag } = await fileAt(store, "inside");
  assert.equal(String(await readBytes(store, "inside", { position: 0, length: 4, etag })), "blob");
  await rejectsWith("denied", store.head("outside"));
  await rejectsWith("denied", store.list("parent"));
  await rejectsWith("denied", readBytes(store, "parent/secret", { position: 0, length: 1, etag }));
  await rejectsWith("denied", store.write("parent/new", { body: bodyOf("x") }));
  await rejectsWith("denied", store.remove("parent/secret"));
  await rejectsWith("denied", store.rename("parent/secret", "stolen"));
  await rejectsWith("denied", store.rename("blob", "parent/blob"));
  assert.equal(fs.readFileSync(path.join(root, "../secret"), "utf8"), "secret");
  await store.write("outside", { body: bodyOf("replaced") });
  assert.equal(fs.readFileSync(path.join(root, "../secret"), "utf8"), "secret");
});

claim(
  "links out of the mount are followed on request",
  async ({ store, root }) => {
    fs.writeFileSync(path.join(root, "../blob"), "blob");
    fs.symlinkSync("../blob", path.join(root, "outside"));
    assert.deepEqual((await store.list("")).entries.map(entryOrderKey), ["outside"]);
    const { etag } = await fileAt(store, "outside");
    assert.equal(String(await readBytes(store, "outside", { position: 0, length: 4, etag })), "blob");
  },
  { links: "all" },
);

claim("names that are not UTF-8, pipes and sockets are skipped and counted", async ({ store, root }) => {
  fs.writeFileSync(Buffer.concat([Buffer.from(`${root}/bad-`), Buffer.from([0xff, 0xfe])]), "x");
  fs.writeFileSync(path.join(root, "good"), "x");
  const { execFileSync } = await import("node:child_process");
  execFileSync("mkfifo", [path.join(root, "pipe")]);
  const page = await store.list("");
  assert.deepEqual(page.entries.map(entryOrderKey), ["good"]);
  assert.equal(page.skipped, 2);
  await rejectsWith("unsupported", readBytes(store, "pipe", { position: 0, length: 1, etag: "x" }));
});

claim("a name that really contains the replacement character is an ordinary name", async ({ store, root }) => {
  fs.writeFileSync(path.join(root, "odd-\ufffd"), "x");
  assert.deepEqual((await store.list("")).entries.map(entryOrderKey), ["odd-\ufffd"]);
});

claim("a file in the way of a directory is refused", async ({ store }) => {
  await store.write("x", { body: bodyOf("x") });
  await rejectsWith("not-a-directory", store.write("x/y", { body: bodyOf("x") }));
  await rejectsWith("not-a-directory", store.makeDirectory("x/y"));
  await rejectsWith("not-a-directory", store.removeDirectory("x"));
  await store.makeDirectory("d");
  await rejectsWith("is-a-directory", store.remove("d"));
  await rejectsWith("is-a-directory", store.write("d", { body: bodyOf("x") }));
});

claim("temporary files are invisible, and gone after a failed write", async ({ store, root }) => {
  fs.writeFileSync(path.join(root, ".headpond-left-behind.tmp"), "x");
  assert.deepEqual(await store.list(""), { entries: [], skipped: 0 });
  await rejectsWith("invalid", store.write("f", { body: bodyOf("abc"), sizeBytes: 4 }));
  assert.deepEqual(fs.readdirSync(root), [".headpond-left-behind.tmp"]);
});

claim("a page follows the last name of the page before, whatever came and went meanwhile", async ({ store, root }) => {
  for (let i = 10; i < 30; i++) fs.writeFileSync(path.join(root, `f${i}`), "x");
  const first = await store.list("", { limit: 5 });
  for (let i = 10; i < 20; i++) fs.rmSync(path.join(root, `f${i}`));
  const second = await store.list("", { limit: 10, continuation: first.next ?? "" });
  assert.deepEqual(
    second.entries.map(entryOrderKey),
    ["f20", "f21", "f22", "f23", "f24"],
    "gone names leave a short page",
  );
  await store.close();
  const again = await store.list("", { limit: 5, continuation: "f24" });
  assert.deepEqual(again.entries.map(entryOrderKey), ["f25", "f26", "f27", "f28", "f29"]);
  assert.equal(again.next, undefined);
});

claim("20,000 names come in pages, each once", async ({ store, root }) => {
  for (let i = 0; i < 20_000; i++) fs.writeFileSync(path.join(root, `n${i}`), "");
  const entries = await listAll(store, "", 1000);
  assert.equal(new Set(entries.map(entryOrderKey)).size, 20_000);
  assert.equal(entries.length, 20_000);
});

test("local: a root that does not exist, or is a file, is refused with what to do", async () => {
  const disk = new NodeDisk();
  const common = { disk, random: new Random(1), logger: silentLogger };
  await rejectsWith("not-found", LocalUnderStore.open({ ...common, root: "/no/such/directory" }));
  await rejectsWith("not-a-directory", LocalUnderStore.open({ ...common, root: process.execPath }));
});

test("local: a root that vanished is a fault of the store, not an empty directory", async () => {
  const { store, root, close } = await open();
  fs.writeFileSync(path.join(root, "f"), bytesOf("x"));
  fs.renameSync(root, `${root}.away`);
  await rejectsWith("under-store", store.list(""));
  fs.mkdirSync(root);
  await rejectsWith("under-store", store.list(""));
  await close();
});
