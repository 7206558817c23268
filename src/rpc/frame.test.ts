import assert from "node:assert/strict";
import { test } from "node:test";
import { Random } from "../base/random.ts";
import type { Connection } from "../io/network.ts";
import { FrameParser, frameKinds } from "./frame.ts";
import { Outbox } from "./outbox.ts";

const seed = Number(process.env["SEED"] ?? Date.now() % 2 ** 31);
console.log(`seed ${seed}`);

class FakeConnection implements Connection {
  readonly remote = "test";
  readonly written: Uint8Array[] = [];
  accepts = true;
  /** Nobody takes what was written, unless a test says so. */
  pendingBytes = 1;
  ended = false;
  onData = (): void => {};
  onClose = (): void => {};
  onDrain = (): void => {};
  write(bytes: Uint8Array): boolean {
    this.written.push(bytes);
    return this.accepts;
  }
  pause(): void {}
  resume(): void {}
  end(): void {
    this.ended = true;
  }
  destroy(): void {}
}

type Seen = { kind: number; id: number; payload: string };

function collect(seen: Seen[], stopAfter = Number.POSITIVE_INFINITY): FrameParser {
  return new FrameParser({
    maxFrameBytes: 100_000,
    onFrame: (kind, id, buffer, start, end) => {
      seen.push({ kind, id, payload: buffer.toString("latin1", start, end) });
      return seen.length % stopAfter !== 0;
    },
  });
}

async function randomFrames(random: Random, count: number): Promise<{ bytes: Buffer; sent: Seen[] }> {
  const connection = new FakeConnection();
  const outbox = new Outbox(connection);
  const sent: Seen[] = [];
  for (let i = 0; i < count; i++) {
    const payload = "x".repeat(random.chance(0.05) ? random.between(5_000, 90_000) : random.between(0, 200));
    outbox.beginFrame(frameKinds.item, i);
    outbox.ensure(payload.length);
    outbox.position += outbox.buffer.write(payload, outbox.position);
    outbox.endFrame();
    sent.push({ kind: frameKinds.item, id: i, payload });
    if (random.chance(0.1)) await Promise.resolve();
  }
  outbox.flush();
  return { bytes: Buffer.concat(connection.written), sent };
}

test("frames arrive whole and in order however their bytes are cut", async () => {
  const random = new Random(seed);
  for (let round = 0; round < 30; round++) {
    const { bytes, sent } = await randomFrames(random, 60);
    const seen: Seen[] = [];
    const parser = collect(seen, round % 3 === 0 ? 7 : undefined);
    for (let at = 0; at < bytes.length; ) {
      const next = Math.min(
        bytes.length,
        at + (random.chance(0.3) ? random.between(1, 12) : random.between(1, 20_000)),
      );
      // The chunk is only valid during the call: it is destroyed afterwards.
      const chunk = Buffer.from(bytes.subarray(at, next));
      parser.push(chunk);
      chunk.fill(0xff);
      if (random.chance(0.5)) parser.resume();
      at = next;
    }
    for (let i = 0; i < sent.length; i++) parser.resume();
    assert.deepEqual(seen, sent);
    assert.equal(parser.heldBytes, 0);
  }
});

test("a frame above the limit or too short for its head is refused by its length alone", () => {
  assert.throws(() => collect([]).push(Buffer.from([0x7f, 0, 0, 0])), /larger than the limit of 100000 bytes/);
  assert.throws(() => collect([]).push(Buffer.from([0, 0, 0, 4, 1, 0, 0, 0])), /no room for its head/);
  const parser = collect([]);
  parser.push(Buffer.from([0x7f]));
  assert.throws(() => parser.push(Buffer.from([0, 0, 0])), { code: "invalid" });
});

test("frames of one turn leave in one write, and stay while the connection is full", async () => {
  const connection = new FakeConnection();
  const outbox = new Outbox(connection);
  connection.accepts = false;
  for (let i = 0; i < 10; i++) outbox.emptyFrame(frameKinds.ping, i);
  assert.equal(outbox.handedOverBytes, 0);
  await Promise.resolve();
  assert.equal(connection.written.length, 1);
  assert.equal(outbox.handedOverBytes, 90);
  outbox.emptyFrame(frameKinds.ping, 10);
  await Promise.resolve();
  assert.equal(connection.written.length, 1);
  assert.equal(outbox.queuedBytes, 9 + 1);
  connection.accepts = true;
  let drained = 0;
  outbox.onDrain = () => drained++;
  connection.onDrain();
  assert.equal(drained, 1);
  assert.equal(connection.written.length, 2);
  assert.equal(outbox.queuedBytes, 0 + 1);
});

test("memory is used again once the connection has taken everything, also with frames gathered and one begun", async () => {
  const random = new Random(seed);
  const connection = new FakeConnection();
  const taken: Buffer[] = [];
  connection.write = (bytes) => {
    connection.pendingBytes = random.chance(0.2) ? 1 : 0;
    taken.push(Buffer.from(bytes));
    return true;
  };
  const outbox = new Outbox(connection);
  const buffers = new Set<Buffer>();
  const sent: Seen[] = [];
  for (let i = 0; i < 5000; i++) {
    const payload = String(i).repeat(random.between(0, 300));
    outbox.beginFrame(frameKinds.item, i);
    for (let at = 0; at < payload.length; at += 200) {
      const part = payload.slice(at, at + 200);
      outbox.ensure(part.length);
      outbox.position += outbox.buffer.write(part, outbox.position);
    }
    outbox.endFrame();
    sent.push({ kind: frameKinds.item, id: i, payload });
    buffers.add(outbox.buffer);
    if (random.chance(0.3)) await Promise.resolve();
  }
  outbox.flush();
  const seen: Seen[] = [];
  collect(seen).push(Buffer.concat(taken));
  assert.deepEqual(seen, sent);
  assert(buffers.size < 30, `${buffers.size} buffers for 5000 frames`);
});

test("bytes that the connection has not taken are never written again", async () => {
  const random = new Random(seed);
  const connection = new FakeConnection();
  const outbox = new Outbox(connection);
  const copies: Buffer[] = [];
  for (let i = 0; i < 500; i++) {
    outbox.beginFrame(frameKinds.item, i);
    outbox.string("y".repeat(random.between(0, 3000)));
    if (random.chance(0.1)) outbox.abandonFrame();
    else outbox.endFrame();
    await Promise.resolve();
    for (const bytes of connection.written.slice(copies.length)) copies.push(Buffer.from(bytes));
    if (random.chance(0.05)) outbox.trim();
  }
  assert.deepEqual(
    connection.written.map((bytes) => Buffer.from(bytes)),
    copies,
  );
});
