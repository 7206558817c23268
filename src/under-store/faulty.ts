/**
 * A decorator that makes an under store slow, broken, throttling or dishonest on purpose, and counts what was asked of
 * it. For the tests of workers and masters: `originBytes` is the numerator of the origin amplification.
 */

import { HeadpondError } from "../base/errors.ts";
import type { Clock } from "../io/clock.ts";
import {
  type CallOptions,
  cancellation,
  type ListEntry,
  type ListOptions,
  type ListPage,
  type ObjectInfo,
  type ReadOptions,
  throwIfCancelled,
  type UnderStore,
  type UnderStoreTraits,
  type WriteOptions,
} from "./under-store.ts";

export type UnderStoreOperation = Exclude<keyof UnderStore, "uri" | "traits" | "close">;

export type UnderStoreFault =
  /** Fails before anything is asked of the store. */
  | { readonly kind: "error"; readonly error: Error }
  | { readonly kind: "throttle"; readonly retryAfterMs: number }
  /** Waits, then goes on as usual. */
  | { readonly kind: "delay"; readonly durationMs: number }
  /** Never answers; ends when the signal fires. */
  | { readonly kind: "hang" }
  /** Takes effect, but the answer is lost. */
  | { readonly kind: "lost-answer" }
  /** `read` fails with `under-store` after that many bytes. */
  | { readonly kind: "truncate"; readonly afterBytes: number }
  /** `read` hands out only that many bytes and says it was all. */
  | { readonly kind: "short"; readonly afterBytes: number }
  /** `read` fails with `version-mismatch` after that many bytes. */
  | { readonly kind: "change"; readonly afterBytes: number }
  /** `read` flips one bit of the byte at this place of the range. */
  | { readonly kind: "flip"; readonly atByte: number }
  /** `head` and `list` tell sizes that are wrong by this much. */
  | { readonly kind: "wrong-size"; readonly deltaBytes: number };

export type FaultRule = {
  readonly operation: UnderStoreOperation;
  /** Of any key, if absent. */
  readonly key?: string;
  /** How many matching calls go unharmed first. */
  readonly skip?: number;
  /** How many calls are harmed then; all, if absent. */
  readonly times?: number;
  readonly fault: UnderStoreFault;
};

type ActiveRule = { readonly rule: FaultRule; seen: number; readonly remove: () => void };

export class FaultyUnderStore implements UnderStore {
  readonly uri: string;
  readonly traits: UnderStoreTraits;
  readonly #inner: UnderStore;
  readonly #clock: Clock;
  readonly #rules: ActiveRule[] = [];
  readonly #requests = new Map<UnderStoreOperation, number>();
  readonly #bytesByKey = new Map<string, number>();
  #originBytes = 0;
  #readsActive = 0;
  #readsActiveMax = 0;

  constructor({ inner, clock }: { readonly inner: UnderStore; readonly clock: Clock }) {
    this.#inner = inner;
    this.#clock = clock;
    this.uri = inner.uri;
    this.traits = inner.traits;
  }

  /** Adds a fault; the first rule that matches a call is applied. Returns what takes it away. */
  inject(rule: FaultRule): () => void {
    const active: ActiveRule = {
      rule,
      seen: 0,
      remove: () => {
        const index = this.#rules.indexOf(active);
        if (index >= 0) this.#rules.splice(index, 1);
      },
    };
    this.#rules.push(active);
    return active.remove;
  }

  clearFaults(): void {
    this.#rules.length = 0;
  }

  /** Bytes that `read` handed out, of all keys or of one. */
  originBytes(key?: string): number {
    return key === undefined ? this.#originBytes : (this.#bytesByKey.get(key) ?? 0);
  }

  /** Calls made, harmed ones included. */
  requests(operation: UnderStoreOperation): number {
    return this.#requests.get(operation) ?? 0;
  }

  /** The most reads that ever ran at once. */
  get readsActiveMax(): number {
    return this.#readsActiveMax;
  }

  resetCounts(): void {
    this.#requests.clear();
    this.#bytesByKey.clear();
    this.#originBytes = 0;
    this.#readsActiveMax = this.#readsActive;
  }

  async list(directoryKey: string, options: ListOptions = {}): Promise<ListPage> {
    const fault = await this.#enter("list", directoryKey, options.signal);
    const page = await this.#inner.list(directoryKey, options);
    this.#leave(fault);
    return fault?.kind === "wrong-size" ? { ...page, entries: page.entries.map((e) => resized(e, fault)) } : page;
  }

  async head(key: string, options: CallOptions = {}): Promise<ListEntry | undefined> {
    const fault = await this.#enter("head", key, options.signal);
    const entry = await this.#inner.head(key, options);
    this.#leave(fault);
    return fault?.kind === "wrong-size" && entry !== undefined ? resized(entry, fault) : entry;
  }

  async read(key: string, options: ReadOptions): Promise<void> {
    this.#readsActive++;
    this.#readsActiveMax = Math.max(this.#readsActiveMax, this.#readsActive);
    try {
      const fault = await this.#enter("read", key, options.signal);
      if (fault?.kind === "truncate" || fault?.kind === "short" || fault?.kind === "change") {
        await this.#readPart(key, options, fault);
      } else {
        let at = 0;
        await this.#inner.read(key, {
          ...options,
          onChunk: (chunk) => {
            const bytes = fault?.kind === "flip" ? flipped(chunk, fault.atByte - at) : chunk;
            at += chunk.length;
            this.#count(key, chunk.length);
            return options.onChunk(bytes);
          },
        });
      }
      this.#leave(fault);
    } finally {
      this.#readsActive--;
    }
  }

  async write(key: string, options: WriteOptions): Promise<ObjectInfo> {
    const fault = await this.#enter("write", key, options.signal);
    const info = await this.#inner.write(key, options);
    this.#leave(fault);
    return info;
  }

  async makeDirectory(key: string, options: CallOptions = {}): Promise<void> {
    const fault = await this.#enter("makeDirectory", key, options.signal);
    await this.#inner.makeDirectory(key, options);
    this.#leave(fault);
  }

  async remove(key: string, options: CallOptions = {}): Promise<void> {
    const fault = await this.#enter("remove", key, options.signal);
    await this.#inner.remove(key, options);
    this.#leave(fault);
  }

  async removeDirectory(key: string, options: CallOptions = {}): Promise<void> {
    const fault = await this.#enter("removeDirectory", key, options.signal);
    await this.#inner.removeDirectory(key, options);
    this.#leave(fault);
  }

  async rename(from: string, to: string, options: CallOptions = {}): Promise<void> {
    const fault = await this.#enter("rename", from, options.signal);
    await this.#inner.rename(from, to, options);
    this.#leave(fault);
  }

  async close(): Promise<void> {
    await this.#inner.close();
  }

  async #enter(
    operation: UnderStoreOperation,
    key: string,
    signal?: AbortSignal,
  ): Promise<UnderStoreFault | undefined> {
    this.#requests.set(operation, this.requests(operation) + 1);
    throwIfCancelled(signal);
    const fault = this.#take(operation, key);
    switch (fault?.kind) {
      case "error":
        throw fault.error;
      case "throttle":
        throw new HeadpondError("overloaded", `${this.uri} asks for fewer requests`, {
          details: { retryAfterMs: fault.retryAfterMs },
        });
      case "delay":
        await this.#clock.sleep(fault.durationMs, signal).catch((error: unknown) => {
          throwIfCancelled(signal);
          throw error;
        });
        return fault;
      case "hang":
        return new Promise((_, reject) =>
          signal?.addEventListener("abort", () => reject(cancellation(signal)), { once: true }),
        );
      default:
        return fault;
    }
  }

  #leave(fault: UnderStoreFault | undefined): void {
    if (fault?.kind === "lost-answer") {
      throw new HeadpondError("under-store", `${this.uri}: the answer was lost`, { outcome: "unknown" });
    }
  }

  #take(operation: UnderStoreOperation, key: string): UnderStoreFault | undefined {
    for (const active of [...this.#rules]) {
      const { rule } = active;
      if (rule.operation !== operation || (rule.key !== undefined && rule.key !== key)) continue;
      active.seen++;
      const turn = active.seen - (rule.skip ?? 0);
      if (turn <= 0) continue;
      if (rule.times !== undefined && turn >= rule.times) active.remove();
      return rule.fault;
    }
    return undefined;
  }

  /** Reads the first bytes of the range only, then ends as the fault says. */
  async #readPart(
    key: string,
    options: ReadOptions,
    fault: Extract<UnderStoreFault, { readonly afterBytes: number }>,
  ): Promise<void> {
    const length = Math.min(fault.afterBytes, options.length);
    if (length > 0) {
      await this.#inner.read(key, {
        ...options,
        length,
        onChunk: (chunk) => {
          this.#count(key, chunk.length);
          return options.onChunk(chunk);
        },
      });
    }
    if (fault.kind === "short" || length === options.length) return;
    const at = `${key} in ${this.uri}, after ${length} of ${options.length} bytes`;
    if (fault.kind === "truncate") throw new HeadpondError("under-store", `the body broke off: ${at}`);
    throw new HeadpondError("version-mismatch", `the content changed: ${at}`);
  }

  #count(key: string, bytes: number): void {
    this.#originBytes += bytes;
    this.#bytesByKey.set(key, (this.#bytesByKey.get(key) ?? 0) + bytes);
  }
}

function resized(entry: ListEntry, fault: Extract<UnderStoreFault, { readonly kind: "wrong-size" }>): ListEntry {
  if (entry.kind === "directory") return entry;
  return { kind: "file", info: { ...entry.info, sizeBytes: Math.max(0, entry.info.sizeBytes + fault.deltaBytes) } };
}

function flipped(chunk: Uint8Array, atByte: number): Uint8Array {
  if (atByte < 0 || atByte >= chunk.length) return chunk;
  const copy = Uint8Array.from(chunk);
  copy[atByte] = (copy[atByte] as number) ^ 1;
  return copy;
}
