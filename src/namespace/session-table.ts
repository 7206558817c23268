/**
 * Sessions and the results that their clients have not acknowledged: what makes a retried command apply once. All of it is
 * held in memory; rows reach the store with a flush, and most results are acknowledged before that.
 */

import type { SessionId } from "../base/ids.ts";
import { ByteReader, ByteWriter } from "./bytes.ts";
import type { CommandResult } from "./command.ts";
import { type Digest, hashHigh, hashLow, hashRow } from "./hash.ts";
import { type Batch, rowsTable, type Store } from "./store.ts";

/** Requests that one client may have without an acknowledged answer. */
export const unacknowledgedMax = 8192;
export const sessionsMax = 100_000;

export type StoredResult = {
  /** Of the request's fields: the same sequence with others is a client's mistake. */
  readonly hashLow: number;
  readonly hashHigh: number;
  result: CommandResult;
  /** Hash of the row as counted in the digest; undefined until it is counted and written. */
  counted: { readonly low: number; readonly high: number; readonly row: Buffer } | undefined;
  /** Whether the store holds a row of it, and whether that row must be written (again). */
  inStore: boolean;
  unwritten: boolean;
};

export type Session = {
  readonly id: SessionId;
  readonly client: string;
  readonly timeoutMs: number;
  readonly openedMs: number;
  lastSeenMs: number;
  acknowledged: number;
  readonly results: Map<number, StoredResult>;
  /** Sequences whose rows in the store are to be removed. */
  gone: number[];
  dirty: boolean;
  inStore: boolean;
  hashLow: number;
  hashHigh: number;
};

export const sessionPrefix = 0x53;
export const resultPrefix = 0x52;

export class SessionTable {
  readonly #store: Store;
  readonly #digest: Digest;
  readonly #sessions = new Map<number, Session>();
  #dirty: Session[] = [];
  /** Keys of rows of sessions that are no more. */
  #goneKeys: Buffer[] = [];
  readonly #writer = new ByteWriter(1024);

  constructor(options: { readonly store: Store; readonly digest: Digest }) {
    this.#store = options.store;
    this.#digest = options.digest;
    this.#load();
  }

  get size(): number {
    return this.#sessions.size;
  }

  get dirtyCount(): number {
    return this.#dirty.length + this.#goneKeys.length;
  }

  get(id: number): Session | undefined {
    return this.#sessions.get(id);
  }

  /** In the order of their ids. */
  all(): Session[] {
    return [...this.#sessions.values()].sort((a, b) => a.id - b.id);
  }

  open(id: SessionId, client: string, timeoutMs: number, nowMs: number): Session {
    const session: Session = {
      id,
      client,
      timeoutMs,
      openedMs: nowMs,
      lastSeenMs: nowMs,
      acknowledged: 0,
      results: new Map(),
      gone: [],
      dirty: false,
      inStore: false,
      hashLow: 0,
      hashHigh: 0,
    };
    this.#sessions.set(id, session);
    this.touch(session);
    return session;
  }

  /** Must come with every change. */
  touch(session: Session): void {
    if (session.dirty) return;
    session.dirty = true;
    this.#dirty.push(session);
  }

  acknowledge(session: Session, sequence: number): void {
    if (sequence <= session.acknowledged) return;
    if (sequence - session.acknowledged > session.results.size) {
      for (const key of [...session.results.keys()]) if (key <= sequence) this.#drop(session, key);
    } else {
      for (let key = session.acknowledged + 1; key <= sequence; key++) this.#drop(session, key);
    }
    session.acknowledged = sequence;
  }

  store(session: Session, sequence: number, low: number, high: number, result: CommandResult): void {
    session.results.set(sequence, {
      hashLow: low,
      hashHigh: high,
      result,
      counted: undefined,
      inStore: false,
      unwritten: true,
    });
  }

  /** The final result of a request whose first one said that it waits for an under store. */
  amend(session: Session, sequence: number, result: CommandResult): void {
    const stored = session.results.get(sequence);
    if (stored === undefined) return;
    if (stored.counted !== undefined) this.#digest.subtract(stored.counted.low, stored.counted.high);
    stored.counted = undefined;
    stored.result = result;
    this.touch(session);
  }

  remove(session: Session): void {
    for (const sequence of [...session.results.keys()]) this.#drop(session, sequence);
    for (const sequence of session.gone) this.#goneKeys.push(resultKey(session.id, sequence));
    this.#digest.subtract(session.hashLow, session.hashHigh);
    if (session.inStore) this.#goneKeys.push(sessionKey(session.id));
    this.#sessions.delete(session.id);
  }

  /** Brings the digest up to date. */
  count(): void {
    for (const session of this.#dirty) if (this.#sessions.get(session.id) === session) this.#countSession(session);
  }

  /** Writes what changed; these rows are few, so they are neither frozen nor sliced. */
  encode(batch: Batch): void {
    for (const key of this.#goneKeys) batch.put(rowsTable, key, undefined);
    this.#goneKeys = [];
    for (const session of this.#dirty) {
      session.dirty = false;
      if (this.#sessions.get(session.id) !== session) continue;
      batch.put(rowsTable, sessionKey(session.id), this.#countSession(session));
      session.inStore = true;
      for (const sequence of session.gone) batch.put(rowsTable, resultKey(session.id, sequence), undefined);
      session.gone = [];
      for (const [sequence, stored] of session.results) {
        if (!stored.unwritten || stored.counted === undefined) continue;
        batch.put(rowsTable, resultKey(session.id, sequence), stored.counted.row);
        stored.inStore = true;
        stored.unwritten = false;
      }
    }
    this.#dirty = [];
  }

  #drop(session: Session, sequence: number): void {
    const stored = session.results.get(sequence);
    if (stored === undefined) return;
    session.results.delete(sequence);
    if (stored.counted !== undefined) this.#digest.subtract(stored.counted.low, stored.counted.high);
    if (stored.inStore) session.gone.push(sequence);
  }

  #countSession(session: Session): Buffer {
    const w = this.#writer;
    w.position = 0;
    w.string(session.client);
    w.varint(session.timeoutMs);
    w.uint48(session.openedMs);
    w.uint48(session.lastSeenMs);
    w.varint(session.acknowledged);
    const row = w.bytes();
    this.#digest.subtract(session.hashLow, session.hashHigh);
    hashRow(sessionKey(session.id), row);
    session.hashLow = hashLow;
    session.hashHigh = hashHigh;
    this.#digest.add(hashLow, hashHigh);
    for (const [sequence, stored] of session.results) {
      if (stored.counted !== undefined) continue;
      w.position = 0;
      w.uint48(stored.hashLow >>> 0);
      w.uint48(stored.hashHigh >>> 0);
      w.string(JSON.stringify(stored.result));
      const resultRow = w.bytes();
      hashRow(resultKey(session.id, sequence), resultRow);
      stored.counted = { low: hashLow, high: hashHigh, row: resultRow };
      stored.unwritten = true;
      this.#digest.add(hashLow, hashHigh);
    }
    return row;
  }

  #load(): void {
    this.#store.scan(rowsTable, Buffer.of(sessionPrefix), (key, value) => {
      if (key[0] !== sessionPrefix) return false;
      const id = key.readUIntBE(1, 6) as SessionId;
      const r = new ByteReader(`the row of session ${id}`, Buffer.from(value));
      hashRow(Buffer.from(key), value);
      const session: Session = {
        id,
        client: r.string(),
        timeoutMs: r.varint(),
        openedMs: r.uint48(),
        lastSeenMs: r.uint48(),
        acknowledged: r.varint(),
        results: new Map(),
        gone: [],
        dirty: false,
        inStore: true,
        hashLow,
        hashHigh,
      };
      this.#sessions.set(id, session);
      return true;
    });
    this.#store.scan(rowsTable, Buffer.of(resultPrefix), (key, value) => {
      if (key[0] !== resultPrefix) return false;
      const id = key.readUIntBE(1, 6);
      const sequence = key.readUIntBE(7, 6);
      const row = Buffer.from(value);
      const r = new ByteReader(`the row of result ${sequence} of session ${id}`, row);
      hashRow(Buffer.from(key), row);
      const counted = { low: hashLow, high: hashHigh, row };
      this.#sessions.get(id)?.results.set(sequence, {
        hashLow: r.uint48() | 0,
        hashHigh: r.uint48() | 0,
        result: JSON.parse(r.string()) as CommandResult,
        counted,
        inStore: true,
        unwritten: false,
      });
      return true;
    });
  }
}

function sessionKey(id: number): Buffer {
  const key = Buffer.allocUnsafe(7);
  key[0] = sessionPrefix;
  key.writeUIntBE(id, 1, 6);
  return key;
}

function resultKey(id: number, sequence: number): Buffer {
  const key = Buffer.allocUnsafe(13);
  key[0] = resultPrefix;
  key.writeUIntBE(id, 1, 6);
  key.writeUIntBE(sequence, 7, 6);
  return key;
}
