import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import http from "node:http";
import { after, before, test } from "node:test";
import { HeadpondError } from "../base/errors.ts";
import { MiB } from "../base/units.ts";
import { type FakeGateways, startFakeGateways } from "../testing/fake-gateways.ts";

let world: FakeGateways;
const weights = randomBytes(5 * MiB + 7);
const sha256 = createHash("sha256").update(weights).digest("hex");

before(async () => {
  world = await startFakeGateways({ hubLimits: { metadataTimeoutMs: 1500, firstBytesMs: 1000, pageEntriesMax: 100 } });
  const { cluster } = world;
  cluster.put("/models/acme/tiny/config.json", '{"a":1}');
  cluster.put("/models/acme/tiny/model.safetensors", weights, { sha256: true });
  cluster.put("/models/acme/tiny/onnx/ort config.json", "{}");
  cluster.put("/models/acme/tiny/empty", "");
  cluster.put("/models/bare/config.json", "{}");
  cluster.put("/datasets/acme/data/train.csv", "a,b\n");
  for (let number = 0; number < 250; number++) cluster.put(`/models/acme/many/d/f${1000 + number}`, "x");
});
after(() => world.close());

type Answer = { readonly status: number; readonly headers: http.IncomingHttpHeaders; readonly body: Buffer };

function send(method: string, target: string, headers: http.OutgoingHttpHeaders = {}, body?: string): Promise<Answer> {
  const { hostname, port } = new URL(world.hub);
  return new Promise((resolve, reject) => {
    const request = http.request({ hostname, port, method, path: target, headers }, (response) => {
      const chunks: Buffer[] = [];
      response.on("data", (chunk: Buffer) => chunks.push(chunk));
      response.on("error", reject);
      response.on("end", () => {
        const answer = { status: response.statusCode ?? 0, headers: response.headers, body: Buffer.concat(chunks) };
        assertNoXet(answer);
        resolve(answer);
      });
    });
    request.on("error", reject);
    request.end(body);
  });
}

function assertNoXet({ headers, body }: Answer): void {
  assert.doesNotMatch(JSON.stringify(headers), /xet/i);
  if (String(headers["content-type"]).includes("json")) assert.doesNotMatch(String(body), /xet/i);
}

/** What the tests look at in the Hub's documents. */
type Document = {
  readonly id: string;
  readonly sha: string;
  readonly type: string;
  readonly error: string;
  readonly siblings: readonly {
    readonly rfilename: string;
    readonly size: number;
    readonly blobId: string;
    readonly lfs: { readonly sha256: string };
  }[];
  readonly branches: unknown;
};

type Entry = {
  readonly id: string;
  readonly type: string;
  readonly path: string;
  readonly oid: string;
  readonly size: number;
  readonly lfs?: unknown;
  readonly lastCommit?: { readonly id: string };
};

function parse(answer: Answer): Document {
  return JSON.parse(String(answer.body)) as Document;
}

function entries(answer: Answer): readonly Entry[] {
  return JSON.parse(String(answer.body)) as Entry[];
}

async function head(repository: string): Promise<string> {
  return parse(await send("GET", `/api/models/${repository}`)).sha;
}

test("the first question of every run of hf is answered so that it is not asked again for a day", async () => {
  const answer = await send("GET", "/api/agent-harnesses");
  assert.deepEqual(parse(answer), { standardEnvVars: [], harnesses: {} });
});

test("whoami knows whoever shows a token, and nobody else", async () => {
  assert.equal((await send("GET", "/api/whoami-v2")).status, 401);
  const answer = await send("GET", "/api/whoami-v2", { authorization: "Bearer hf_x" });
  assert.equal(parse(answer).type, "user");
});

test("a repository is told with its commit and all its files", async () => {
  for (const suffix of [
    "",
    "/revision/main",
    "/revision/HEAD",
    "?blobs=true",
    "/revision/main?expand=sha&expand=siblings",
  ]) {
    const answer = await send("GET", `/api/models/acme/tiny${suffix}`);
    assert.equal(answer.status, 200);
    const info = parse(answer);
    assert.equal(info.id, "acme/tiny");
    assert.match(info.sha, /^[0-9a-f]{40}$/);
    const names = info.siblings.map((sibling) => sibling.rfilename);
    assert.deepEqual(names, ["config.json", "empty", "model.safetensors", "onnx/ort config.json"]);
  }
  const sha = await head("acme/tiny");
  assert.equal(parse(await send("GET", `/api/models/acme/tiny/revision/${sha}`)).sha, sha);
});

test("blobs=true adds sizes and digests", async () => {
  const { siblings } = parse(await send("GET", "/api/models/acme/tiny?blobs=true"));
  const file = siblings.find((sibling) => sibling.rfilename === "model.safetensors");
  assert.equal(file?.size, weights.length);
  assert.equal(file.lfs.sha256, sha256);
  assert.match(file.blobId, /^[0-9a-f]{40}$/);
});

test("a tree has type, path, size and oid of every entry, and lfs where the digest is known", async () => {
  const flat = entries(await send("GET", "/api/models/acme/tiny/tree/main"));
  assert.deepEqual(
    flat.map(({ type, path }) => `${type} ${path}`),
    ["file config.json", "file empty", "file model.safetensors", "directory onnx"],
  );
  const sha = await head("acme/tiny");
  const deep = entries(await send("GET", `/api/models/acme/tiny/tree/${sha}?recursive=true&expand=false`));
  assert.equal(deep.length, 5);
  for (const entry of deep) {
    assert.match(entry.oid, /^[0-9a-f]{40}$/);
    assert.equal(typeof entry.size, "number");
  }
  assert.deepEqual(deep[2]?.lfs, { oid: sha256, size: weights.length, pointerSize: 132 });
  assert.equal(deep[0]?.lfs, undefined);
  assert.equal(entries(await send("GET", "/api/models/acme/tiny/tree/main/onnx"))[0]?.path, "onnx/ort config.json");
  const expanded = entries(await send("GET", "/api/models/acme/tiny/tree/main?expand=true"));
  assert.equal(expanded[0]?.lastCommit?.id, sha);
});

test("a large tree comes in pages that name the next one", async () => {
  const paths: string[] = [];
  let target = "/api/models/acme/many/tree/main?recursive=true&expand=false";
  for (let page = 0; page < 5; page++) {
    const answer = await send("GET", target);
    paths.push(...entries(answer).map((entry) => entry.path));
    const link = /^<(http:\/\/[^>]+)>; rel="next"$/.exec(String(answer.headers["link"] ?? ""))?.[1];
    if (link === undefined) break;
    const url = new URL(link);
    assert.equal(url.origin, world.hub);
    target = `${url.pathname}${url.search}`;
  }
  assert.equal(paths.length, 251);
  assert.equal(new Set(paths).size, 251);
});

test("paths-info takes a form and JSON, and leaves out what does not exist", async () => {
  const form = { "content-type": "application/x-www-form-urlencoded" };
  const body = "paths=config.json&paths=onnx&paths=nope&expand=False";
  const answers = [
    await send("POST", "/api/models/acme/tiny/paths-info/main", form, body),
    await send(
      "POST",
      "/api/models/acme/tiny/paths-info/main",
      { "content-type": "application/json" },
      JSON.stringify({ paths: ["config.json", "onnx", "nope"], expand: false }),
    ),
  ];
  for (const answer of answers) {
    assert.equal(answer.status, 200);
    const types = entries(answer).map(({ type, path }) => `${type} ${path}`);
    assert.deepEqual(types, ["file config.json", "directory onnx"]);
  }
});

test("refs, datasets, bare names and listings are served", async () => {
  const sha = await head("acme/tiny");
  const refs = parse(await send("GET", "/api/models/acme/tiny/refs"));
  assert.deepEqual(refs.branches, [{ name: "main", ref: "refs/heads/main", targetCommit: sha }]);
  assert.equal(parse(await send("GET", "/api/datasets/acme/data/revision/main")).id, "acme/data");
  assert.equal(String((await send("GET", "/datasets/acme/data/resolve/main/train.csv")).body), "a,b\n");
  assert.equal(parse(await send("GET", "/api/models/bare")).id, "bare");
  assert.equal(String((await send("GET", "/bare/resolve/main/config.json")).body), "{}");
  const first = await send("GET", "/api/models?limit=2");
  assert.deepEqual(
    entries(first).map(({ id }) => id),
    ["acme/many", "acme/tiny"],
  );
  const next = new URL(/<([^>]+)>/.exec(String(first.headers["link"]))?.[1] as string);
  const rest = entries(await send("GET", `${next.pathname}${next.search}`));
  assert.deepEqual(
    rest.map(({ id }) => id),
    ["bare"],
  );
  assert.equal(entries(await send("GET", "/api/spaces")).length, 0);
});

test("HEAD and GET of a file carry commit, etag and size", async () => {
  const sha = await head("acme/tiny");
  for (const route of [`resolve/${sha}`, "resolve/main", "raw/main"]) {
    const target = `/acme/tiny/${route}/model.safetensors`;
    const told = await send("HEAD", target, { "accept-encoding": "identity" });
    assert.equal(told.status, 200);
    assert.equal(told.headers["x-repo-commit"], sha);
    assert.equal(told.headers.etag, `"${sha256}"`);
    assert.equal(told.headers["x-linked-etag"], `"${sha256}"`);
    assert.equal(told.headers["x-linked-size"], String(weights.length));
    assert.equal(told.headers["content-length"], String(weights.length));
    assert.equal(told.body.length, 0);
    const got = await send("GET", target, { "accept-encoding": "gzip, deflate" });
    assert.equal(got.status, 200);
    assert.equal(got.headers["content-encoding"], undefined);
    assert.equal(got.headers.etag, told.headers.etag);
    assert.deepEqual(got.body, weights);
  }
  const small = await send("HEAD", "/acme/tiny/resolve/main/config.json");
  assert.match(String(small.headers.etag), /^"[0-9a-f]{40}"$/);
  assert.equal(small.headers["x-linked-etag"], undefined);
});

test("a resumed GET gets its range, and everything when the etag is another", async () => {
  const target = "/acme/tiny/resolve/main/model.safetensors";
  const part = await send("GET", target, { range: "bytes=4194304-", "if-range": `"${sha256}"` });
  assert.equal(part.status, 206);
  assert.equal(part.headers["content-range"], `bytes 4194304-${weights.length - 1}/${weights.length}`);
  assert.deepEqual(part.body, weights.subarray(4194304));
  assert.equal((await send("GET", target, { range: "bytes=9-", "if-range": '"other"' })).body.length, weights.length);
  assert.equal((await send("GET", target, { range: `bytes=${weights.length}-` })).status, 416);
  assert.equal((await send("GET", target, { "if-none-match": `"${sha256}"` })).status, 304);
});

test("an empty file asked for its first byte tells its size", async () => {
  const { status, headers, body } = await send("GET", "/acme/tiny/resolve/main/empty", { range: "bytes=0-0" });
  assert.equal(status, 200);
  assert.equal(headers["content-range"], "bytes */0");
  assert.equal(body.length, 0);
});

test("a file of more than 50 GB does not tell its size to HEAD, but does to GET", async () => {
  world.cluster.putSized("/models/acme/huge/model.bin", 60_000_000_000);
  const { status, headers } = await send("HEAD", "/acme/huge/resolve/main/model.bin");
  assert.equal(status, 200);
  assert.equal(headers["content-length"], undefined);
  assert.equal(headers["x-linked-size"], undefined);
  assert.match(String(headers.etag), /^"[0-9a-f]{40}"$/);
  assert.equal(entries(await send("GET", "/api/models/acme/huge/tree/main"))[0]?.size, 60_000_000_000);
});

test("what is missing is named by X-Error-Code, and a missing entry carries its commit", async () => {
  const code = (answer: Answer): unknown[] => [answer.status, answer.headers["x-error-code"]];
  for (const target of [
    "/api/models/acme",
    "/api/models/no/such",
    "/api/models/no/such/tree/main",
    "/no/such/resolve/main/x",
    "/api/models/no%00e/x",
  ]) {
    assert.deepEqual(code(await send("GET", target)), [404, "RepoNotFound"], target);
  }
  for (const revision of ["nope", "f".repeat(40), "refs%2Fpr%2F1", "refs/pr/1"]) {
    assert.deepEqual(code(await send("GET", `/api/models/acme/tiny/revision/${revision}`)), [404, "RevisionNotFound"]);
    assert.deepEqual(code(await send("HEAD", `/acme/tiny/resolve/${revision}/x`)), [404, "RevisionNotFound"]);
  }
  const sha = await head("acme/tiny");
  for (const target of [
    "/acme/tiny/resolve/main/tokenizer.model",
    `/acme/tiny/resolve/${sha}/onnx`,
    "/api/models/acme/tiny/tree/main/additional_chat_templates?recursive=false",
  ]) {
    const answer = await send("GET", target);
    assert.deepEqual(code(answer), [404, "EntryNotFound"], target);
    assert.equal(answer.headers["x-repo-commit"], sha);
    assert.ok(String(answer.headers["x-error-message"]).length > 0);
    assert.ok(parse(answer).error.length > 0);
  }
});

test("entries that do not exist at a commit are denied without asking the masters again", async () => {
  const sha = await head("acme/tiny");
  await send("HEAD", `/acme/tiny/resolve/${sha}/nope`);
  const asked = world.cluster.asked.get("revision");
  for (let number = 0; number < 20; number++) await send("HEAD", `/acme/tiny/resolve/${sha}/nope${number}`);
  assert.equal(world.cluster.asked.get("revision"), asked);
});

test("a busy cluster is 429 with Retry-After to whoever wants bytes, never 503", async () => {
  const busy = new HeadpondError("overloaded", "busy", { details: { retryAfterMs: 3000 } });
  const failures = [busy, new HeadpondError("unavailable", "down"), new HeadpondError("under-store", "store is down")];
  for (const refuse of failures) {
    for (const worker of world.cluster.workers) worker.faults.refuse = refuse;
    const answer = await send("GET", "/acme/tiny/resolve/main/config.json");
    assert.equal(answer.status, 429);
    assert.ok(Number(answer.headers["retry-after"]) >= 1);
  }
  for (const worker of world.cluster.workers) worker.faults.refuse = undefined;
  assert.equal((await send("GET", "/acme/tiny/resolve/main/config.json")).status, 200);
});

test("bytes that do not begin in time are 429, so that the client comes back", async () => {
  for (const worker of world.cluster.workers) worker.faults.delayMs = 5000;
  const answer = await send("GET", "/acme/tiny/resolve/main/config.json");
  assert.equal(answer.status, 429);
  for (const worker of world.cluster.workers) worker.faults.delayMs = 0;
});

test("an older commit answers its own bytes while somebody holds them, then says that it is gone", async () => {
  const { cluster } = world;
  const old = cluster.put("/models/acme/moving/x.bin", "old bytes");
  cluster.put("/models/acme/moving/y.bin", "stays");
  const before = await head("acme/moving");
  const oldTag = (await send("HEAD", `/acme/moving/resolve/${before}/x.bin`)).headers.etag;
  cluster.put("/models/acme/moving/x.bin", "new bytes!");
  const now = await head("acme/moving");
  assert.notEqual(now, before);
  assert.equal(String((await send("GET", "/acme/moving/resolve/main/x.bin")).body), "new bytes!");
  const held = await send("GET", `/acme/moving/resolve/${before}/x.bin`);
  assert.equal(String(held.body), "old bytes");
  assert.equal(held.headers.etag, oldTag);
  for (const worker of cluster.workers) worker.gone.add(old.descriptor.id);
  for (const method of ["GET", "HEAD"]) {
    const gone = await send(method, `/acme/moving/resolve/${before}/x.bin`);
    assert.equal(gone.status, 404, method);
    assert.equal(gone.headers["x-error-code"], "RevisionNotFound");
  }
  assert.equal(String((await send("GET", `/acme/moving/resolve/${before}/y.bin`)).body), "stays");
});

test("the etag of a version is the same for ever, and another for other bytes", async () => {
  const { cluster } = world;
  cluster.put("/models/acme/tags/x", "1");
  const tag = async (): Promise<unknown> => (await send("HEAD", "/acme/tags/resolve/main/x")).headers.etag;
  const first = await tag();
  cluster.put("/models/acme/tags/other", "2");
  assert.equal(await tag(), first);
  cluster.put("/models/acme/tags/x", "3");
  assert.notEqual(await tag(), first);
});

test("names outside the repository are refused", async () => {
  assert.equal((await send("GET", "/acme/tiny/resolve/main/../../x")).status, 404);
  assert.equal((await send("GET", "/acme/tiny/resolve/main/%2e%2e/x")).status, 404);
  assert.equal((await send("GET", "/api/models/../models/acme")).status, 404);
  assert.equal((await send("GET", "/acme/tiny/resolve/main/%ff")).status, 400);
  assert.equal((await send("GET", "/nothing")).status, 404);
  assert.equal((await send("DELETE", "/acme/tiny/resolve/main/x")).status, 405);
});

test("without a master what was asked before is still served, and the rest fails in time", async () => {
  const sha = await head("acme/tiny");
  await send("HEAD", "/acme/tiny/resolve/main/config.json");
  const port = Number(world.cluster.masters[0]?.split(":")[1]);
  await world.cluster.stopMaster();
  try {
    assert.equal(await head("acme/tiny"), sha);
    assert.equal((await send("HEAD", `/acme/tiny/resolve/${sha}/model.safetensors`)).status, 200);
    const got = await send("GET", "/acme/tiny/resolve/main/model.safetensors");
    assert.deepEqual(got.body, weights);
    const unknown = await send("GET", "/api/models/never/asked/revision/main");
    assert.equal(unknown.status, 503);
    assert.ok(Number(unknown.headers["retry-after"]) >= 1);
    assert.equal((await send("GET", "/never/asked/resolve/main/x")).status, 429);
  } finally {
    await world.cluster.startMaster(port);
  }
});

test("many clients that ask for the same revision at once are answered by few questions, none of them too old", async () => {
  const { cluster } = world;
  cluster.put("/models/acme/crowd/x", "1");
  const asked = cluster.asked.get("revision") ?? 0;
  const first = await Promise.all(Array.from({ length: 100 }, () => head("acme/crowd")));
  assert.equal(new Set(first).size, 1);
  assert.ok((cluster.asked.get("revision") ?? 0) - asked <= 20, `${cluster.asked.get("revision")} questions`);
  // A question that began before a change may not answer one that began after it.
  for (let round = 0; round < 20; round++) {
    const early = head("acme/crowd");
    cluster.put("/models/acme/crowd/x", `round ${round}`);
    const late = await head("acme/crowd");
    await early;
    assert.equal(late, await head("acme/crowd"));
  }
});
