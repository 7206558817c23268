import assert from "node:assert/strict";
import { test } from "node:test";
import type { FileVersionId, InodeId, MountId } from "../base/ids.ts";
import type { Path } from "../base/path.ts";
import { code, NamespaceHarness, ok, Shell, type StoreKind, storeKinds } from "../testing/namespace-harness.ts";

/** Runs the claim on both stores: they must not differ. */
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

claim("a created file outside mounts is empty and complete", (shell, { namespace }) => {
  ok(shell.mkdir("/a/b"));
  const done = ok(shell.create("/a/b/f", { attributes: { k: "v" } }));
  assert.equal(done.created, true);
  const status = namespace.stat(at("/a/b/f"));
  assert.deepEqual(
    { ...status, inodeId: 0, version: 0, createdMs: 0, modifiedMs: 0 },
    {
      path: "/a/b/f",
      kind: "file",
      inodeId: 0,
      version: 0,
      sizeBytes: 0,
      mode: 0o644,
      owner: "ann",
      group: "staff",
      createdMs: 0,
      modifiedMs: 0,
      attributes: { k: "v" },
      cachedBytes: 0,
      contentVersion: 1,
      complete: true,
      pinned: false,
    },
  );
  assert.equal(status.inodeId, done.inodeId);
  assert.equal(status.version, done.version);
});

claim("create answers each obstacle with its own code", (shell) => {
  ok(shell.create("/f"));
  ok(shell.mkdir("/d"));
  assert.equal(code(shell.create("/f")), "already-exists");
  assert.equal(ok(shell.create("/f", { exclusive: false })).created, false);
  assert.equal(code(shell.create("/d")), "already-exists");
  assert.equal(code(shell.create("/d", { exclusive: false })), "is-a-directory");
  assert.equal(code(shell.create("/")), "already-exists");
  assert.equal(code(shell.create("/no/f")), "not-found");
  assert.equal(code(shell.create("/f/x")), "not-a-directory");
  assert.equal(code(shell.create("/f/x/y", { recursive: true })), "not-a-directory");
  assert.equal(code(shell.create("/p/q/f", { recursive: true })), "ok");
});

claim("a refused command leaves nothing behind", (shell, { namespace }) => {
  const before = namespace.counters;
  assert.equal(code(shell.create(`/x/y/${"n".repeat(256)}`, { recursive: true })), "invalid");
  assert.equal(code(shell.create(`/x/${"n".repeat(256)}/f`, { recursive: true })), "invalid");
  assert.equal(code(shell.create("/x/y/f", { recursive: true, attributes: { k: "v".repeat(4097) } })), "invalid");
  assert.deepEqual(namespace.counters, before);
  assert.equal(namespace.find(at("/x")), undefined);
});

claim("hostile names are refused, odd ones kept byte for byte", (shell, { namespace }) => {
  for (const name of ["..", ".", "", "a\0b", "n".repeat(256), "\u{1F600}".repeat(64), "\ud800"]) {
    assert.equal(
      code(shell.create(`/${name}`)),
      name === "" ? "already-exists" : name === "\ud800" ? "ok" : "invalid",
      JSON.stringify(name),
    );
  }
  const names = [
    "n".repeat(255),
    "\u{1F600}".repeat(63),
    "e\u0301",
    "\u00e9",
    " ",
    "-rf",
    "a\nb",
    "__proto__",
    "\uffff",
    "\u{10000}",
    "%2e%2e",
  ];
  for (const name of names) ok(shell.create(`/odd/${name}`, { recursive: true }));
  const sorted = [...names].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
  assert.deepEqual(shell.names("/odd"), sorted);
  for (const name of names) assert.equal(namespace.stat(at(`/odd/${name}`)).path, `/odd/${name}`);
});

claim("a path above 4096 bytes is refused, one of 4096 works", (shell, { namespace }) => {
  const parent = `/${Array.from({ length: 16 }, () => "d".repeat(250)).join("/")}`;
  const longest = `${parent}/${"f".repeat(4096 - parent.length - 1)}`;
  assert.equal(longest.length, 4096);
  ok(shell.create(longest, { recursive: true }));
  assert.equal(namespace.stat(at(longest)).kind, "file");
  assert.equal(code(shell.create(`${longest}x`, { recursive: true })), "invalid");
});

claim("two thousand nested directories can be made, read, moved and removed", (shell, harness) => {
  const deep = "/d".repeat(2000);
  ok(shell.mkdir(deep));
  ok(shell.mkdir("/other"));
  ok(shell.create(`${deep}/f`));
  const { inodeId } = harness.namespace.stat(at(`${deep}/f`));
  ok(shell.rename("/d", "/other/e"));
  assert.equal(harness.namespace.get(inodeId)?.path, `/other/e${deep.slice(2)}/f`);
  ok(shell.remove("/other", { recursive: true }));
  assert.equal(harness.namespace.get(inodeId), undefined);
  for (let more = true; more; ) more = ok(harness.run("reclaim", { limit: 500 })).more;
  assert.deepEqual([harness.namespace.counters.files, harness.namespace.counters.directories], [0, 1]);
});

claim("every change raises the version, a directory's also when a child comes or goes", (shell, harness) => {
  const version = (path: string): number => harness.namespace.stat(at(path)).version;
  ok(shell.mkdir("/d"));
  const seen = [version("/d")];
  const step = (result: { ok: boolean }): void => {
    ok(result);
    const now = version("/d");
    assert.ok(now > (seen[seen.length - 1] as number), `${now} after ${seen.join()}`);
    seen.push(now);
  };
  step(shell.create("/d/f"));
  step(shell.set("/d", { set: { a: "1" } }));
  step(shell.rename("/d/f", "/d/g"));
  step(shell.remove("/d/g"));
  step(harness.run("pin", { path: at("/d"), pinned: true }));
  step(harness.run("ttl", { path: at("/d"), ttlMs: 5, action: "free" }));
  step(harness.run("replicas", { path: at("/d"), min: 1, max: 2 }));
  const before = version("/d");
  ok(shell.mkdir("/d/e"));
  const child = version("/d");
  ok(shell.create("/d/e/f"));
  assert.ok(child > before);
  assert.equal(version("/d"), child, "a grandchild does not count");
});

claim("set-attributes with a version changes nothing when another came first", (shell, { namespace }) => {
  const { version } = ok(shell.create("/f"));
  ok(shell.set("/f", { set: { a: "1", b: "2" }, ifVersion: version }));
  const refused = shell.set("/f", { set: { a: "9" }, ifVersion: version });
  assert.equal(code(refused), "version-mismatch");
  assert.equal(refused.ok ? 0 : refused.error.details?.["version"], namespace.stat(at("/f")).version);
  ok(shell.set("/f", { set: { c: "3" }, remove: ["a", "none"], mode: 0o600, owner: "bob", group: "g", modifiedMs: 7 }));
  const { attributes, mode, owner, group, modifiedMs } = namespace.stat(at("/f"));
  assert.deepEqual({ ...attributes }, { b: "2", c: "3" });
  assert.deepEqual([mode, owner, group, modifiedMs], [0o600, "bob", "g", 7]);
});

claim("attributes hold 4 KiB a value and 64 KiB an inode, and names like __proto__", (shell, { namespace }) => {
  ok(shell.create("/f"));
  assert.equal(code(shell.set("/f", { set: { k: "v".repeat(4097) } })), "invalid");
  assert.equal(code(shell.set("/f", { set: { "": "v" } })), "invalid");
  for (let i = 0; i < 15; i++) ok(shell.set("/f", { set: { [`k${i}`]: "v".repeat(4096) } }));
  assert.equal(code(shell.set("/f", { set: { k15: "v".repeat(4096) } })), "invalid");
  ok(shell.set("/f", { remove: ["k0"] }));
  const set = Object.defineProperty({}, "__proto__", {
    value: "x",
    enumerable: true,
    configurable: true,
    writable: true,
  });
  ok(shell.set("/f", { set }));
  assert.equal(Object.entries(namespace.stat(at("/f")).attributes).find(([key]) => key === "__proto__")?.[1], "x");
});

claim("remove refuses what it should and takes a tree at once", (shell, harness) => {
  ok(shell.create("/d/e/f", { recursive: true }));
  assert.equal(code(shell.remove("/")), "invalid");
  assert.equal(code(shell.remove("/none")), "not-found");
  assert.equal(code(shell.remove("/d")), "not-empty");
  assert.equal(code(shell.remove("/d/e/f", { expect: "directory" })), "not-a-directory");
  assert.equal(code(shell.remove("/d", { expect: "file" })), "is-a-directory");
  assert.equal(code(shell.remove("/d", { recursive: true, ifVersion: 999 })), "version-mismatch");
  const inner = harness.namespace.stat(at("/d/e/f")).inodeId;
  ok(shell.remove("/d", { recursive: true }));
  assert.equal(harness.namespace.find(at("/d/e/f")), undefined);
  assert.equal(harness.namespace.get(inner), undefined);
  const again = ok(shell.create("/d/e/f", { recursive: true }));
  assert.ok(again.inodeId > inner, "inode ids are never used again");
});

claim("a removed tree is reclaimed in slices, and names its files", (shell, harness) => {
  for (let d = 0; d < 3; d++) for (let f = 0; f < 20; f++) ok(shell.create(`/t/d${d}/f${f}`, { recursive: true }));
  ok(shell.create("/keep"));
  ok(shell.remove("/t", { recursive: true }));
  assert.equal(harness.namespace.counters.files, 61);
  const files: number[] = [];
  let slices = 0;
  for (let more = true; more; slices++) {
    const done = ok(harness.run("reclaim", { limit: 7 }));
    assert.ok(done.reclaimed <= 7);
    files.push(...done.files);
    more = done.more;
  }
  assert.ok(slices >= 9);
  assert.equal(new Set(files).size, 60);
  assert.deepEqual([harness.namespace.counters.files, harness.namespace.counters.directories], [1, 1]);
});

claim("rename follows POSIX", (shell, { namespace }) => {
  for (const path of ["/a/f", "/a/g", "/b/h"]) ok(shell.create(path, { recursive: true }));
  ok(shell.mkdir("/empty"));
  const f = namespace.stat(at("/a/f")).inodeId;
  const g = namespace.stat(at("/a/g")).inodeId;
  assert.equal(code(shell.rename("/a/f", "/a/g", false)), "already-exists");
  assert.equal(code(shell.rename("/a/f", "/a/f", false)), "already-exists");
  assert.equal(ok(shell.rename("/a/f", "/a/f")).inodeId, f);
  assert.equal(ok(shell.rename("/a/f", "/a/g")).replacedInodeId, g);
  assert.equal(namespace.stat(at("/a/g")).inodeId, f);
  assert.equal(namespace.find(at("/a/f")), undefined);
  assert.equal(code(shell.rename("/a", "/a/g/x")), "not-a-directory");
  assert.equal(code(shell.rename("/a", "/a/x")), "invalid");
  assert.equal(code(shell.rename("/a/g", "/a")), "is-a-directory");
  assert.equal(code(shell.rename("/a", "/a/g")), "invalid");
  assert.equal(code(shell.rename("/empty", "/a/g")), "not-a-directory");
  assert.equal(code(shell.rename("/empty", "/b")), "not-empty");
  assert.equal(code(shell.rename("/none", "/x")), "not-found");
  assert.equal(code(shell.rename("/a/g", "/no/x")), "not-found");
  assert.equal(code(shell.rename("/", "/x")), "invalid");
  ok(shell.rename("/a", "/empty"));
  assert.equal(namespace.get(f)?.path, "/empty/g");
  assert.deepEqual(shell.names("/"), ["b", "empty"]);
});

claim("a directory of a hundred thousand children is listed in pages, flushed or not", async (shell, harness) => {
  // In memory a scan sorts all keys anew after each flush: fewer will do.
  const count = harness.kind === "lmdb" ? 100_000 : 10_000;
  ok(shell.mkdir("/big"));
  const name = (i: number): string => `f${String((i * 7919) % count).padStart(6, "0")}`;
  for (let i = 0; i < count; i++) {
    ok(shell.create(`/big/${name(i)}`));
    if (i % 5000 === 0) await new Promise((resolve) => setImmediate(resolve));
    if (i === count / 2) await harness.namespace.flush();
  }
  for (let i = 0; i < 1000; i++) ok(shell.remove(`/big/${name(i)}`));
  const { inodeId } = harness.namespace.stat(at("/big"));
  const seen: string[] = [];
  for (;;) {
    const last = seen[seen.length - 1];
    const page = harness.namespace.listNames(inodeId, {
      limit: 1000,
      ...(last === undefined ? {} : { afterName: last }),
    });
    seen.push(...page.map((row) => row.name));
    if (page.length < 1000) break;
  }
  const gone = new Set(Array.from({ length: 1000 }, (_, i) => name(i)));
  const expected = Array.from({ length: count }, (_, i) => `f${String(i).padStart(6, "0")}`).filter(
    (n) => !gone.has(n),
  );
  assert.deepEqual(seen, expected);
  assert.equal(harness.namespace.stat(at("/big")).childCount, count - 1000);
});

claim("walk sees everything once, parents first", (shell, { namespace }) => {
  const paths = ["/w", "/w/a", "/w/a/1", "/w/a/2", "/w/b", "/w/c", "/w/c/d", "/w/c/d/3"];
  for (const path of ["/w/a/1", "/w/a/2", "/w/b", "/w/c/d/3"]) ok(shell.create(path, { recursive: true }));
  for (const limit of [1, 2, 3, 100]) {
    const seen = [...namespace.walk(at("/w"), limit)].flat().map((row) => row.path);
    assert.deepEqual(seen, paths.slice(1), `pages of ${limit}`);
  }
});

claim("a pinned directory pins what is and what comes below it", (shell, harness) => {
  const pinned = (path: string): boolean => harness.namespace.stat(at(path)).pinned;
  ok(shell.create("/m/a/f", { recursive: true }));
  ok(harness.run("pin", { path: at("/m"), pinned: true }));
  ok(shell.create("/m/a/g"));
  assert.deepEqual([pinned("/m"), pinned("/m/a/f"), pinned("/m/a/g")], [true, true, true]);
  assert.equal(code(harness.run("pin", { path: at("/m/a/f"), pinned: false })), "invalid");
  ok(shell.mkdir("/out"));
  ok(shell.rename("/m/a", "/out/a"));
  assert.equal(pinned("/out/a/f"), false);
  ok(harness.run("pin", { path: at("/m"), pinned: false }));
  assert.equal(pinned("/m"), false);
});

claim("replicas are handed down, and the nearest target counts", (shell, harness) => {
  const replicas = (path: string): unknown => harness.namespace.stat(at(path)).replicas;
  ok(shell.create("/m/a/f", { recursive: true }));
  ok(harness.run("replicas", { path: at("/m"), min: 1, max: 3 }));
  assert.deepEqual(replicas("/m/a/f"), { min: 1, max: 3 });
  ok(harness.run("replicas", { path: at("/m/a"), min: 2, max: 2 }));
  assert.deepEqual(replicas("/m/a/f"), { min: 2, max: 2 });
  ok(harness.run("replicas", { path: at("/m/a"), min: 0, max: 0 }));
  assert.deepEqual(replicas("/m/a/f"), { min: 1, max: 3 });
  assert.equal(code(harness.run("replicas", { path: at("/m"), min: 3, max: 1 })), "invalid");
});

claim("a TTL acts only when its time has come, in slices, on what is still there", (shell, harness) => {
  for (let i = 0; i < 10; i++) ok(shell.create(`/t/f${i}`, { recursive: true }));
  for (let i = 0; i < 10; i++)
    ok(harness.run("ttl", { path: at(`/t/f${i}`), ttlMs: 1000, action: i < 5 ? "free" : "delete" }));
  ok(harness.run("ttl", { path: at("/t/f0"), ttlMs: null, action: "free" }));
  ok(shell.remove("/t/f1"));
  assert.equal(harness.namespace.dueTtl(100, harness.nowMs), 0);
  assert.deepEqual(ok(harness.run("expire-ttl", { limit: 100 })).removed, []);
  harness.nowMs += 2000;
  assert.equal(harness.namespace.dueTtl(100, harness.nowMs), 8);
  const first = ok(harness.run("expire-ttl", { limit: 4 }));
  assert.equal(first.more, true);
  const second = ok(harness.run("expire-ttl", { limit: 100 }));
  assert.equal(second.more, false);
  const names = [...first.free, ...second.free].map((touched) => touched.path).sort();
  assert.deepEqual(names, ["/t/f2", "/t/f3", "/t/f4"]);
  assert.equal(first.removed.length + second.removed.length, 5);
  assert.deepEqual(shell.names("/t"), ["f0", "f2", "f3", "f4"]);
  assert.equal(harness.namespace.stat(at("/t/f2")).ttl, undefined);
  assert.equal(code(harness.run("ttl", { path: at("/"), ttlMs: 1, action: "delete" })), "invalid");
});

claim("the state's clock never runs backwards", (shell, harness) => {
  ok(shell.create("/a"));
  const before = harness.namespace.nowMs;
  harness.submit({
    kind: "create",
    timeMs: 5,
    path: at("/b"),
    exclusive: true,
    recursive: false,
    forWriting: false,
    attributes: {},
    mode: 0,
    owner: "",
    group: "",
  });
  assert.equal(harness.namespace.nowMs, before);
  assert.equal(harness.namespace.stat(at("/b")).createdMs, before);
});

claim("jobs, settings and the feature level are kept as given", (_shell, harness) => {
  const { namespace } = harness;
  const { jobId } = ok(harness.run("put-job", { document: '{"a":1}' }));
  ok(harness.run("put-job", { jobId, document: '{"a":2}' }));
  ok(harness.run("job-progress", { jobId, progress: '{"done":5}' }));
  assert.deepEqual(namespace.documents.jobs(10), [{ jobId, document: '{"a":2}', progress: '{"done":5}' }]);
  assert.equal(code(harness.run("put-job", { jobId: 99 as typeof jobId, document: "{}" })), "not-found");
  ok(harness.run("remove-job", { jobId }));
  assert.equal(code(harness.run("job-progress", { jobId, progress: "{}" })), "not-found");
  ok(harness.run("set-setting", { key: "policy/a", value: "1" }));
  ok(harness.run("set-setting", { key: "policy/b", value: "2" }));
  ok(harness.run("set-setting", { key: "other", value: "3" }));
  assert.deepEqual(namespace.documents.settings("policy/", 10), [
    { key: "policy/a", value: "1" },
    { key: "policy/b", value: "2" },
  ]);
  ok(harness.run("set-setting", { key: "policy/a", value: null }));
  assert.equal(namespace.documents.setting("policy/a"), undefined);
  assert.equal(code(harness.run("set-feature-level", { level: 65_536 })), "invalid");
  assert.equal(ok(harness.run("set-feature-level", { level: 1 })).level, 1);
});

claim("the last eight revisions of a directory answer for file versions that are gone", (shell, harness) => {
  const { namespace } = harness;
  ok(shell.mount("/m"));
  const mountId = namespace.mounts()[0]?.id as MountId;
  const directoryInodeId = namespace.stat(at("/m")).inodeId;
  const commit = (n: number): string => n.toString(16).padStart(40, "0");
  for (let n = 1; n <= 10; n++) {
    const row = { name: "f", kind: "file" as const, sizeBytes: n, etag: `e${n}`, modifiedMs: n };
    ok(harness.run("sync-rows", { mountId, directoryInodeId, listingBeganVersion: namespace.version, rows: [row] }));
    const { inodeId, contentVersion } = namespace.stat(at("/m/f"));
    const file = { path: "f", inodeId, contentVersion, sizeBytes: n, mountId, key: "f", etag: `e${n}`, modifiedMs: n };
    ok(harness.run("record-revision", { directoryInodeId, commit: commit(n), files: [file], metadata: "{}" }));
  }
  const { inodeId } = namespace.stat(at("/m/f"));
  assert.deepEqual(
    namespace.documents.revisions(directoryInodeId).map((revision) => revision.commit),
    [3, 4, 5, 6, 7, 8, 9, 10].map(commit),
  );
  assert.equal(namespace.describe(`${inodeId}-5` as FileVersionId).etag, "e5");
  assert.equal(namespace.describe(`${inodeId}-10` as FileVersionId).etag, "e10");
  assert.throws(() => namespace.describe(`${inodeId}-2` as FileVersionId), { code: "not-found" });
  assert.throws(() => namespace.describe("junk" as FileVersionId), { code: "invalid" });
  assert.equal(
    code(harness.run("record-revision", { directoryInodeId, commit: "main", files: [], metadata: "" })),
    "invalid",
  );
  assert.equal(
    code(
      harness.run("record-revision", { directoryInodeId: 999 as InodeId, commit: commit(1), files: [], metadata: "" }),
    ),
    "not-found",
  );
});
