import assert from "node:assert/strict";
import { test } from "node:test";
import { silentLogger } from "../io/logger.ts";
import { Metrics } from "../io/metrics.ts";
import { NodeClock } from "../io/node-clock.ts";
import { NodeDisk } from "../io/node-disk.ts";
import { type HttpTraits, ScriptedHttpServer } from "../testing/scripted-http-server.ts";
import {
  bytesOf,
  fileAt,
  holdsUnderStoreContract,
  listAll,
  readBytes,
  rejectsWith,
} from "../testing/under-store-contract.ts";
import { parseIndex } from "./http-index.ts";
import { openUnderStore, type UnderStoreOptions } from "./open.ts";
import { entryOrderKey, type UnderStore } from "./under-store.ts";

function openHttp(uri: string, options: UnderStoreOptions = {}): Promise<UnderStore> {
  const clock = new NodeClock();
  const common = { disk: new NodeDisk(), clock, logger: silentLogger, metrics: new Metrics(), environment: {} };
  return openUnderStore(uri, options, common);
}

const servers: readonly [name: string, traits: Partial<HttpTraits>][] = [
  ["http", {}],
  ["http with a listing in JSON", { index: "json" }],
  ["http without HEAD", { head: false }],
  ["http with weak etags", { etags: "weak" }],
  ["http with times only", { etags: "none" }],
  ["http without ranges", { ranges: false, etags: "none" }],
];

for (const [name, traits] of servers) {
  holdsUnderStoreContract({
    name,
    writable: false,
    open: async () => {
      const server = await ScriptedHttpServer.start(traits);
      const store = await openHttp(server.origin);
      const seed = async (key: string, bytes: Uint8Array): Promise<void> => server.put(`/${key}`, bytes);
      const close = async (): Promise<void> => {
        await store.close();
        await server.close();
      };
      return { store, seed, close };
    },
  });
}

async function withServer(
  body: (server: ScriptedHttpServer, store: UnderStore) => Promise<void>,
  { traits = {}, options = {} }: { readonly traits?: Partial<HttpTraits>; readonly options?: UnderStoreOptions } = {},
): Promise<void> {
  const server = await ScriptedHttpServer.start(traits);
  const store = await openHttp(`${server.origin}/m/`, options);
  try {
    await body(server, store);
  } finally {
    await store.close();
    await server.close();
  }
}

test("http: a server that ignores ranges is used for small files and refused for large ones", async () => {
  await withServer(
    async (server, store) => {
      server.put("/m/large", new Uint8Array(17 * 1024 * 1024));
      const { etag } = await fileAt(store, "large");
      const error = await rejectsWith("unsupported", readBytes(store, "large", { position: 0, length: 10, etag }));
      assert.match(error.message, /ignores ranges/);
    },
    { traits: { ranges: false } },
  );
});

test("http: a directory that cannot be listed says what to do", async () => {
  await withServer(
    async (server, store) => {
      server.put("/m/f", bytesOf("x"));
      assert.match((await rejectsWith("unsupported", store.list(""))).message, /switch on listings/);
      assert.equal((await fileAt(store, "f")).sizeBytes, 1);
    },
    { traits: { index: "none" } },
  );
});

test("http: credentials go to the server of the mount, and to no other that it redirects to", async () => {
  const elsewhere = await ScriptedHttpServer.start();
  elsewhere.put("/blob", bytesOf("moved"));
  const options = { authorization: "Bearer hidden-token" };
  await withServer(
    async (server, store) => {
      const redirect = { kind: "status", status: 302, headers: { location: `${elsewhere.origin}/blob` } } as const;
      server.inject(redirect, { method: "HEAD" });
      server.inject(redirect);
      const { etag } = await fileAt(store, "f");
      assert.equal(String(await readBytes(store, "f", { position: 0, length: 5, etag })), "moved");
      assert.deepEqual(
        new Set(server.requests.map(({ headers }) => headers.authorization)),
        new Set(["Bearer hidden-token"]),
      );
      assert.deepEqual(new Set(elsewhere.requests.map(({ headers }) => headers.authorization)), new Set([undefined]));
      assert.doesNotMatch(store.uri, /hidden/);
    },
    { options },
  );
  await elsewhere.close();
});

test("http: too many redirects end in an error", async () => {
  await withServer(async (server, store) => {
    server.inject({ kind: "status", status: 302, headers: { location: "/m/g" } }, { method: "HEAD", times: 100 });
    await rejectsWith("under-store", store.head("f"));
    assert.ok(server.requests.length <= 6, `${server.requests.length} requests`);
  });
});

test("http: denied, missing and throttled are told apart", async () => {
  await withServer(async (server, store) => {
    server.put("/m/f", bytesOf("x"));
    server.inject({ kind: "status", status: 401 }, { method: "HEAD" });
    server.inject({ kind: "status", status: 401 });
    await rejectsWith("denied", store.head("f"));
    server.inject({ kind: "status", status: 429, headers: { "retry-after": "0" } }, { method: "HEAD", times: 2 });
    assert.equal((await fileAt(store, "f")).sizeBytes, 1);
    server.inject({ kind: "status", status: 503, headers: { "retry-after": "3600" } }, { method: "HEAD" });
    assert.equal((await rejectsWith("overloaded", store.head("f"))).details?.["retryAfterMs"], 3_600_000);
  });
});

test("http: a body that is encoded unasked is refused", async () => {
  await withServer(async (server, store) => {
    server.put("/m/f", bytesOf("0123456789"));
    const { etag } = await fileAt(store, "f");
    server.inject({ kind: "headers", headers: { "content-encoding": "gzip" } });
    await rejectsWith("unsupported", readBytes(store, "f", { position: 0, length: 10, etag }));
  });
});

test("http: links that lead up, away, or sort are no entries, and hostile ones do no harm", () => {
  const html = `
    <a href="?C=N;O=D">Name</a><a href="/up/">up</a><a href="../">..</a><a href="http://other.example/x">x</a>
    <a href='single.bin'>s</a><a href=bare.bin>b</a><a class="c" href="&#x61;&amp;b">e</a><a href="dir/">d</a>
    <a href="/base/absolute">a</a><a href="/base/deep/er">no</a><a href="%2e%2e%2fescape">e</a><a href="%ff">bad</a>
    <a href="dir/">again</a><a href="#top">t</a><a href="javascript:alert(1)">j</a><a href="">e</a>`;
  const names = parseIndex("http://h/base/", "text/html", html).map(
    ({ kind, name }) => `${kind} ${JSON.stringify(name)}`,
  );
  assert.deepEqual(names, [
    'file "single.bin"',
    'file "bare.bin"',
    'file "a&b"',
    'directory "dir"',
    'file "absolute"',
    'file "../escape"',
    'file "\\u0000%ff"',
  ]);
});

test("http: hostile names in a listing are skipped and counted", async () => {
  await withServer(async (server, store) => {
    server.put("/m/good", bytesOf("x"));
    const body = '<a href="good">g</a><a href="%2e%2e%2fescape">e</a><a href="%00">n</a><a href="%ff">b</a>';
    server.inject({ kind: "status", status: 200, headers: { "content-type": "text/html" }, body });
    const page = await store.list("");
    assert.deepEqual(page.entries.map(entryOrderKey), ["good"]);
    assert.equal(page.skipped, 3);
    assert.deepEqual((await listAll(store, "", 5)).map(entryOrderKey), ["good"]);
  });
});
