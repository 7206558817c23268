/** examples/shaped-load.ts runs as it is, on shaped links, and says what it should. Takes a minute or more. */

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { whyNoNamespaces } from "../testing/network-namespaces.ts";

const examples = fileURLToPath(new URL("../../examples", import.meta.url));

test("a load on links of 10 MB/s is planned, watched, and whole everywhere; a drained worker loses nothing", {
  timeout: 240_000,
  skip: whyNoNamespaces(),
}, async () => {
  const { stdout: output } = await promisify(execFile)(process.execPath, [join(examples, "shaped-load.ts")], {
    env: { ...process.env, NO_COLOR: "1" },
  });
  assert.match(output, /bound +6\.7 s \(configured\)/);
  assert.match(output, /job +1 succeeded/);
  assert.match(output, /the origin sent [0-9.]+ times the model; 6 copies, all with its SHA-256/);
  assert.match(output, /n6 is drained: nothing is lost when it is stopped/);
  assert.equal(output.match(/n[1-6] +READY +64 MiB/g)?.length, 6, output);
});
