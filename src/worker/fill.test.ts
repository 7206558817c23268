import assert from "node:assert/strict";
import { test } from "node:test";
import type { BlockIndex } from "../base/ids.ts";
import type { CachedFile } from "./cached-file.ts";
import { Fill } from "./fill.ts";

const file = { blockLength: () => 10 } as unknown as CachedFile;

test("who is behind the bytes of an attempt that failed waits for those of the next one, and does not spin", async () => {
  const fill = new Fill({ file, block: 0 as BlockIndex, urgency: 0 });
  fill.begin(new Uint8Array(10));
  fill.append(Uint8Array.of(1, 2, 3, 4, 5, 6));
  fill.detach();
  assert.equal(fill.copyTo(new Uint8Array(4), 2), undefined);
  let isWoken = false;
  const more = fill.progress(2).then(() => (isWoken = true));
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(isWoken, false, "there is nothing to read, and nobody waits for it");
  fill.begin(new Uint8Array(10));
  fill.append(Uint8Array.of(1, 2));
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(isWoken, false);
  fill.append(Uint8Array.of(3));
  await more;
  const target = new Uint8Array(4);
  assert.equal(fill.copyTo(target, 2), 1);
  assert.equal(target[0], 3);
});
