/**
 * What is to be sent to one peer by one connection: messages of the consensus, gathered, encoded and written together.
 * Bounded: what does not fit is dropped, because a consensus repeats what matters, and memory does not grow back.
 */

import { KiB, MiB } from "../base/units.ts";
import type { Entry, Message } from "../raft/types.ts";
import { entryBytes } from "../raft/types.ts";
import { encodeEntries, encodeMessage, messageBytes, smallMessageBytes } from "./peer-codec.ts";
import type { PeerConnection } from "./peer-connection.ts";
import { type FrameBody, frameBody, frameKind } from "./peer-frame.ts";

export type SenderLimits = {
  /** Bytes and messages that wait for one connection: not yet encoded, or not yet taken by the kernel. */
  readonly queueBytes: number;
  readonly queueMessages: number;
};

/** Twice what a leader sends ahead to a member by default. */
export const defaultSenderLimits: SenderLimits = { queueBytes: 16 * MiB, queueMessages: 16_384 };

/** Small messages of one frame. */
const headBytesMax = 32 * KiB;

export class PeerSender {
  readonly connection: PeerConnection;
  readonly #limits: SenderLimits;
  #messages: Message[] = [];
  #gatheredBytes = 0;
  /** Sent since the connection had nothing left to send. */
  #pendingMessages = 0;

  constructor(options: { readonly connection: PeerConnection; readonly limits: SenderLimits }) {
    this.connection = options.connection;
    this.#limits = options.limits;
  }

  /** False: it was dropped. */
  add(message: Message): boolean {
    const { connection } = this;
    if (connection.isClosed) return false;
    const sizeBytes = sizeOf(message);
    const pendingBytes = connection.pendingBytes + this.#gatheredBytes;
    if (pendingBytes === 0) this.#pendingMessages = 0;
    // A message larger than the whole queue goes alone, or it would never go.
    if (pendingBytes > 0 && pendingBytes + sizeBytes > this.#limits.queueBytes) return false;
    if (this.#pendingMessages >= this.#limits.queueMessages) return false;
    this.#messages.push(message);
    this.#gatheredBytes += sizeBytes;
    this.#pendingMessages++;
    return true;
  }

  flush(entries: EntriesCache): void {
    const messages = this.#messages;
    this.#messages = [];
    this.#gatheredBytes = 0;
    const head = entries.scratch;
    let at = 0;
    for (const message of messages) {
      if (at + messageBytes(message) > head.length) {
        this.connection.write(frameKind.messages, head.subarray(0, at));
        at = 0;
      }
      at = encodeMessage(head, at, message);
      if (message.type !== "append" || message.entries.length === 0) continue;
      this.connection.write(frameKind.messages, head.subarray(0, at), entries.encoded(message.entries));
      at = 0;
    }
    if (at > 0) this.connection.write(frameKind.messages, head.subarray(0, at));
    this.connection.flush();
  }
}

function sizeOf(message: Message): number {
  let sizeBytes = smallMessageBytes;
  if (message.type === "append") for (const entry of message.entries) sizeBytes += entryBytes(entry);
  return sizeBytes;
}

/** Entries that go to several peers in one turn are encoded and summed for the first of them. */
export class EntriesCache {
  /** For heads, which are copied at once. */
  readonly scratch = Buffer.allocUnsafeSlow(headBytesMax);
  readonly #known: { readonly entries: readonly Entry[]; readonly body: FrameBody }[] = [];

  encoded(entries: readonly Entry[]): FrameBody {
    for (const known of this.#known) if (areSame(known.entries, entries)) return known.body;
    const body = frameBody(encodeEntries(entries));
    this.#known.push({ entries, body });
    return body;
  }

  /** At the end of a turn: nothing is kept alive by it. */
  clear(): void {
    this.#known.length = 0;
  }
}

function areSame(a: readonly Entry[], b: readonly Entry[]): boolean {
  if (a === b) return true;
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}
