/**
 * Changes under a mount, between the journaled intent and its journaled end: the under store is changed, then
 * `finish-intent` says how it went. Each step may be taken again: a new leader drives all open intents anew, and a change
 * that the store already has counts as done.
 *
 * A store that says no (denied, not empty, ...) undoes the intent. A store that does not answer says nothing: the
 * intent stays open, is tried again with growing pauses, and whoever waits for it is told `unknown-outcome`, never that it
 * failed. Writers end the intents of `create` themselves (`complete`); one whose session has ended will not come
 * back, and is given up; one without a session after a day.
 */

import { type ErrorDocument, HeadpondError, isHeadpondError, toHeadpondError } from "../base/errors.ts";
import type { MountId, SessionId } from "../base/ids.ts";
import type { Clock } from "../io/clock.ts";
import type { Logger } from "../io/logger.ts";
import type { Intent } from "../namespace/registry.ts";
import type { ObjectInfo, UnderStore } from "../under-store/under-store.ts";
import type { Proposer } from "./proposer.ts";

export type IntentLimits = {
  /** Intents driven at one time; others wait. */
  readonly drivenMax: number;
  /** How long a request waits for its intent, at most. */
  readonly waitMs: number;
  readonly backoffMinMs: number;
  readonly backoffMaxMs: number;
  /** A file whose writer has not come back for so long is given up. */
  readonly createMaxMs: number;
  /** Objects removed at one time, of one tree. */
  readonly removalsAtOnce: number;
};

export const intentLimits: IntentLimits = {
  drivenMax: 256,
  waitMs: 30_000,
  backoffMinMs: 200,
  backoffMaxMs: 30_000,
  createMaxMs: 24 * 3600_000,
  removalsAtOnce: 16,
};

export type IntentsDependencies = {
  readonly intent: (id: number) => Intent | undefined;
  readonly openIntents: () => readonly Intent[];
  /** Of a file of the state: to recognise it under its new name. */
  readonly sizeOf: (intent: Intent) => number | undefined;
  readonly storeOf: (mountId: MountId) => Promise<UnderStore>;
  /** False once a session was closed or has expired: its client will not come back with it. */
  readonly hasSession: (id: SessionId) => boolean;
  readonly proposer: Proposer;
  /** Called after the end of an intent is applied, e.g. to take in the etag that a rename by copying made. */
  readonly onDone?: (intent: Intent) => void;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly limits?: Partial<IntentLimits>;
};

/** How an intent ended. */
type Ending = { readonly outcome: "done" } | { readonly outcome: "undone"; readonly error: ErrorDocument };

export class Intents {
  readonly #deps: IntentsDependencies;
  readonly #limits: IntentLimits;
  readonly #driven = new Map<number, Promise<Ending>>();
  readonly #waiting: (() => void)[] = [];
  #active = 0;
  #stopping: AbortController | undefined;

  constructor(dependencies: IntentsDependencies) {
    this.#deps = dependencies;
    this.#limits = { ...intentLimits, ...dependencies.limits };
  }

  get drivenCount(): number {
    return this.#driven.size;
  }

  /** This master leads: it drives what is open. */
  start(): void {
    this.#stopping = new AbortController();
    for (const intent of this.#deps.openIntents()) if (intent.kind !== "create") void this.#drive(intent, false);
  }

  /** This master leads no more: the next leader goes on. */
  async stop(): Promise<void> {
    this.#stopping?.abort(new HeadpondError("cancelled", "this master leads no more"));
    this.#stopping = undefined;
    await Promise.allSettled(this.#driven.values());
  }

  /** Resolves when the change is complete. Throws the store's refusal, or `unknown-outcome` when it takes too long. */
  async settle(intentId: number, waitMs: number = this.#limits.waitMs): Promise<void> {
    const intent = this.#deps.intent(intentId);
    // It has ended meanwhile (somebody else waited for it): its result is that of the request.
    const driven = this.#driven.get(intentId) ?? (intent === undefined ? undefined : this.#drive(intent, true));
    if (driven === undefined) return;
    let ending: Ending | undefined;
    const timeout = new AbortController();
    try {
      ending = await Promise.race([
        driven,
        this.#deps.clock.sleep(Math.min(waitMs, this.#limits.waitMs), timeout.signal).then(() => undefined),
      ]);
    } catch (error) {
      throw unknownOutcome(intent, error);
    } finally {
      timeout.abort();
    }
    if (ending === undefined) throw unknownOutcome(intent, undefined);
    if (ending.outcome === "undone") {
      const { code, message, retryable } = ending.error;
      throw new HeadpondError(code, message, { retryable });
    }
  }

  /** Writes the empty object of a `create` whose file has no bytes. Throws as the store, or `unknown-outcome`. */
  async writeEmpty(intentId: number, waitMs: number): Promise<ObjectInfo> {
    const intent = this.#deps.intent(intentId);
    if (intent === undefined) throw unknownOutcome(undefined, undefined);
    const timeout = new AbortController();
    const timer = this.#deps.clock.timer(Math.min(waitMs, this.#limits.waitMs), () => timeout.abort());
    try {
      const store = await this.#deps.storeOf(intent.mountId);
      return await writeIfAbsent(store, intent.key, timeout.signal);
    } catch (thrown) {
      const error = toHeadpondError(thrown);
      if (error.outcome === "unknown" || error.retryable || timeout.signal.aborted)
        throw unknownOutcome(intent, thrown);
      await this.#finish(intent, { outcome: "undone", error: error.toJSON() });
      throw error;
    } finally {
      timer.clear();
    }
  }

  /** Gives up files whose writers are gone, or have been away for too long. To be called now and then. */
  async giveUpOldCreates(limit: number): Promise<number> {
    const { proposer, hasSession, onDone } = this.#deps;
    const timeMs = proposer.nowMs();
    const isOver = ({ kind, startedMs, origin }: Intent): boolean =>
      kind === "create" &&
      (timeMs - startedMs > this.#limits.createMaxMs || (origin !== undefined && !hasSession(origin.sessionId)));
    const old = this.#deps.openIntents().filter(isOver).slice(0, limit);
    for (const intent of old) {
      const { id, path } = intent;
      const error = new HeadpondError("timeout", `${path} was not completed in time`).toJSON();
      await proposer.propose({ kind: "finish-intent", intentId: id, outcome: "undone", error, timeMs });
      // Whatever of it is in the store is what the file has from now on.
      onDone?.(intent);
    }
    return old.length;
  }

  #drive(intent: Intent, isFirst: boolean): Promise<Ending> {
    const signal = this.#stopping?.signal;
    if (signal === undefined) return Promise.reject(new HeadpondError("not-leader", "this master does not lead"));
    const driven = this.#run(intent, isFirst, signal).finally(() => this.#driven.delete(intent.id));
    // Whoever waits sees the error; when nobody does, the next leader tries again.
    driven.catch(() => {});
    this.#driven.set(intent.id, driven);
    return driven;
  }

  async #run(intent: Intent, isFirst: boolean, signal: AbortSignal): Promise<Ending> {
    await this.#enter();
    try {
      let isFresh = isFirst;
      let ending: Ending | undefined;
      for (
        let backoffMs = this.#limits.backoffMinMs;
        ;
        backoffMs = Math.min(backoffMs * 2, this.#limits.backoffMaxMs)
      ) {
        signal.throwIfAborted();
        ending ??= await this.#attempt(intent, isFresh, signal);
        if (ending !== undefined && (await this.#finish(intent, ending))) return ending;
        if (this.#deps.intent(intent.id) === undefined) {
          if (ending !== undefined) return ending;
          throw new HeadpondError("unknown-outcome", `${intent.kind} of ${intent.path} was given up`);
        }
        isFresh = false;
        await this.#deps.clock.sleep(backoffMs, signal);
      }
    } finally {
      this.#leave();
    }
  }

  /** Undefined: it is not known, try again. */
  async #attempt(intent: Intent, isFresh: boolean, signal: AbortSignal): Promise<Ending | undefined> {
    try {
      const store = await this.#deps.storeOf(intent.mountId);
      switch (intent.kind) {
        case "create":
          return undefined;
        case "mkdir":
          await store.makeDirectory(intent.key, { signal });
          break;
        case "remove":
          if (!intent.isDirectory) await store.remove(intent.key, { signal });
          else if (intent.recursive === true) await this.#removeTree(store, intent.key, signal);
          else await store.removeDirectory(intent.key, { signal });
          break;
        case "rename":
          await this.#rename(store, intent, isFresh, signal);
          break;
        default:
          intent.kind satisfies never;
      }
      return { outcome: "done" };
    } catch (thrown) {
      signal.throwIfAborted();
      const error = toHeadpondError(thrown);
      if (error.outcome === "none" && !error.retryable && error.code !== "internal") {
        const message = `${intent.kind} of ${intent.path}: ${error.message}`;
        return { outcome: "undone", error: { ...error.toJSON(), message } };
      }
      this.#deps.logger.warn("an under store did not confirm a change, it is tried again", {
        intentId: intent.id,
        kind: intent.kind,
        path: intent.path,
        error,
      });
      return undefined;
    }
  }

  async #rename(store: UnderStore, intent: Intent, isFresh: boolean, signal: AbortSignal): Promise<void> {
    const { key, toKey = "" } = intent;
    if (isFresh && intent.replace === false && (await store.head(toKey, { signal })) !== undefined) {
      throw new HeadpondError("already-exists", `${toKey} is already in ${store.uri}`);
    }
    try {
      await store.rename(key, toKey, { signal });
    } catch (error) {
      // Tried again: it may have been done the last time, and the answer or this master's memory of it was lost.
      if (isFresh || !isHeadpondError(error, "not-found")) throw error;
      const target = await store.head(toKey, { signal });
      const sizeBytes = this.#deps.sizeOf(intent);
      const isSame =
        target?.kind === "file"
          ? !intent.isDirectory && (sizeBytes === undefined || target.info.sizeBytes === sizeBytes)
          : target !== undefined && intent.isDirectory;
      if (!isSame) throw error;
    }
  }

  /** Pages are removed and listed again from the start, until the directory is empty: nothing depends on continuations. */
  async #removeTree(store: UnderStore, key: string, signal: AbortSignal): Promise<void> {
    for (;;) {
      const page = await listIfThere(store, key, signal);
      if (page === undefined) return;
      if (page.entries.length === 0 && page.next === undefined) break;
      let continuation = page.next;
      let { entries } = page;
      while (entries.length === 0 && continuation !== undefined) {
        const more = await store.list(key, { continuation, signal });
        ({ entries } = more);
        continuation = more.next;
      }
      if (entries.length === 0) break;
      const files = entries.filter((entry) => entry.kind === "file");
      for (let at = 0; at < files.length; at += this.#limits.removalsAtOnce) {
        const batch = files.slice(at, at + this.#limits.removalsAtOnce);
        await Promise.all(batch.map(({ info }) => store.remove(info.key, { signal })));
      }
      for (const entry of entries) if (entry.kind === "directory") await this.#removeTree(store, entry.key, signal);
    }
    await store.removeDirectory(key, { signal });
  }

  /** False: the end could not be journaled now; it is tried again. Rejects when this master leads no more. */
  async #finish(intent: Intent, ending: Ending): Promise<boolean> {
    const { proposer, logger } = this.#deps;
    const command = { kind: "finish-intent" as const, intentId: intent.id, timeMs: proposer.nowMs() };
    try {
      await proposer.propose(
        ending.outcome === "done"
          ? { ...command, outcome: "done" }
          : { ...command, outcome: "undone", error: ending.error },
      );
    } catch (error) {
      if (!isHeadpondError(error, "overloaded", "unknown-outcome", "not-found", "invalid")) throw error;
      logger.warn("the end of a change under a mount was not journaled yet", { intentId: intent.id, error });
      return false;
    }
    this.#deps.onDone?.(intent);
    return true;
  }

  async #enter(): Promise<void> {
    if (this.#active >= this.#limits.drivenMax) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    else this.#active++;
  }

  #leave(): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#active--;
    else next();
  }
}

/** Never over what somebody else has put there; an empty object is what an earlier attempt of ours left. */
async function writeIfAbsent(store: UnderStore, key: string, signal: AbortSignal): Promise<ObjectInfo> {
  try {
    return await store.write(key, { body: emptyBody(), sizeBytes: 0, ifAbsent: true, signal });
  } catch (error) {
    if (!isHeadpondError(error, "already-exists")) throw error;
    const entry = await store.head(key, { signal });
    if (entry?.kind === "file" && entry.info.sizeBytes === 0) return entry.info;
    throw error;
  }
}

async function* emptyBody(): AsyncGenerator<Uint8Array> {}

async function listIfThere(
  store: UnderStore,
  key: string,
  signal: AbortSignal,
): Promise<Awaited<ReturnType<UnderStore["list"]>> | undefined> {
  try {
    return await store.list(key, { signal });
  } catch (error) {
    if (isHeadpondError(error, "not-found")) return undefined;
    throw error;
  }
}

function unknownOutcome(intent: Intent | undefined, cause: unknown): HeadpondError {
  const what = intent === undefined ? "the change" : `${intent.kind} of ${intent.path}`;
  return new HeadpondError(
    "unknown-outcome",
    `${what} is under way, the under store has not confirmed it yet: it goes on; ask again with the same request`,
    { cause },
  );
}
