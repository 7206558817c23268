/**
 * The messages of the consensus as bytes (docs/formats/peers.md). Sender and receiver are not in them: a connection knows
 * who is at its ends. The entries of an append are apart from it, so that they are encoded once for all peers, and are
 * decoded without a copy: payloads are views of the bytes that came.
 *
 * Decoding believes nothing: what is not a message is refused as `corrupt`. No input or output here.
 */

import { assert, unreachable } from "../base/assert.ts";
import { HeadpondError } from "../base/errors.ts";
import { decodeConfiguration, encodeConfiguration } from "../raft/membership.ts";
import type { Entry, Message, NodeId } from "../raft/types.ts";

/** The numbers are the format's. */
const messageType = {
  "pre-vote": 1,
  "pre-vote-reply": 2,
  vote: 3,
  "vote-reply": 4,
  append: 5,
  "append-ok": 6,
  "append-reject": 7,
  heartbeat: 8,
  "heartbeat-ok": 9,
  commit: 10,
  snapshot: 11,
  "stale-term": 12,
  "timeout-now": 13,
  read: 14,
  "read-reply": 15,
} as const satisfies Record<Message["type"], number>;

/** All but a snapshot fit into this. */
export const smallMessageBytes = 48;
const positionMax = Number.MAX_SAFE_INTEGER;

/** Flags in the upper bits of an entry's length. */
const configurationFlag = 2 ** 31;
const termFlag = 2 ** 30;
const entryLengthMax = termFlag - 1;

/** How many bytes the message takes, its entries aside. */
export function messageBytes(message: Message): number {
  return message.type === "snapshot"
    ? smallMessageBytes + encodeConfiguration(message.snapshot.configuration).length
    : smallMessageBytes;
}

/** Writes the message, its entries aside, and returns where it ends. There must be room. */
export function encodeMessage(bytes: Buffer, start: number, message: Message): number {
  let at = bytes.writeUInt8(messageType[message.type], start);
  at = writePosition(bytes, at, message.term);
  switch (message.type) {
    case "pre-vote":
      at = writePosition(bytes, at, message.lastIndex);
      return writePosition(bytes, at, message.lastTerm);
    case "pre-vote-reply":
    case "vote-reply":
      return bytes.writeUInt8(message.granted ? 1 : 0, at);
    case "vote":
      at = writePosition(bytes, at, message.lastIndex);
      at = writePosition(bytes, at, message.lastTerm);
      return bytes.writeUInt8(message.transfer ? 1 : 0, at);
    case "append":
      at = writePosition(bytes, at, message.prevIndex);
      at = writePosition(bytes, at, message.prevTerm);
      at = writePosition(bytes, at, message.commit);
      at = bytes.writeDoubleLE(message.sentAtMs, at);
      return bytes.writeUInt32LE(message.entries.length, at);
    case "append-ok":
      at = writePosition(bytes, at, message.index);
      return bytes.writeDoubleLE(message.sentAtMs, at);
    case "append-reject":
      at = writePosition(bytes, at, message.prevIndex);
      at = writePosition(bytes, at, message.hintIndex);
      at = writePosition(bytes, at, message.hintTerm);
      return bytes.writeDoubleLE(message.sentAtMs, at);
    case "heartbeat":
      at = writePosition(bytes, at, message.round);
      at = writePosition(bytes, at, message.commit);
      return bytes.writeDoubleLE(message.sentAtMs, at);
    case "heartbeat-ok":
      at = writePosition(bytes, at, message.round);
      return bytes.writeDoubleLE(message.sentAtMs, at);
    case "commit":
      return writePosition(bytes, at, message.commit);
    case "snapshot": {
      const configuration = encodeConfiguration(message.snapshot.configuration);
      at = writePosition(bytes, at, message.snapshot.index);
      at = writePosition(bytes, at, message.snapshot.term);
      at = bytes.writeDoubleLE(message.sentAtMs, at);
      at = bytes.writeUInt32LE(configuration.length, at);
      bytes.set(configuration, at);
      return at + configuration.length;
    }
    case "stale-term":
    case "timeout-now":
      return at;
    case "read":
      return writePosition(bytes, at, message.request);
    case "read-reply":
      at = writePosition(bytes, at, message.request);
      return writePosition(bytes, at, message.index);
    default:
      return unreachable(message);
  }
}

/**
 * All messages of a frame. `body` holds the entries of the only append that has any; their payloads are views of it.
 * Throws `corrupt`.
 */
export function decodeMessages(head: Buffer, body: Uint8Array, from: NodeId, to: NodeId): Message[] {
  const reader = new HeadReader(head);
  const messages: Message[] = [];
  let isBodyUsed = body.length === 0;
  while (!reader.isAtEnd) {
    const type = reader.byte();
    const term = reader.position();
    const common = { from, to, term };
    switch (type) {
      case messageType["pre-vote"]:
        messages.push({ ...common, type: "pre-vote", lastIndex: reader.position(), lastTerm: reader.position() });
        break;
      case messageType["pre-vote-reply"]:
        messages.push({ ...common, type: "pre-vote-reply", granted: reader.flag() });
        break;
      case messageType.vote: {
        const lastIndex = reader.position();
        const lastTerm = reader.position();
        messages.push({ ...common, type: "vote", lastIndex, lastTerm, transfer: reader.flag() });
        break;
      }
      case messageType["vote-reply"]:
        messages.push({ ...common, type: "vote-reply", granted: reader.flag() });
        break;
      case messageType.append: {
        const prevIndex = reader.position();
        const prevTerm = reader.position();
        const commit = reader.position();
        const sentAtMs = reader.time();
        const count = reader.uint32();
        if (count > 0 && isBodyUsed) throw malformed(`an append of ${count} entries has no body`);
        if (prevIndex + count > positionMax) throw malformed(`entry ${prevIndex} + ${count} is no position`);
        const entries = count === 0 ? [] : decodeEntries(body, prevIndex + 1, count);
        isBodyUsed ||= count > 0;
        messages.push({ from, to, term, type: "append", prevIndex, prevTerm, entries, commit, sentAtMs });
        break;
      }
      case messageType["append-ok"]:
        messages.push({ from, to, term, type: "append-ok", index: reader.position(), sentAtMs: reader.time() });
        break;
      case messageType["append-reject"]: {
        const prevIndex = reader.position();
        const hintIndex = reader.position();
        const hintTerm = reader.position();
        messages.push({ ...common, type: "append-reject", prevIndex, hintIndex, hintTerm, sentAtMs: reader.time() });
        break;
      }
      case messageType.heartbeat: {
        const round = reader.position();
        const commit = reader.position();
        messages.push({ ...common, type: "heartbeat", round, commit, sentAtMs: reader.time() });
        break;
      }
      case messageType["heartbeat-ok"]:
        messages.push({ ...common, type: "heartbeat-ok", round: reader.position(), sentAtMs: reader.time() });
        break;
      case messageType.commit:
        messages.push({ ...common, type: "commit", commit: reader.position() });
        break;
      case messageType.snapshot: {
        const index = reader.position();
        const snapshotTerm = reader.position();
        const sentAtMs = reader.time();
        const configuration = decodeConfiguration(reader.bytes(reader.uint32()));
        const snapshot = { index, term: snapshotTerm, configuration };
        messages.push({ ...common, type: "snapshot", snapshot, sentAtMs });
        break;
      }
      case messageType["stale-term"]:
        messages.push({ ...common, type: "stale-term" });
        break;
      case messageType["timeout-now"]:
        messages.push({ ...common, type: "timeout-now" });
        break;
      case messageType.read:
        messages.push({ ...common, type: "read", request: reader.position() });
        break;
      case messageType["read-reply"]:
        messages.push({ ...common, type: "read-reply", request: reader.position(), index: reader.position() });
        break;
      default:
        throw malformed(`message type ${type} is not known`);
    }
  }
  if (!isBodyUsed) throw malformed(`a body of ${body.length} bytes belongs to no append`);
  return messages;
}

/** Without their indexes, which follow from the append; a term only where it differs from the entry before. */
export function encodeEntries(entries: readonly Entry[]): Uint8Array {
  let sizeBytes = 0;
  let term = -1;
  for (const entry of entries) {
    sizeBytes += 4 + entry.payload.length + (entry.term === term ? 0 : 8);
    term = entry.term;
  }
  const bytes = Buffer.allocUnsafe(sizeBytes);
  let at = 0;
  term = -1;
  for (const entry of entries) {
    const { payload } = entry;
    assert(payload.length <= entryLengthMax, () => `entry ${entry.index} of ${payload.length} bytes is too large`);
    const flags = entry.kind === "configuration" ? configurationFlag : 0;
    if (entry.term === term) {
      at = bytes.writeUInt32LE(flags + payload.length, at);
    } else {
      at = bytes.writeUInt32LE(flags + termFlag + payload.length, at);
      at = writePosition(bytes, at, entry.term);
      term = entry.term;
    }
    bytes.set(payload, at);
    at += payload.length;
  }
  return bytes;
}

/** Throws `corrupt`. Payloads are views of `bytes`. */
function decodeEntries(bytes: Uint8Array, firstIndex: number, count: number): Entry[] {
  // Each entry has at least its length, so that a lie cannot make us allocate.
  if (count * 4 > bytes.length) throw malformed(`${count} entries cannot be in ${bytes.length} bytes`);
  const { buffer, byteOffset, length } = bytes;
  const view = new DataView(buffer, byteOffset, length);
  const entries = new Array<Entry>(count);
  let at = 0;
  let term = 0;
  for (let i = 0; i < count; i++) {
    if (at + 4 > length) throw malformed(`entry ${i + 1} of ${count} is cut off`);
    const word = view.getUint32(at, true);
    at += 4;
    if ((word & termFlag) !== 0) {
      if (at + 8 > length) throw malformed(`entry ${i + 1} of ${count} is cut off`);
      term = readPosition(view, at);
      at += 8;
    } else if (i === 0) throw malformed("the first entry has no term");
    const payloadBytes = word & entryLengthMax;
    if (at + payloadBytes > length) throw malformed(`entry ${i + 1} of ${count} is cut off`);
    entries[i] = {
      index: firstIndex + i,
      term,
      kind: word >= configurationFlag ? "configuration" : "command",
      payload: new Uint8Array(buffer, byteOffset + at, payloadBytes),
    };
    at += payloadBytes;
  }
  if (at !== length) throw malformed(`${length - at} bytes are left behind ${count} entries`);
  return entries;
}

/** Reads fields one after the other. Every method throws `corrupt` when there is not enough, or no such value. */
class HeadReader {
  readonly #bytes: Buffer;
  readonly #view: DataView;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  }

  get isAtEnd(): boolean {
    return this.#at === this.#bytes.length;
  }

  byte(): number {
    return this.#view.getUint8(this.#take(1));
  }

  flag(): boolean {
    const value = this.byte();
    if (value > 1) throw malformed(`${value} is no flag`);
    return value === 1;
  }

  uint32(): number {
    return this.#view.getUint32(this.#take(4), true);
  }

  position(): number {
    return readPosition(this.#view, this.#take(8));
  }

  time(): number {
    const value = this.#view.getFloat64(this.#take(8), true);
    if (!Number.isFinite(value)) throw malformed(`${value} is no time`);
    return value;
  }

  bytes(count: number): Uint8Array {
    const start = this.#take(count);
    return this.#bytes.subarray(start, start + count);
  }

  #take(count: number): number {
    const at = this.#at;
    if (at + count > this.#bytes.length) throw malformed("a message is cut off");
    this.#at = at + count;
    return at;
  }
}

function writePosition(bytes: Buffer, at: number, value: number): number {
  assert(Number.isSafeInteger(value) && value >= 0, () => `${value} is no position`);
  bytes.writeUInt32LE(value % 2 ** 32, at);
  return bytes.writeUInt32LE(Math.floor(value / 2 ** 32), at + 4);
}

function readPosition(view: DataView, at: number): number {
  const value = view.getUint32(at + 4, true) * 2 ** 32 + view.getUint32(at, true);
  if (value > positionMax) throw malformed(`${value} is no position`);
  return value;
}

function malformed(what: string): HeadpondError {
  return new HeadpondError("corrupt", `not a message between masters: ${what}`);
}
