/** The contract of `Disk`, held by every implementation, and what only the real disk can show. */

import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import os from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import { alignedBuffer } from "./aligned-buffer.ts";
import type { Disk } from "./disk.ts";
import { MemoryDisk } from "./memory-disk.ts";
import { NodeDisk } from "./node-disk.ts";

type Subject = { readonly disk: Disk; readonly root: string; readonly cleanup: () => Promise<void> };

const subjects: Readonly<Record<string, () => Promise<Subject>>> = {
  NodeDisk: async () => {
    const root = await fs.promises.mkdtemp(join(os.tmpdir(), "headpond-disk-"));
    return { disk: new NodeDisk(), root, cleanup: () => fs.promises.rm(root, { recursive: true }) };
  },
  MemoryDisk: async () => {
    const disk = new MemoryDisk();
    await disk.makeDirectory("/data");
    return { disk, root: "/data", cleanup: async () => {} };
  },
};

const text = (value: string): Uint8Array => Buffer.from(value);

async function readAll(disk: Disk, path: string): Promise<string> {
  const file = await disk.open(path, "read");
  const buffer = Buffer.alloc((await file.stat()).sizeBytes);
  const count = await file.read(buffer, 0);
  await file.close();
  return buffer.toString("utf8", 0, count);
}

async function writeAll(disk: Disk, path: string, content: string): Promise<void> {
  const file = await disk.open(path, "open-or-create");
  await file.write(text(content), 0);
  await file.close();
}

for (const [name, make] of Object.entries(subjects)) {
  describe(name, () => {
    const holds = (claim: string, body: (disk: Disk, root: string) => Promise<void>): void => {
      test(claim, async () => {
        const { disk, root, cleanup } = await make();
        try {
          await body(disk, root);
        } finally {
          await cleanup();
        }
      });
    };

    holds("what is written is read back, at any position, by either form of call", async (disk, root) => {
      const file = await disk.open(`${root}/f`, "create");
      await file.write(text("hello"), 0);
      file.writeSync(text("world"), 10);
      const buffer = Buffer.alloc(20, 0xff);
      assert.equal(await file.read(buffer, 0), 15);
      assert.equal(buffer.toString("latin1", 0, 15), "hello\0\0\0\0\0world");
      assert.equal(file.readSync(buffer.subarray(0, 3), 10), 3);
      assert.equal(buffer.toString("latin1", 0, 3), "wor");
      assert.equal(await file.read(buffer, 15), 0);
      assert.equal(await file.read(buffer, 1000), 0);
      await file.datasync();
      await file.close();
    });

    holds("open modes say whether the file must, must not or may exist", async (disk, root) => {
      const path = `${root}/f`;
      await assert.rejects(disk.open(path, "read"), { code: "ENOENT" });
      await assert.rejects(disk.open(path, "write"), { code: "ENOENT" });
      await (await disk.open(path, "create")).close();
      await assert.rejects(disk.open(path, "create"), { code: "EEXIST" });
      await (await disk.open(path, "open-or-create")).close();
      await assert.rejects(disk.open(`${root}/absent/f`, "create"), { code: "ENOENT" });
      await assert.rejects(disk.open(`${path}/f`, "create"), { code: "ENOTDIR" });
      const reader = await disk.open(path, "read");
      await assert.rejects(reader.write(text("x"), 0), { code: "EBADF" });
      assert.throws(() => reader.writeSync(text("x"), 0), { code: "EBADF" });
      await reader.close();
    });

    holds("a closed file refuses everything but another close", async (disk, root) => {
      const file = await disk.open(`${root}/f`, "create");
      await file.close();
      await file.close();
      await assert.rejects(file.read(Buffer.alloc(1), 0));
      await assert.rejects(file.write(text("x"), 0));
    });

    holds("truncate cuts and extends with zeros", async (disk, root) => {
      const file = await disk.open(`${root}/f`, "create");
      await file.write(text("abcdef"), 0);
      await file.truncate(3);
      await file.truncate(5);
      const buffer = Buffer.alloc(10);
      assert.equal(await file.read(buffer, 0), 5);
      assert.equal(buffer.toString("latin1", 0, 5), "abc\0\0");
      assert.equal((await file.stat()).sizeBytes, 5);
      await file.close();
    });

    holds("stat tells files from directories, and an inode is the file's, not the name's", async (disk, root) => {
      await writeAll(disk, `${root}/f`, "abc");
      await disk.link(`${root}/f`, `${root}/g`);
      const stat = await disk.stat(`${root}/f`);
      assert.equal(stat.kind, "file");
      assert.equal(stat.sizeBytes, 3);
      assert.equal(stat.inode, (await disk.stat(`${root}/g`)).inode);
      assert.equal((await disk.stat(root)).kind, "directory");
      await assert.rejects(disk.stat(`${root}/absent`), { code: "ENOENT" });
      assert.equal(await disk.realPath(`${root}/f`), `${await disk.realPath(root)}/f`);
    });

    holds("directories are made with parents, listed by name, removed when empty", async (disk, root) => {
      await disk.makeDirectory(`${root}/a/b`);
      await disk.makeDirectory(`${root}/a/b`);
      await writeAll(disk, `${root}/a/f`, "");
      assert.deepEqual([...(await disk.list(`${root}/a`))].sort(), ["b", "f"]);
      await assert.rejects(disk.list(`${root}/absent`), { code: "ENOENT" });
      await assert.rejects(disk.removeDirectory(`${root}/a`), { code: "ENOTEMPTY" });
      await disk.removeDirectory(`${root}/a/b`);
      await disk.removeTree(`${root}/a`);
      await disk.removeTree(`${root}/a`);
      assert.deepEqual(await disk.list(root), []);
      await disk.syncDirectory(root);
    });

    holds("rename replaces, and moves whole directories", async (disk, root) => {
      await writeAll(disk, `${root}/f`, "new");
      await writeAll(disk, `${root}/g`, "old");
      await disk.rename(`${root}/f`, `${root}/g`);
      assert.equal(await readAll(disk, `${root}/g`), "new");
      await assert.rejects(disk.rename(`${root}/f`, `${root}/h`), { code: "ENOENT" });
      await disk.makeDirectory(`${root}/a`);
      await writeAll(disk, `${root}/a/x`, "inside");
      await disk.rename(`${root}/a`, `${root}/b`);
      assert.equal(await readAll(disk, `${root}/b/x`), "inside");
    });

    holds("link is exclusive: of two, one gets EEXIST", async (disk, root) => {
      await writeAll(disk, `${root}/a`, "a");
      await writeAll(disk, `${root}/b`, "b");
      const results = await Promise.allSettled([
        disk.link(`${root}/a`, `${root}/slot`),
        disk.link(`${root}/b`, `${root}/slot`),
      ]);
      assert.equal(results.filter(({ status }) => status === "fulfilled").length, 1);
      const refused = results.find(({ status }) => status === "rejected") as PromiseRejectedResult;
      assert.equal((refused.reason as NodeJS.ErrnoException).code, "EEXIST");
    });

    holds("a file that was unlinked while open is still readable and writable", async (disk, root) => {
      await writeAll(disk, `${root}/f`, "abc");
      const file = await disk.open(`${root}/f`, "write");
      await disk.unlink(`${root}/f`);
      await file.write(text("X"), 0);
      const buffer = Buffer.alloc(3);
      await file.read(buffer, 0);
      assert.equal(buffer.toString(), "Xbc");
      await file.close();
      await assert.rejects(disk.unlink(`${root}/f`), { code: "ENOENT" });
    });

    holds("direct files take aligned buffers", async (disk, root) => {
      const buffer = alignedBuffer(8192).fill(7);
      const file = await disk.open(`${root}/f`, "create", { direct: true });
      await file.write(buffer, 4096);
      await file.datasync();
      await file.close();
      const again = await disk.open(`${root}/f`, "read", { direct: true });
      const back = alignedBuffer(16384);
      assert.equal(await again.read(back, 0), 12288);
      assert.ok(back.subarray(4096, 12288).every((byte) => byte === 7));
      await again.close();
    });

    holds("a lock has one holder at a time, and can be taken again after release", async (disk, root) => {
      const lock = await disk.lock(`${root}/lock`);
      assert.notEqual(lock, undefined);
      assert.equal(await disk.lock(`${root}/lock`), undefined);
      await lock?.release();
      await lock?.release();
      const again = await disk.lock(`${root}/lock`);
      assert.notEqual(again, undefined);
      await again?.release();
    });

    holds("space is a part of the whole", async (disk, root) => {
      const { freeBytes, totalBytes } = await disk.space(root);
      assert.ok(freeBytes > 0 && freeBytes <= totalBytes);
    });
  });
}

/** A process that takes the lock, says so, and waits to be killed. */
async function lockHolder(path: string): Promise<ChildProcess> {
  const module = JSON.stringify(new URL("./node-disk.ts", import.meta.url).href);
  const code = `import { NodeDisk } from ${module};
    const lock = await new NodeDisk().lock(${JSON.stringify(path)});
    process.stdout.write(lock === undefined ? "refused" : "taken");
    setInterval(() => {}, 1000);`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", code], { stdio: ["ignore", "pipe", "inherit"] });
  const [chunk] = (await once(child.stdout ?? child, "data")) as [Buffer];
  assert.equal(String(chunk), "taken");
  return child;
}

test("another process's lock is respected while it lives and gone when it is killed", async () => {
  const root = fs.mkdtempSync(join(os.tmpdir(), "headpond-lock-"));
  const disk = new NodeDisk();
  const holder = await lockHolder(`${root}/lock`);
  try {
    assert.equal(await disk.lock(`${root}/lock`), undefined);
  } finally {
    holder.kill("SIGKILL");
    await once(holder, "exit");
  }
  const lock = await disk.lock(`${root}/lock`);
  assert.notEqual(lock, undefined);
  await lock?.release();
  fs.rmSync(root, { recursive: true });
});

test("a real disk keeps Node's error codes and follows symbolic links to what they lead to", async () => {
  const root = fs.mkdtempSync(join(os.tmpdir(), "headpond-disk-"));
  fs.writeFileSync(`${root}/target`, "abc");
  fs.symlinkSync("target", `${root}/symbolic`);
  const disk = new NodeDisk();
  assert.equal((await disk.stat(`${root}/symbolic`)).kind, "file");
  assert.equal(await disk.realPath(`${root}/symbolic`), `${fs.realpathSync(root)}/target`);
  await assert.rejects(disk.removeDirectory(`${root}/target`), { code: "ENOTDIR" });
  fs.rmSync(root, { recursive: true });
});

test("what a private disk makes is for its owner only, whatever the umask says", async () => {
  const root = await fs.promises.mkdtemp(join(os.tmpdir(), "headpond-disk-"));
  const before = process.umask(0);
  try {
    const modeOf = async (path: string): Promise<number> => (await fs.promises.stat(path)).mode & 0o777;
    const disk = new NodeDisk({ isPrivate: true });
    await disk.makeDirectory(`${root}/a/b`);
    for (const name of [`${root}/a`, `${root}/a/b`]) assert.equal(await modeOf(name), 0o700);
    for (const options of [{}, { direct: true }]) {
      const path = `${root}/a/file-${Object.keys(options).join()}`;
      await (await disk.open(path, "create", options)).close();
      assert.equal(await modeOf(path), 0o600);
    }
    const lock = await disk.lock(`${root}/a/lock`);
    assert.equal(await modeOf(`${root}/a/lock`), 0o600);
    await lock?.release();
    const open = new NodeDisk();
    await open.makeDirectory(`${root}/c`);
    assert.equal(await modeOf(`${root}/c`), 0o777);
  } finally {
    process.umask(before);
    await fs.promises.rm(root, { recursive: true });
  }
});
