import assert from "node:assert/strict";
import { test } from "node:test";
import { isHeadpondError } from "../base/errors.ts";
import { parseHubRoute } from "./hub-routes.ts";

const tiny = { kind: "model", name: "acme/tiny" } as const;
const bare = { kind: "model", name: "gpt" } as const;
const sha = "0123456789abcdef0123456789abcdef01234567";

const routes: readonly [string, ReturnType<typeof parseHubRoute>][] = [
  ["/api/agent-harnesses", { kind: "agent-harnesses" }],
  ["/api/whoami-v2", { kind: "whoami" }],
  ["/api/models", { kind: "repositories", of: "model" }],
  ["/api/datasets/", { kind: "repositories", of: "dataset" }],
  ["/api/models/acme/tiny", { kind: "info", repository: tiny, revision: "main" }],
  ["/api/models/gpt", { kind: "info", repository: bare, revision: "main" }],
  [`/api/models/acme/tiny/revision/${sha}`, { kind: "info", repository: tiny, revision: sha }],
  ["/api/models/gpt/revision/HEAD", { kind: "info", repository: bare, revision: "HEAD" }],
  ["/api/models/acme/tiny/revision/refs%2Fpr%2F1", { kind: "info", repository: tiny, revision: "refs/pr/1" }],
  ["/api/models/acme/tiny/tree/main", { kind: "tree", repository: tiny, revision: "main", path: "" }],
  ["/api/models/acme/tiny/tree/refs/pr/1/a", { kind: "tree", repository: tiny, revision: "refs/pr/1", path: "a" }],
  ["/api/models/acme/tiny/tree/main/a/b%20c", { kind: "tree", repository: tiny, revision: "main", path: "a/b c" }],
  ["/api/models/acme/tiny/paths-info/main", { kind: "paths-info", repository: tiny, revision: "main" }],
  ["/api/models/acme/tiny/refs", { kind: "refs", repository: tiny }],
  ["/api/models/acme/tiny/xet-read-token/main", { kind: "unknown" }],
  ["/api/models/acme/tiny/revision", { kind: "unknown" }],
  ["/acme/tiny/resolve/main/a/b.bin", { kind: "resolve", repository: tiny, revision: "main", path: "a/b.bin" }],
  ["/acme/tiny/raw/main/x", { kind: "resolve", repository: tiny, revision: "main", path: "x" }],
  ["/gpt/resolve/main/x", { kind: "resolve", repository: bare, revision: "main", path: "x" }],
  [
    "/datasets/a/b/resolve/main/x",
    { kind: "resolve", repository: { kind: "dataset", name: "a/b" }, revision: "main", path: "x" },
  ],
  [
    "/spaces/a/b/resolve/main/x",
    { kind: "resolve", repository: { kind: "space", name: "a/b" }, revision: "main", path: "x" },
  ],
  [
    "/datasets/resolve/main/x",
    { kind: "resolve", repository: { kind: "model", name: "datasets" }, revision: "main", path: "x" },
  ],
  ["/acme/tiny/resolve/main", { kind: "unknown" }],
  ["/acme/tiny", { kind: "unknown" }],
  ["/", { kind: "unknown" }],
  ["/api", { kind: "unknown" }],
  ["/api/constructor/x", { kind: "unknown" }],
];

for (const [path, route] of routes) {
  test(`${path} is ${route.kind}`, () => {
    assert.deepEqual(parseHubRoute(path), route);
  });
}

test("a bad escape is refused", () => {
  assert.throws(
    () => parseHubRoute("/a/b/resolve/main/%zz"),
    (error: unknown) => isHeadpondError(error, "invalid"),
  );
});
