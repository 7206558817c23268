import assert from "node:assert/strict";
import { test } from "node:test";
import type { FileDescriptor } from "../base/file.ts";
import type { BlockIndex, FileVersionId, InodeId, MountId } from "../base/ids.ts";
import type { Path } from "../base/path.ts";
import { Random } from "../base/random.ts";
import { checksumOf, decodeIndex, emptyIndexState, IndexEncoder, type IndexState } from "./block-index.ts";

const seed = Number(process.env["SEED"] ?? 7);

function descriptor(blocks: number): FileDescriptor {
  return {
    id: "7-2" as FileVersionId,
    inodeId: 7 as InodeId,
    contentVersion: 2,
    path: "/m/weights" as Path,
    sizeBytes: blocks * 4096 - 5,
    blockSizeBytes: 4096,
    mountId: 1 as MountId,
    key: "weights",
    etag: '"e"',
    modifiedMs: 5,
    pinned: false,
  };
}

/** An index as a life leaves it: a whole start, then records. */
function sampleIndex(random: Random): { readonly bytes: Buffer; readonly checksums: Uint8Array } {
  const state = emptyIndexState(descriptor(20));
  const checksums = random.bytes(20 * 8);
  for (const block of [1, 4] as BlockIndex[]) {
    state.durable.add(block);
    checksumOf(state, block).set(checksums.subarray(block * 8, block * 8 + 8));
  }
  const encoder = new IndexEncoder();
  const parts: Uint8Array[] = [encoder.whole(state)];
  for (let block = 5 as BlockIndex; block < 20; block++) {
    const blockSums = checksums.subarray(block * 8, block * 8 + 8);
    parts.push(encoder.record({ kind: "blocks", blocks: [block], checksums: blockSums }));
    if (block === 9) parts.push(encoder.record({ kind: "pinned", pinned: true }));
  }
  return { bytes: Buffer.concat(parts), checksums };
}

function assertNothingInvented(state: IndexState | undefined, checksums: Uint8Array, what: string): void {
  if (state === undefined) return;
  assert.equal(state.descriptor.id, "7-2", what);
  for (let block = 0 as BlockIndex; block < state.durable.length; block++) {
    if (!state.durable.has(block)) continue;
    assert.ok(block === 1 || block >= 4, `${what}: block ${block} was never durable`);
    assert.deepEqual(checksumOf(state, block), checksums.subarray(block * 8, block * 8 + 8), what);
  }
}

test("what was written is read back", () => {
  const { bytes, checksums } = sampleIndex(new Random(seed));
  const { state, validBytes, finding } = decodeIndex(bytes);
  assert.equal(finding, undefined);
  assert.equal(validBytes, bytes.length);
  assert.equal(state?.durable.count, 17);
  assert.equal(state?.pinned, true);
  assertNothingInvented(state, checksums, "unharmed");
});

test(`a flipped bit anywhere is noticed, and no block is trusted that it could have touched (seed ${seed})`, () => {
  const random = new Random(seed);
  const { bytes, checksums } = sampleIndex(random);
  for (let position = 0; position < bytes.length; position++) {
    const harmed = Buffer.from(bytes);
    harmed[position] = (harmed[position] as number) ^ (1 << random.between(0, 7));
    const { state, validBytes, finding } = decodeIndex(harmed);
    assert.notEqual(finding, undefined, `byte ${position}`);
    assert.ok(validBytes <= position, `byte ${position} lies in what is called valid (${validBytes})`);
    assertNothingInvented(state, checksums, `byte ${position}`);
  }
});

test("an index cut at any length trusts only whole records", () => {
  const { bytes, checksums } = sampleIndex(new Random(seed));
  for (let length = 0; length < bytes.length; length++) {
    const { state, validBytes } = decodeIndex(bytes.subarray(0, length));
    assert.ok(validBytes <= length);
    assertNothingInvented(state, checksums, `length ${length}`);
  }
});

test("a record that moved, or came from another index, ends what is trusted", () => {
  const encoder = new IndexEncoder();
  const whole = encoder.whole(emptyIndexState(descriptor(20)));
  const sums = new Uint8Array(8);
  const first = encoder.record({ kind: "blocks", blocks: [1 as BlockIndex], checksums: sums });
  const second = encoder.record({ kind: "blocks", blocks: [2 as BlockIndex], checksums: sums });
  assert.equal(decodeIndex(Buffer.concat([whole, first, second])).state?.durable.count, 2);
  const swapped = decodeIndex(Buffer.concat([whole, second, first]));
  assert.equal(swapped.state?.durable.count, 0);
  assert.match(swapped.finding ?? "", /fails its checksum/);
  const foreign = new IndexEncoder();
  foreign.whole(emptyIndexState({ ...descriptor(20), id: "8-1" as FileVersionId }));
  const alien = foreign.record({ kind: "blocks", blocks: [3 as BlockIndex], checksums: sums });
  assert.equal(decodeIndex(Buffer.concat([whole, first, alien])).state?.durable.count, 1);
});
