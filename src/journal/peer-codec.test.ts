import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { HeadpondError } from "../base/errors.ts";
import { Random } from "../base/random.ts";
import type { Entry, Message } from "../raft/types.ts";
import { decodeMessages, encodeEntries, encodeMessage, messageBytes, smallMessageBytes } from "./peer-codec.ts";
import {
  type Frame,
  FrameReader,
  FrameWriter,
  frameBody,
  frameHeaderBytes,
  frameKind,
  peerFrameLimits,
} from "./peer-frame.ts";

const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 31));
const position = fc.oneof(fc.nat(), fc.maxSafeNat(), fc.constantFrom(0, 2 ** 32 - 1, 2 ** 32, Number.MAX_SAFE_INTEGER));
const time = fc.double({ noNaN: true, noDefaultInfinity: true }).map((value) => (Object.is(value, -0) ? 0 : value));
const id = fc.constantFrom("m1", "m2", "m3", "m4");
const envelope = { from: fc.constant("m1"), to: fc.constant("m2"), term: position };

const configuration = fc.record({
  voters: fc.uniqueArray(id),
  outgoing: fc.uniqueArray(id),
  learners: fc.uniqueArray(id),
  members: fc.constantFrom(
    {},
    { m1: { address: "[::1]:7072", incarnation: "b7" } },
    { m1: { address: "h:1", incarnation: "" }, m2: { address: "h:2", incarnation: "c", rpc: "h:3", http: "h:4" } },
  ),
});

/** Entries follow each other, as in every append. */
const entries = (first: number): fc.Arbitrary<readonly Entry[]> =>
  fc
    .array(
      fc.record({
        term: fc.oneof(fc.constant(3), position),
        kind: fc.constantFrom("command" as const, "configuration" as const),
        payload: fc.uint8Array({ maxLength: 300 }),
      }),
      { maxLength: 40 },
    )
    .map((drafts) => drafts.map((draft, i) => ({ index: first + i, ...draft })));

const withoutEntries: fc.Arbitrary<Message> = fc.oneof(
  fc.record({ ...envelope, type: fc.constant("pre-vote" as const), lastIndex: position, lastTerm: position }),
  fc.record({ ...envelope, type: fc.constant("pre-vote-reply" as const), granted: fc.boolean() }),
  fc.record({
    ...envelope,
    type: fc.constant("vote" as const),
    lastIndex: position,
    lastTerm: position,
    transfer: fc.boolean(),
  }),
  fc.record({ ...envelope, type: fc.constant("vote-reply" as const), granted: fc.boolean() }),
  fc.record({ ...envelope, type: fc.constant("append-ok" as const), index: position, sentAtMs: time }),
  fc.record({
    ...envelope,
    type: fc.constant("append-reject" as const),
    prevIndex: position,
    hintIndex: position,
    hintTerm: position,
    sentAtMs: time,
  }),
  fc.record({
    ...envelope,
    type: fc.constant("heartbeat" as const),
    round: position,
    commit: position,
    sentAtMs: time,
  }),
  fc.record({ ...envelope, type: fc.constant("heartbeat-ok" as const), round: position, sentAtMs: time }),
  fc.record({ ...envelope, type: fc.constant("commit" as const), commit: position }),
  fc.record({
    ...envelope,
    type: fc.constant("snapshot" as const),
    snapshot: fc.record({ index: position, term: position, configuration }),
    sentAtMs: time,
  }),
  fc.record({ ...envelope, type: fc.constant("stale-term" as const) }),
  fc.record({ ...envelope, type: fc.constant("timeout-now" as const) }),
  fc.record({ ...envelope, type: fc.constant("read" as const), request: position }),
  fc.record({ ...envelope, type: fc.constant("read-reply" as const), request: position, index: position }),
);

const append: fc.Arbitrary<Extract<Message, { type: "append" }>> = fc.maxSafeNat().chain((drawn) => {
  const prevIndex = Math.max(0, drawn - 100);
  return fc.record({
    ...envelope,
    type: fc.constant("append" as const),
    prevIndex: fc.constant(prevIndex),
    prevTerm: position,
    entries: entries(prevIndex + 1),
    commit: position,
    sentAtMs: time,
  });
});

/** What one frame may carry: small messages, and an append with entries at the end of them. */
const frameful: fc.Arbitrary<readonly Message[]> = fc
  .tuple(fc.array(withoutEntries, { maxLength: 8 }), fc.option(append, { nil: undefined }))
  .map(([small, last]) => (last === undefined ? small : [...small, last]));

function encodeHead(messages: readonly Message[]): Buffer {
  const head = Buffer.alloc(messages.reduce((sum, message) => sum + messageBytes(message), 0));
  let at = 0;
  for (const message of messages) at = encodeMessage(head, at, message);
  return head.subarray(0, at);
}

function bodyOf(messages: readonly Message[]): Uint8Array {
  const last = messages.at(-1);
  return last?.type === "append" ? encodeEntries(last.entries) : new Uint8Array(0);
}

function stream(framefuls: readonly (readonly Message[])[]): Buffer {
  const writer = new FrameWriter();
  return Buffer.concat(
    framefuls.flatMap((messages) => {
      const body = frameBody(bodyOf(messages));
      return [writer.encode(frameKind.messages, encodeHead(messages), body), body.bytes];
    }),
  );
}

/** What a receiver believes of a stream, and the error that ended it. */
function receive(bytes: Uint8Array, cuts: readonly number[] = []): { messages: Message[][]; error: unknown } {
  const messages: Message[][] = [];
  const reader = new FrameReader({
    limits: peerFrameLimits,
    onFrame: ({ kind, head, body }: Frame) => {
      if (kind !== frameKind.messages) throw new HeadpondError("corrupt", `kind ${kind}`);
      messages.push(decodeMessages(head, body, "m1", "m2"));
    },
  });
  try {
    const at = [0, ...[...cuts].sort((a, b) => a - b), bytes.length];
    for (let i = 1; i < at.length; i++) {
      // As from a socket: the memory of a chunk is used again right after the call.
      const chunk = Uint8Array.from(bytes.subarray(at[i - 1], at[i]));
      reader.push(chunk);
      chunk.fill(0xee);
    }
  } catch (error) {
    return { messages, error };
  }
  return { messages, error: undefined };
}

/** Plain objects, and payloads apart from what they are views of. */
function plain(messages: readonly Message[]): unknown {
  return messages.map((message) => {
    if (message.type !== "append") return structuredClone(message);
    return {
      ...message,
      entries: message.entries.map((entry) => ({ ...entry, payload: Uint8Array.from(entry.payload) })),
    };
  });
}

describe(`messages as bytes (SEED=${seed})`, () => {
  it("every message comes back as it was, however the stream is cut into chunks", () => {
    const property = fc.property(
      fc.array(frameful, { maxLength: 6 }),
      fc.array(fc.nat(), { maxLength: 12 }),
      (sent, cuts) => {
        const bytes = stream(sent);
        const { messages, error } = receive(bytes, bytes.length === 0 ? [] : cuts.map((cut) => cut % bytes.length));
        assert.equal(error, undefined);
        assert.deepEqual(messages.map(plain), sent.map(plain));
      },
    );
    fc.assert(property, { seed, numRuns: 300 });
  });

  it("all messages but snapshots fit into what is counted for a small one", () => {
    const property = fc.property(fc.oneof(withoutEntries, append), (message) => {
      const size = encodeHead([message]).length;
      assert.ok(size <= messageBytes(message), `${message.type} takes ${size} bytes`);
      assert.ok(message.type === "snapshot" || messageBytes(message) === smallMessageBytes);
    });
    fc.assert(property, { seed, numRuns: 300 });
  });

  it("flipped bits are never believed: what is received is a beginning of what was sent", () => {
    const property = fc.property(
      fc.array(frameful, { minLength: 1, maxLength: 4 }),
      fc.array(fc.nat(), { minLength: 1, maxLength: 5 }),
      (sent, flips) => {
        const bytes = stream(sent);
        const damaged = Buffer.from(bytes);
        for (const flip of new Set(flips.map((drawn) => drawn % (bytes.length * 8))))
          damaged[flip >> 3] = (damaged[flip >> 3] as number) ^ (1 << (flip & 7));
        const { messages, error } = receive(damaged);
        assert.ok(error === undefined || error instanceof HeadpondError, String(error));
        assert.ok(messages.length < sent.length || error !== undefined);
        assert.deepEqual(messages.map(plain), sent.slice(0, messages.length).map(plain));
      },
    );
    fc.assert(property, { seed, numRuns: 500 });
  });

  it("every single flipped bit of a stream is found, in headers, heads and bodies", () => {
    const sent: Message[] = [
      { type: "heartbeat", from: "m1", to: "m2", term: 3, round: 4, commit: 5, sentAtMs: 1.5 },
      {
        ...{ type: "append", from: "m1", to: "m2", term: 3, prevIndex: 6, prevTerm: 3, commit: 6, sentAtMs: 1.5 },
        entries: [{ index: 7, term: 3, kind: "command", payload: Buffer.from("command") }],
      },
    ];
    const bytes = stream([sent, sent]);
    for (let flip = 0; flip < bytes.length * 8; flip++) {
      const damaged = Buffer.from(bytes);
      damaged[flip >> 3] = (damaged[flip >> 3] as number) ^ (1 << (flip & 7));
      const { messages, error } = receive(damaged);
      assert.ok(error instanceof HeadpondError && error.code === "corrupt", `bit ${flip}: ${String(error)}`);
      assert.deepEqual(messages.map(plain), [sent].slice(0, flip >> 3 < bytes.length / 2 ? 0 : 1).map(plain));
    }
  });

  it("a stream that is cut off gives the frames before the cut and nothing else", () => {
    const property = fc.property(fc.array(frameful, { minLength: 1, maxLength: 4 }), fc.nat(), (sent, cut) => {
      const bytes = stream(sent);
      const { messages, error } = receive(bytes.subarray(0, cut % bytes.length));
      assert.equal(error, undefined);
      assert.ok(messages.length < sent.length);
      assert.deepEqual(messages.map(plain), sent.slice(0, messages.length).map(plain));
    });
    fc.assert(property, { seed, numRuns: 300 });
  });

  it("a frame that is missing, or comes twice, or in another's place, is found", () => {
    const heartbeat = (round: number): Message => ({
      type: "heartbeat",
      from: "m1",
      to: "m2",
      term: 3,
      round,
      commit: 5,
      sentAtMs: 1,
    });
    const whole = stream([[heartbeat(1)], [heartbeat(2)], [heartbeat(3)]]);
    const [a, b, c] = [0, 1, 2].map((i) => whole.subarray((i * whole.length) / 3, ((i + 1) * whole.length) / 3)) as [
      Buffer,
      Buffer,
      Buffer,
    ];
    for (const order of [
      [a, c],
      [a, a, b],
      [b, a],
      [a, c, b],
    ]) {
      const { messages, error } = receive(Buffer.concat(order));
      assert.ok(error instanceof HeadpondError && /number \d+ came instead/.test(error.message), String(error));
      assert.ok(messages.length <= 1);
    }
  });

  it("what is no message is refused, whatever bytes it is made of, and what is accepted means what it says", () => {
    const random = new Random(seed);
    let accepted = 0;
    for (let round = 0; round < 20_000; round++) {
      const head = random.bytes(random.chance(0.5) ? random.between(0, 80) : random.pick([9, 10, 17, 25, 26, 33, 41]));
      // Mostly a known type and small numbers, or next to nothing would get beyond the first byte.
      if (head.length > 0 && random.chance(0.9)) head[0] = random.between(1, 15);
      for (let at = 1; at < head.length; at++) if (random.chance(0.7)) head[at] = 0;
      const body = random.chance(0.5) ? new Uint8Array(0) : random.bytes(random.between(1, 60));
      try {
        const messages = decodeMessages(Buffer.from(head), body, "m1", "m2");
        accepted++;
        assert.deepEqual(Buffer.from(encodeHead(messages)), Buffer.from(head));
      } catch (error) {
        assert.ok(error instanceof HeadpondError && error.code === "corrupt", String(error));
      }
    }
    // About 250 by chance: far below, the bytes are not near enough to messages to prove anything.
    assert.ok(accepted > 100, `only ${accepted} accepted`);
  });

  it("lengths that lie are refused before anything is allocated for them", () => {
    const lie = new FrameWriter().encode(frameKind.messages, Buffer.alloc(0), {
      bytes: { length: 2 ** 31 } as Uint8Array,
      crc: 1,
    });
    const { error } = receive(lie);
    assert.match(String(error), /frame 1: its body of 2147483648 bytes exceeds/);
    const head = encodeHead([
      { type: "append", from: "m1", to: "m2", term: 1, prevIndex: 1, prevTerm: 1, commit: 1, sentAtMs: 1, entries: [] },
    ]);
    head.writeUInt32LE(2 ** 31, head.length - 4);
    assert.throws(
      () => decodeMessages(head, Buffer.alloc(100), "m1", "m2"),
      /2147483648 entries cannot be in 100 bytes/,
    );
    assert.equal(frameHeaderBytes, 24);
  });
});
