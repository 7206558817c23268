import assert from "node:assert/strict";
import { test } from "node:test";
import type { FileVersionId, InodeId, MountId } from "../base/ids.ts";
import type { Path } from "../base/path.ts";
import { code, NamespaceHarness, ok, Shell, type StoreKind, storeKinds } from "../testing/namespace-harness.ts";

function claim(name: string, body: (shell: Shell, harness: NamespaceHarness) => Promise<void> | void): void {
  for (const kind of storeKinds) {
    test(`${name} (${kind})`, async () => {
      const harness = await NamespaceHarness.open(kind as StoreKind);
      try {
        await body(new Shell(harness), harness);
      } finally {
        await harness.close();
      }
    });
  }
}

const at = (text: string): Path => text as Path;

function file(name: string, etag: string, sizeBytes = 10) {
  return { name, kind: "file" as const, sizeBytes, etag, modifiedMs: 5 };
}

function directory(name: string) {
  return { name, kind: "directory" as const, sizeBytes: 0, etag: "", modifiedMs: 5 };
}

/** A mount at /m, and short forms for its root directory. */
function mounted(shell: Shell, harness: NamespaceHarness) {
  const done = ok(shell.mount("/m"));
  const { mountId, inodeId } = done;
  return {
    mountId,
    inodeId,
    sync: (
      rows: readonly ReturnType<typeof file | typeof directory>[],
      began = harness.namespace.version,
      id: InodeId = inodeId,
    ) => harness.run("sync-rows", { mountId, directoryInodeId: id, listingBeganVersion: began, rows }),
    gone: (goneNames: readonly string[], began = harness.namespace.version, finished = false) =>
      harness.run("sync-end", { directoryInodeId: inodeId, listingBeganVersion: began, goneNames, finished }),
    write: (path: string, fields = {}) => ok(shell.create(path, { exclusive: false, forWriting: true, ...fields })),
    complete: (id: InodeId, contentVersion: number, etag = "w") =>
      harness.run("complete", { inodeId: id, contentVersion, sizeBytes: 3, etag, modifiedMs: 9 }),
    finish: (intentId: number | undefined, outcome: "done" | "undone" = "done") =>
      harness.run("finish-intent", { intentId: intentId ?? 0, outcome }),
  };
}

claim("a mount needs an empty directory, hides its secrets and goes without a trace", (shell, harness) => {
  const { namespace } = harness;
  ok(shell.create("/full/f", { recursive: true }));
  ok(shell.mkdir("/empty"));
  assert.equal(code(shell.mount("/")), "invalid");
  assert.equal(code(shell.mount("/full")), "not-empty");
  assert.equal(code(shell.mount("/full/f")), "not-a-directory");
  ok(shell.mount("/empty", { options: { region: "eu", secretKey: "hush" }, secretOptions: ["secretKey"] }));
  ok(shell.mount("/new/deep"));
  assert.equal(code(shell.mount("/empty")), "already-exists");
  assert.deepEqual(namespace.mounts()[0]?.options, { region: "eu" });
  assert.equal(namespace.mountWithSecrets(1)?.options["secretKey"], "hush");
  assert.equal(namespace.mountOf(at("/empty/not/there"))?.path, "/empty");
  assert.equal(namespace.mountOf(at("/emptyish")), undefined);
  assert.equal(namespace.stat(at("/empty")).mount, "/empty");
  assert.equal(code(shell.remove("/new", { recursive: true })), "invalid");
  assert.equal(code(shell.rename("/empty", "/x")), "invalid");
  ok(harness.run("unmount", { path: at("/empty"), force: false }));
  ok(harness.run("unmount", { path: at("/new/deep"), force: false }));
  assert.equal(code(harness.run("unmount", { path: at("/empty"), force: false })), "not-found");
  assert.equal(namespace.stat(at("/empty")).mount, undefined);
  assert.equal(namespace.find(at("/new/deep")), undefined, "the mount made its directory");
});

claim("listings become inodes, and a second listing changes only what changed", (shell, harness) => {
  const { namespace } = harness;
  const m = mounted(shell, harness);
  assert.deepEqual(ok(m.sync([file("a", "1"), file("b", "1"), directory("d")])), {
    ok: true,
    added: 3,
    changed: 0,
    removed: 0,
    dropped: 0,
  });
  const a = namespace.stat(at("/m/a"));
  const b = namespace.stat(at("/m/b"));
  assert.deepEqual(ok(m.sync([file("a", "1"), file("b", "2", 20), directory("d")])), {
    ok: true,
    added: 0,
    changed: 1,
    removed: 0,
    dropped: 0,
  });
  assert.deepEqual(namespace.stat(at("/m/a")), a, "unchanged rows do not even raise a version");
  const changed = namespace.stat(at("/m/b"));
  assert.deepEqual([changed.inodeId, changed.contentVersion, changed.sizeBytes], [b.inodeId, b.contentVersion + 1, 20]);
  const descriptor = namespace.describe(`${b.inodeId}-2` as FileVersionId);
  assert.deepEqual(
    [descriptor.key, descriptor.etag, descriptor.mountId, descriptor.sizeBytes],
    ["b", "2", m.mountId, 20],
  );
  assert.throws(() => namespace.describe(`${b.inodeId}-1` as FileVersionId), { code: "not-found" });
  assert.equal(ok(m.gone(["a", "nothing"], namespace.version, true)).removed, 1);
  assert.deepEqual(shell.names("/m"), ["b", "d"]);
  assert.ok(namespace.syncedMs(m.inodeId) > 0);
  ok(m.sync([directory("b"), file("d", "1")]));
  assert.deepEqual([namespace.stat(at("/m/b")).kind, namespace.stat(at("/m/d")).kind], ["directory", "file"]);
  assert.equal(ok(m.sync([file("..", "1"), file("", "1"), file("x/y", "1"), file("n".repeat(256), "1")])).dropped, 4);
});

claim("a slow listing never undoes what changed while it ran", (shell, harness) => {
  const { namespace } = harness;
  const m = mounted(shell, harness);
  ok(m.sync([file("old", "1"), file("removed", "1"), file("renamed", "1")]));
  const began = namespace.version;
  const w = m.write("/m/old");
  ok(m.complete(w.inodeId, w.contentVersion, "new"));
  ok(m.finish(ok(shell.remove("/m/removed")).intentId));
  ok(m.finish(ok(shell.rename("/m/renamed", "/m/target")).intentId));
  const created = m.write("/m/created");
  ok(m.complete(created.inodeId, created.contentVersion));
  assert.equal(ok(m.sync([file("old", "1"), file("removed", "1"), file("renamed", "1")], began)).dropped, 3);
  assert.equal(ok(m.gone(["created", "target"], began)).dropped, 2);
  assert.equal(namespace.stat(at("/m/old")).etag, "new");
  assert.deepEqual(shell.names("/m"), ["created", "old", "target"]);
});

claim("written content is seen by nobody before complete, and replaces the old one at once", (shell, harness) => {
  const { namespace } = harness;
  const m = mounted(shell, harness);
  const first = ok(shell.create("/m/d/f", { recursive: true, exclusive: true }));
  assert.deepEqual([first.key, first.mountId, first.contentVersion], ["d/f", m.mountId, 1]);
  assert.equal(namespace.stat(at("/m/d/f")).complete, false);
  assert.throws(() => namespace.describe(`${first.inodeId}-1` as FileVersionId), { code: "not-found" });
  assert.deepEqual(
    namespace.openIntents().map((intent) => [intent.kind, intent.path]),
    [["create", "/m/d/f"]],
  );
  ok(m.complete(first.inodeId, 1, "one"));
  assert.deepEqual(namespace.openIntents(), []);
  assert.equal(ok(m.complete(first.inodeId, 1, "one")).inodeId, first.inodeId, "a repeated complete is no error");
  const second = m.write("/m/d/f");
  assert.equal(second.contentVersion, 2);
  assert.equal(namespace.stat(at("/m/d/f")).etag, "one");
  assert.equal(namespace.describe(`${first.inodeId}-1` as FileVersionId).etag, "one");
  const third = m.write("/m/d/f");
  assert.equal(code(m.complete(first.inodeId, second.contentVersion, "two")), "version-mismatch");
  ok(m.complete(first.inodeId, third.contentVersion, "three"));
  assert.equal(namespace.stat(at("/m/d/f")).etag, "three");
  assert.equal(ok(shell.create("/m/d/f", { exclusive: false })).created, false);
});

claim("content that is given up leaves the old one, and its number is never used again", (shell, harness) => {
  const { namespace } = harness;
  const m = mounted(shell, harness);
  const first = m.write("/m/f");
  ok(m.finish(first.intentId, "undone"));
  assert.equal(namespace.find(at("/m/f")), undefined);
  const second = m.write("/m/f");
  ok(m.complete(second.inodeId, second.contentVersion, "one"));
  const third = m.write("/m/f");
  ok(m.finish(third.intentId, "undone"));
  assert.equal(namespace.stat(at("/m/f")).etag, "one");
  assert.equal(code(m.complete(third.inodeId, third.contentVersion)), "version-mismatch");
  assert.ok(m.write("/m/f").contentVersion > third.contentVersion);
  assert.equal(code(m.complete(999 as InodeId, 1)), "not-found");
  const outside = ok(shell.create("/outside"));
  assert.equal(code(m.complete(outside.inodeId, 2)), "no-mount");
  assert.equal(code(shell.create("/outside", { exclusive: false, forWriting: true })), "no-mount");
  assert.equal(code(shell.create("/other", { forWriting: true })), "no-mount");
  assert.equal(namespace.find(at("/other")), undefined);
});

claim("a change under a mount shows when the under store has it, and locks its paths until then", (shell, harness) => {
  const { namespace } = harness;
  const m = mounted(shell, harness);
  ok(m.sync([file("f", "1"), directory("d")]));
  const removal = ok(shell.remove("/m/f"));
  assert.equal(namespace.stat(at("/m/f")).kind, "file");
  assert.equal(code(shell.remove("/m/f")), "unavailable");
  assert.equal(code(shell.rename("/m/f", "/m/g")), "unavailable");
  assert.equal(code(shell.create("/m/f", { exclusive: false, forWriting: true })), "unavailable");
  ok(m.finish(removal.intentId));
  assert.equal(namespace.find(at("/m/f")), undefined);
  assert.equal(code(m.finish(removal.intentId)), "not-found");
  const made = ok(shell.mkdir("/m/new"));
  assert.equal(namespace.find(at("/m/new")), undefined);
  ok(m.finish(made.intentId));
  assert.equal(namespace.stat(at("/m/new")).kind, "directory");
  const moved = ok(shell.rename("/m/d", "/m/e"));
  assert.equal(code(shell.create("/m/d/x")), "unavailable", "below a directory that moves nothing may begin");
  assert.equal(code(shell.create("/m/e")), "unavailable");
  ok(m.finish(moved.intentId, "undone"));
  assert.deepEqual(shell.names("/m"), ["d", "new"]);
  ok(m.finish(ok(shell.rename("/m/d", "/m/e")).intentId));
  assert.deepEqual(shell.names("/m"), ["e", "new"]);
  const writing = m.write("/m/e/x");
  assert.equal(code(shell.remove("/m/e", { recursive: true })), "unavailable", "something below is being written");
  ok(m.complete(writing.inodeId, 1));
  ok(m.finish(ok(shell.remove("/m/e", { recursive: true })).intentId));
  assert.deepEqual(shell.names("/m"), ["new"]);
});

claim("read-only mounts refuse changes, and nothing moves across mounts", (shell, harness) => {
  ok(shell.mount("/ro", { readOnly: true }));
  const m = mounted(shell, harness);
  ok(shell.create("/plain"));
  const ro = harness.namespace.stat(at("/ro")).inodeId;
  ok(
    harness.run("sync-rows", {
      mountId: 1 as MountId,
      directoryInodeId: ro,
      listingBeganVersion: harness.namespace.version,
      rows: [file("f", "1")],
    }),
  );
  ok(m.sync([file("f", "1")]));
  for (const result of [
    shell.create("/ro/x"),
    shell.mkdir("/ro/x"),
    shell.remove("/ro/f"),
    shell.rename("/ro/f", "/ro/g"),
  ]) {
    assert.equal(code(result), "read-only");
  }
  assert.equal(code(harness.run("ttl", { path: at("/ro/f"), ttlMs: 1, action: "delete" })), "read-only");
  assert.equal(code(shell.set("/ro/f", { set: { note: "attributes are ours" } })), "ok");
  for (const [from, to] of [
    ["/ro/f", "/m/g"],
    ["/m/f", "/g"],
    ["/plain", "/m/plain"],
  ] as const) {
    assert.equal(code(shell.rename(from, to)), "unsupported");
  }
});

claim("unmounting takes the synced tree away, waits for changes under way, or gives them up", (shell, harness) => {
  const { namespace } = harness;
  ok(shell.mkdir("/m"));
  const m = mounted(shell, harness);
  ok(m.sync([file("f", "1"), directory("d")]));
  ok(shell.mount("/m/d/inner"));
  assert.equal(code(harness.run("unmount", { path: at("/m"), force: false })), "invalid");
  ok(harness.run("unmount", { path: at("/m/d/inner"), force: false }));
  const { sessionId } = ok(harness.run("open-session", { timeoutMs: 60_000, client: "t" }));
  const origin = { sessionId, sequence: 1, acknowledged: 0 };
  const removal = ok(shell.remove("/m/f", { origin }));
  assert.equal(code(harness.run("unmount", { path: at("/m"), force: false })), "unavailable");
  ok(harness.run("unmount", { path: at("/m"), force: true }));
  assert.equal(code(shell.remove("/m/f", { origin })), "unknown-outcome");
  assert.equal(code(m.finish(removal.intentId)), "not-found");
  assert.deepEqual(shell.names("/m"), []);
  assert.equal(code(m.sync([file("f", "1")])), "not-found");
  assert.equal(ok(harness.run("reclaim", { limit: 100 })).more, false);
  assert.deepEqual([namespace.counters.files, namespace.counters.directories, namespace.counters.sizeBytes], [0, 2, 0]);
});

claim("a TTL under a mount begins a removal that the under store must finish", (shell, harness) => {
  const m = mounted(shell, harness);
  ok(m.sync([file("a", "1"), file("b", "1")]));
  for (const name of ["a", "b"]) ok(harness.run("ttl", { path: at(`/m/${name}`), ttlMs: 10, action: "delete" }));
  const held = ok(shell.remove("/m/b"));
  harness.nowMs += 1000;
  const done = ok(harness.run("expire-ttl", { limit: 10 }));
  assert.equal(done.intents.length, 1);
  ok(m.finish(done.intents[0]));
  ok(m.finish(held.intentId, "undone"));
  assert.deepEqual(shell.names("/m"), ["b"]);
  harness.nowMs += 120_000;
  assert.equal(ok(harness.run("expire-ttl", { limit: 10 })).intents.length, 1, "what had to wait is tried again");
});

claim("mounts and open intents survive a crash", async (shell, harness) => {
  const m = mounted(shell, harness);
  ok(m.sync([file("f", "1"), file("g", "1")]));
  const removal = ok(shell.remove("/m/f"));
  await harness.namespace.flush();
  const rename = ok(shell.rename("/m/g", "/m/h"));
  const before = [harness.namespace.openIntents(), harness.namespace.mounts(), harness.namespace.digest()];
  await harness.crash();
  assert.deepEqual([harness.namespace.openIntents(), harness.namespace.mounts(), harness.namespace.digest()], before);
  ok(m.finish(rename.intentId));
  ok(m.finish(removal.intentId));
  assert.deepEqual(shell.names("/m"), ["h"]);
});
