import assert from "node:assert/strict";
import { test } from "node:test";
import type { Connection } from "../io/network.ts";
import { frameHeadBytes, frameKinds } from "./frame.ts";
import { Outbox } from "./outbox.ts";

class RecordingConnection implements Connection {
  readonly remote = "test";
  readonly pendingBytes = 0;
  readonly writes: number[] = [];
  takes = true;
  onData: (chunk: Uint8Array) => void = () => {};
  onDrain: () => void = () => {};
  onClose: (error?: Error) => void = () => {};
  write(bytes: Uint8Array): boolean {
    this.writes.push(bytes.length);
    return this.takes;
  }
  pause(): void {}
  resume(): void {}
  end(): void {}
  destroy(): void {}
}

function writeFrames(outbox: Outbox, count: number): void {
  for (let i = 0; i < count; i++) outbox.emptyFrame(frameKinds.ping, i);
}

test("few frames of one turn are one write, at the end of the turn", async () => {
  const connection = new RecordingConnection();
  writeFrames(new Outbox(connection), 63);
  assert.deepEqual(connection.writes, []);
  await Promise.resolve();
  assert.deepEqual(connection.writes, [63 * frameHeadBytes]);
});

test("many frames of one turn go out in pieces, so that the other side begins meanwhile", async () => {
  const connection = new RecordingConnection();
  writeFrames(new Outbox(connection), 130);
  assert.deepEqual(connection.writes, [64 * frameHeadBytes, 64 * frameHeadBytes]);
  await Promise.resolve();
  assert.deepEqual(connection.writes.at(-1), 2 * frameHeadBytes);
});

test("a connection that is full gets no pieces until it drains, then all at once", async () => {
  const connection = new RecordingConnection();
  const outbox = new Outbox(connection);
  connection.takes = false;
  writeFrames(outbox, 200);
  await Promise.resolve();
  assert.equal(connection.writes.length, 1);
  connection.takes = true;
  connection.onDrain();
  assert.deepEqual(connection.writes, [64 * frameHeadBytes, 136 * frameHeadBytes]);
});
