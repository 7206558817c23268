/**
 * Shared storage as one simulated process sees it: requests and answers take time, get lost, come twice or much too late, and a create of a
 * process that is dead by then lands all the same. What is stored outlives all of them (memory-shared-store.ts).
 */

import { HeadpondError } from "../base/errors.ts";
import type { Disk } from "../io/disk.ts";
import type { SharedObject, SharedStore } from "../journal/shared-store.ts";
import type { MemorySharedStore } from "./memory-shared-store.ts";
import type { SimProcess } from "./sim-world.ts";

/** Of the store, for all or for one machine. Probabilities are of one call. */
export class StoreTroubles {
  /** One way, at most. */
  delayMs = 2;
  /** The request gets lost: nothing happens, and nobody says so. */
  lostRequest = 0;
  lostAnswer = 0;
  /** A request is under way for seconds before it takes effect. */
  lateRequest = 0;
  /** "exists" of a create that has just succeeded. */
  existsAfterSuccess = 0;
  /** A listing lacks some of what is there. */
  staleListing = 0;
  /** Until then nothing gets through. */
  downUntilMs = 0;
  fullUntilMs = 0;
}

export type SimSharedStoreOptions = {
  readonly store: MemorySharedStore;
  readonly process: SimProcess;
  readonly disk: Disk;
  /** For all masters, and for this one. */
  readonly troubles: readonly StoreTroubles[];
  readonly parallelCalls: number;
  /** The class that the caller knows: that of the product, or of a copy of it. */
  readonly errors?: typeof HeadpondError;
};

/** A call that was not answered after so long never will be. */
const callTimeoutMs = 250;
const lateMs = 4000;

export class SimSharedStore implements SharedStore {
  readonly uri = "simulated:";
  readonly parallelCalls: number;
  readonly #options: SimSharedStoreOptions;
  readonly #errors: typeof HeadpondError;

  constructor(options: SimSharedStoreOptions) {
    this.#options = options;
    this.parallelCalls = options.parallelCalls;
    this.#errors = options.errors ?? HeadpondError;
  }

  create(name: string, bytes: Uint8Array, signal?: AbortSignal): Promise<"created" | "exists"> {
    const copy = Buffer.from(bytes);
    return this.#create(name, copy, signal);
  }

  async read(name: string, signal?: AbortSignal): Promise<Uint8Array | undefined> {
    return this.#call(name, signal, () => {
      const found = this.#options.store.objects.get(name);
      return found === undefined ? undefined : Buffer.from(found);
    });
  }

  async list(prefix: string, after: string, limit: number, signal?: AbortSignal): Promise<readonly SharedObject[]> {
    const { store, process } = this.#options;
    const { random } = process.world;
    const isStale = random.chance(this.#worst("staleListing"));
    return this.#call(prefix, signal, () =>
      store
        .names(prefix)
        .filter((name) => name > after && !name.slice(prefix.length).includes("/"))
        .filter(() => !isStale || random.chance(0.7))
        .slice(0, limit)
        .map((name) => ({ name, sizeBytes: store.objects.get(name)?.length ?? 0 })),
    );
  }

  async remove(name: string, signal?: AbortSignal): Promise<void> {
    await this.#call(name, signal, () => this.#options.store.objects.delete(name));
  }

  async upload(name: string, path: string, signal?: AbortSignal): Promise<"created" | "exists"> {
    const { disk } = this.#options;
    const { sizeBytes } = await disk.stat(path);
    const bytes = Buffer.alloc(sizeBytes);
    const file = await disk.open(path, "read");
    try {
      await file.read(bytes, 0);
    } finally {
      await file.close();
    }
    return this.#create(name, bytes, signal);
  }

  async download(name: string, path: string, signal?: AbortSignal): Promise<{ readonly bytes: number } | undefined> {
    const { disk, store } = this.#options;
    const found = await this.#call(name, signal, () => store.objects.get(name));
    if (found === undefined) return undefined;
    const file = await disk.open(path, "create");
    try {
      await file.write(found, 0);
      await file.datasync();
    } finally {
      await file.close();
    }
    return { bytes: found.length };
  }

  async close(): Promise<void> {}

  #create(name: string, bytes: Buffer, signal: AbortSignal | undefined): Promise<"created" | "exists"> {
    const { store, process } = this.#options;
    const { world } = process;
    const isDoubtful = world.random.chance(this.#worst("existsAfterSuccess"));
    return this.#call(name, signal, () => {
      if (this.#worst("fullUntilMs") > world.nowMs) throw new this.#errors("no-space", `${name}: the store is full`);
      const answer = store.create(name, bytes);
      return isDoubtful ? "exists" : answer;
    });
  }

  /** What takes effect does so once, whoever is left to hear the answer. */
  #call<T>(name: string, signal: AbortSignal | undefined, effect: () => T): Promise<T> {
    const { process } = this.#options;
    const { world } = process;
    const { random } = world;
    return new Promise((resolve, reject) => {
      if (!process.isAlive) return;
      const unanswered = (): HeadpondError =>
        new this.#errors("unavailable", `${name}: no answer`, { outcome: "unknown" });
      if (signal?.aborted === true) {
        reject(new this.#errors("cancelled", `${name}: cancelled`));
        return;
      }
      let isOver = false;
      const end = (settle: () => void): void => {
        if (isOver) return;
        isOver = true;
        signal?.removeEventListener("abort", onAbort);
        settle();
      };
      const onAbort = (): void =>
        end(() => reject(new this.#errors("cancelled", `${name}: cancelled`, { outcome: "unknown" })));
      signal?.addEventListener("abort", onAbort);
      process.after(callTimeoutMs, () => end(() => reject(unanswered())), true);
      const isDown = this.#worst("downUntilMs") > world.nowMs;
      if (isDown || random.chance(this.#worst("lostRequest"))) return;
      const delayMs = this.#worst("delayMs");
      const isLate = random.chance(this.#worst("lateRequest"));
      const answerIsLost = random.chance(this.#worst("lostAnswer"));
      const goMs = random.float() * (isLate ? lateMs : delayMs);
      world.events.after(goMs, () => {
        let result: T;
        try {
          result = effect();
        } catch (error) {
          process.after(random.float() * delayMs, () => end(() => reject(error as HeadpondError)));
          return;
        }
        if (!answerIsLost) process.after(random.float() * delayMs, () => end(() => resolve(result)));
      });
    });
  }

  #worst(what: keyof StoreTroubles): number {
    return Math.max(...this.#options.troubles.map((troubles) => troubles[what]));
  }
}
