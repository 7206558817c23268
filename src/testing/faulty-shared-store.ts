/**
 * A shared store that misbehaves as told, around any other: calls that fail, whose answers are lost, that land later, that lie,
 * that hang; listings that are old. A fault is aimed by operation and name, may skip the first calls and strike a given number of
 * times; or chance decides, from a seed. Objects themselves it never harms: no storage that breaks that promise can keep a log.
 */

import { HeadpondError } from "../base/errors.ts";
import type { Random } from "../base/random.ts";
import type { Clock } from "../io/clock.ts";
import type { SharedObject, SharedStore } from "../journal/shared-store.ts";

export type StoreOperation = "create" | "read" | "list" | "remove" | "upload" | "download";

export type StoreEffect =
  /** Not done: `unavailable` by default, of outcome "none". `no-space` is a full store, `denied` lost rights. */
  | { readonly kind: "fail"; readonly code?: "unavailable" | "no-space" | "denied" }
  /** Done, but the caller is told `unavailable` with the outcome "unknown". */
  | { readonly kind: "lost-answer" }
  /** Not done now: the caller is told `unavailable` with the outcome "unknown", and it is done when `until` is fulfilled. */
  | { readonly kind: "lands-later"; readonly until: Promise<void> }
  /** A create that succeeds and is told that the name exists, as a repeated request is. */
  | { readonly kind: "lies-exists" }
  | { readonly kind: "slow"; readonly delayMs: number }
  /** Begins when `until` is fulfilled, or never: the caller's signal ends it. */
  | { readonly kind: "hang"; readonly until: Promise<void> }
  /** A listing as the first one of this prefix was. */
  | { readonly kind: "stale" };

export type StoreFault = {
  readonly operation: StoreOperation;
  /** Names (of a listing: prefixes) that contain this text, or match; absent: all. */
  readonly name?: string | RegExp;
  readonly skip?: number;
  /** Absent: for ever. */
  readonly times?: number;
  readonly effect: StoreEffect;
};

/** Probabilities of each call. */
export type StoreChaos = {
  readonly random: Random;
  readonly fail: number;
  readonly lostAnswer: number;
  readonly landsLater: number;
  readonly liesExists: number;
  readonly staleList: number;
  readonly slow: number;
  readonly slowMsMax: number;
};

type ArmedFault = { readonly fault: StoreFault; seenCount: number };

export class FaultySharedStore implements SharedStore {
  readonly uri: string;
  readonly parallelCalls: number;
  readonly #store: SharedStore;
  readonly #clock: Clock;
  readonly #faults = new Set<ArmedFault>();
  readonly #firstListings = new Map<string, readonly SharedObject[]>();
  #chaos: StoreChaos | undefined;

  constructor({ store, clock }: { readonly store: SharedStore; readonly clock: Clock }) {
    this.uri = store.uri;
    this.parallelCalls = store.parallelCalls;
    this.#store = store;
    this.#clock = clock;
  }

  /** Arms a fault; the answer disarms it. Of several that match, the first armed one strikes. */
  inject(fault: StoreFault): () => void {
    const armed: ArmedFault = { fault, seenCount: 0 };
    this.#faults.add(armed);
    return () => void this.#faults.delete(armed);
  }

  /** From now on chance decides, too; `undefined`: no more. */
  chaos(chaos: StoreChaos | undefined): void {
    this.#chaos = chaos;
  }

  /** Disarms everything. What is to land later still does. */
  heal(): void {
    this.#faults.clear();
    this.#chaos = undefined;
  }

  create(name: string, bytes: Uint8Array, signal?: AbortSignal): Promise<"created" | "exists"> {
    return this.#run("create", name, signal, (own) => this.#store.create(name, bytes, own));
  }

  read(name: string, signal?: AbortSignal): Promise<Uint8Array | undefined> {
    return this.#run("read", name, signal, (own) => this.#store.read(name, own));
  }

  async list(prefix: string, after: string, limit: number, signal?: AbortSignal): Promise<readonly SharedObject[]> {
    const effect = this.#strike("list", prefix);
    const old = this.#firstListings.get(prefix);
    if (effect?.kind === "stale" && old !== undefined) return old.filter(({ name }) => name > after).slice(0, limit);
    const found = await this.#apply("list", prefix, effect, signal, (own) =>
      this.#store.list(prefix, after, limit, own),
    );
    if (old === undefined && after === "") this.#firstListings.set(prefix, found);
    return found;
  }

  remove(name: string, signal?: AbortSignal): Promise<void> {
    return this.#run("remove", name, signal, (own) => this.#store.remove(name, own));
  }

  upload(name: string, path: string, signal?: AbortSignal): Promise<"created" | "exists"> {
    return this.#run("upload", name, signal, (own) => this.#store.upload(name, path, own));
  }

  download(name: string, path: string, signal?: AbortSignal): Promise<{ readonly bytes: number } | undefined> {
    return this.#run("download", name, signal, (own) => this.#store.download(name, path, own));
  }

  close(): Promise<void> {
    return this.#store.close();
  }

  #run<T>(
    operation: StoreOperation,
    name: string,
    signal: AbortSignal | undefined,
    call: (signal: AbortSignal | undefined) => Promise<T>,
  ): Promise<T> {
    return this.#apply(operation, name, this.#strike(operation, name), signal, call);
  }

  async #apply<T>(
    operation: StoreOperation,
    name: string,
    effect: StoreEffect | undefined,
    signal: AbortSignal | undefined,
    call: (signal: AbortSignal | undefined) => Promise<T>,
  ): Promise<T> {
    const fail = (outcome: "none" | "unknown", code: "unavailable" | "no-space" | "denied" = "unavailable"): never => {
      throw new HeadpondError(code, `${operation} ${name}: injected`, { outcome });
    };
    switch (effect?.kind) {
      case "fail":
        return fail("none", effect.code);
      case "lost-answer":
        await call(signal);
        return fail("unknown");
      case "lands-later":
        // Nobody is left to hear of its fate: it takes place in storage, after its writer has given up.
        effect.until.then(() => call(undefined)).catch(() => {});
        return fail("unknown");
      case "lies-exists": {
        const answer = await call(signal);
        return answer === "created" ? ("exists" as T) : answer;
      }
      case "slow":
        await this.#clock.sleep(effect.delayMs, signal);
        return call(signal);
      case "hang":
        await Promise.race([effect.until, aborted(signal)]);
        return call(signal);
      case "stale":
      case undefined:
        return call(signal);
    }
  }

  #strike(operation: StoreOperation, name: string): StoreEffect | undefined {
    for (const armed of this.#faults) {
      const { fault } = armed;
      if (fault.operation !== operation) continue;
      if (typeof fault.name === "string" ? !name.includes(fault.name) : fault.name?.test(name) === false) continue;
      const turn = armed.seenCount++ - (fault.skip ?? 0);
      if (turn >= 0 && turn < (fault.times ?? Number.POSITIVE_INFINITY)) return fault.effect;
    }
    return this.#chance(operation);
  }

  #chance(operation: StoreOperation): StoreEffect | undefined {
    if (this.#chaos === undefined) return undefined;
    const { random, fail, lostAnswer, landsLater, liesExists, staleList, slow, slowMsMax } = this.#chaos;
    const changes = operation === "create" || operation === "upload" || operation === "remove";
    if (random.chance(fail)) return { kind: "fail" };
    if (changes && random.chance(lostAnswer)) return { kind: "lost-answer" };
    if (operation === "create" && random.chance(landsLater)) {
      return { kind: "lands-later", until: this.#clock.sleep(random.between(1, slowMsMax)) };
    }
    if (operation === "create" && random.chance(liesExists)) return { kind: "lies-exists" };
    if (operation === "list" && random.chance(staleList)) return { kind: "stale" };
    if (random.chance(slow)) return { kind: "slow", delayMs: random.between(1, slowMsMax) };
    return undefined;
  }
}

function aborted(signal: AbortSignal | undefined): Promise<void> {
  return new Promise((_, reject) => {
    const onAbort = (): void =>
      reject(new HeadpondError("cancelled", "cancelled while the store hung", { outcome: "unknown" }));
    if (signal?.aborted) onAbort();
    signal?.addEventListener("abort", onAbort, { once: true });
  });
}
