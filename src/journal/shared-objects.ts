/**
 * Creates and reads the objects of one cluster in shared storage. What an answer of the storage means by itself is nothing: whoever creates
 * reads back until it is known whose the object is. Calls that fail for a while are repeated with growing waits until the signal fires.
 */

import { HeadpondError, isHeadpondError, toHeadpondError } from "../base/errors.ts";
import type { ClusterId } from "../base/ids.ts";
import type { Random } from "../base/random.ts";
import type { Clock } from "../io/clock.ts";
import type { Entry } from "./journal.ts";
import { decodeObject, encodeObject, type ObjectKind, type SharedObjectContent } from "./shared-object.ts";
import type { SharedStore } from "./shared-store.ts";

export type RetryLimits = {
  /** Before the second attempt; each further wait is twice as long. */
  readonly retryMinMs: number;
  readonly retryMaxMs: number;
};

export const defaultRetryLimits: RetryLimits = { retryMinMs: 10, retryMaxMs: 1000 };

export type SharedObjectsOptions = {
  readonly store: SharedStore;
  readonly clusterId: ClusterId;
  readonly clock: Clock;
  readonly random: Random;
  readonly limits: RetryLimits;
  /** A call failed and is repeated; once it works again, `undefined`. */
  readonly onTrouble: (error: HeadpondError | undefined) => void;
};

/** Whose object has the name now: what was to be created, or another's. */
export type Created = { readonly own: true } | { readonly own: false; readonly found: SharedObjectContent };

export class SharedObjects {
  readonly store: SharedStore;
  readonly clusterId: ClusterId;
  readonly #options: SharedObjectsOptions;
  #isTroubled = false;

  constructor(options: SharedObjectsOptions) {
    this.#options = options;
    this.store = options.store;
    this.clusterId = options.clusterId;
  }

  encode(
    kind: ObjectKind,
    name: string,
    mark: string,
    fields: Readonly<Record<string, string | number | boolean>>,
    entries?: readonly Entry[],
  ): Buffer {
    return encodeObject(kind, { cluster: this.clusterId, name, mark, ...fields }, entries);
  }

  decode(name: string, bytes: Uint8Array): SharedObjectContent {
    return decodeObject(name, bytes, this.clusterId);
  }

  /** One attempt. Throws what the store throws, and `corrupt`. */
  async readOnce(name: string, signal: AbortSignal): Promise<SharedObjectContent | undefined> {
    const bytes = await this.store.read(name, signal);
    return bytes === undefined ? undefined : this.decode(name, bytes);
  }

  /** Until it is known. Throws `corrupt`, `cancelled`. */
  read(name: string, signal: AbortSignal): Promise<SharedObjectContent | undefined> {
    return this.repeat(() => this.readOnce(name, signal), signal);
  }

  /**
   * Until it is known whose the object is. Throws `denied`, and, unless the store is waited for that has no room, `no-space` when nothing was
   * written by any attempt; `corrupt`, `cancelled` (then the outcome is unknown).
   */
  async create(
    name: string,
    bytes: Uint8Array,
    mark: string,
    signal: AbortSignal,
    options: { readonly waitsForSpace: boolean } = { waitsForSpace: true },
  ): Promise<Created> {
    let isUnknown = false;
    return this.repeat(async () => {
      let answer: "created" | "exists";
      try {
        answer = await this.store.create(name, bytes, signal);
      } catch (error) {
        const isRefused = isHeadpondError(error, "no-space", "denied") && error.outcome === "none";
        const mayWait = options.waitsForSpace && isHeadpondError(error, "no-space");
        if (isRefused && !isUnknown && !mayWait) throw error;
        if (!isRefused) isUnknown = true;
        if (signal.aborted) throw error;
        const found = await this.readOnce(name, signal);
        if (found !== undefined) return whose(found, mark);
        throw new HeadpondError("unavailable", `${name}: ${toHeadpondError(error).message}`, { cause: error });
      }
      if (answer === "created") return { own: true };
      const found = await this.readOnce(name, signal);
      if (found !== undefined) return whose(found, mark);
      // It was removed meanwhile: the next attempt tells.
      throw new HeadpondError("unavailable", `${name} is said to exist and cannot be read`);
    }, signal);
  }

  /** Repeats what fails for a while. */
  async repeat<T>(attempt: () => Promise<T>, signal: AbortSignal): Promise<T> {
    const { clock, random } = this.#options;
    const { retryMinMs, retryMaxMs } = this.#options.limits;
    for (let waitMs = retryMinMs; ; waitMs = Math.min(retryMaxMs, waitMs * 2)) {
      signal.throwIfAborted();
      try {
        const result = await attempt();
        this.#troubled(undefined);
        return result;
      } catch (cause) {
        const error = toHeadpondError(cause);
        if (signal.aborted || !error.retryable || error.code === "no-space") throw error;
        this.#troubled(error);
      }
      await clock.sleep(waitMs * (0.5 + random.float()), signal);
    }
  }

  #troubled(error: HeadpondError | undefined): void {
    if (error === undefined && !this.#isTroubled) return;
    this.#isTroubled = error !== undefined;
    this.#options.onTrouble(error);
  }
}

function whose(found: SharedObjectContent, mark: string): Created {
  return found.head.mark === mark ? { own: true } : { own: false, found };
}
