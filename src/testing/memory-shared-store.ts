/**
 * Shared storage in memory, for tests and simulations: what one process created all see. Each process has a view of its own, whose calls take
 * time, fail, or lose their answers, as the test says; a killed process's creates may still land later, as those of a real one do.
 */

import { HeadpondError } from "../base/errors.ts";
import type { Disk } from "../io/disk.ts";
import type { SharedObject, SharedStore } from "../journal/shared-store.ts";

export type SharedCall = "create" | "read" | "list" | "remove" | "upload" | "download";

/** What becomes of one call. */
export type CallFate =
  | "works"
  /** Nothing happens, and an error says so or not. */
  | "fails"
  /** It happens, and the answer is lost. */
  | "answer-lost"
  /** `create`: an error now; it happens at some time later, if the name is free then. */
  | "lands-later"
  /** `create`: it happens, and "exists" is said. */
  | "exists-after-success"
  | "no-space";

export type ViewOptions = {
  /** Before the call reaches the store. */
  readonly before?: (call: SharedCall, name: string) => Promise<void>;
  /** When it has: before the answer is heard. */
  readonly after?: (call: SharedCall, name: string) => Promise<void>;
  readonly fate?: (call: SharedCall, name: string) => CallFate;
  readonly listsNothing?: boolean;
  readonly disk?: Disk;
  readonly parallelCalls?: number;
};

export class MemorySharedStore {
  readonly objects = new Map<string, Buffer>();
  /** Creates that are under way for long. */
  readonly late: { readonly name: string; readonly bytes: Buffer }[] = [];
  /** Every successful create, in order. */
  readonly history: string[] = [];
  /** Calls so far, by kind. */
  readonly calls: Record<SharedCall, number> = { create: 0, read: 0, list: 0, remove: 0, upload: 0, download: 0 };

  view(options: ViewOptions = {}): SharedStore {
    return new View(this, options);
  }

  create(name: string, bytes: Uint8Array): "created" | "exists" {
    if (this.objects.has(name)) return "exists";
    this.objects.set(name, Buffer.from(bytes));
    this.history.push(name);
    return "created";
  }

  /** One of the creates that were under way for long lands now. */
  land(at: number): void {
    const [write] = this.late.splice(at, 1);
    if (write !== undefined) this.create(write.name, write.bytes);
  }

  names(prefix: string): string[] {
    return [...this.objects.keys()].filter((name) => name.startsWith(prefix)).sort();
  }
}

class View implements SharedStore {
  readonly uri = "memory:";
  readonly parallelCalls: number;
  readonly #store: MemorySharedStore;
  readonly #options: ViewOptions;

  constructor(store: MemorySharedStore, options: ViewOptions) {
    this.#store = store;
    this.#options = options;
    this.parallelCalls = options.parallelCalls ?? 8;
  }

  create(name: string, bytes: Uint8Array, signal?: AbortSignal): Promise<"created" | "exists"> {
    const copy = Buffer.from(bytes);
    return this.#write("create", name, copy, signal);
  }

  async read(name: string, signal?: AbortSignal): Promise<Uint8Array | undefined> {
    return this.#call("read", name, signal, () => {
      const found = this.#store.objects.get(name);
      return found === undefined ? undefined : Buffer.from(found);
    });
  }

  async list(prefix: string, after: string, limit: number, signal?: AbortSignal): Promise<readonly SharedObject[]> {
    return this.#call("list", prefix, signal, () =>
      (this.#options.listsNothing === true ? [] : this.#store.names(prefix))
        .filter((name) => name > after && !name.slice(prefix.length).includes("/"))
        .slice(0, limit)
        .map((name) => ({ name, sizeBytes: this.#store.objects.get(name)?.length ?? 0 })),
    );
  }

  async remove(name: string, signal?: AbortSignal): Promise<void> {
    await this.#call("remove", name, signal, () => this.#store.objects.delete(name));
  }

  async upload(name: string, path: string, signal?: AbortSignal): Promise<"created" | "exists"> {
    const disk = this.#disk();
    const { sizeBytes } = await disk.stat(path);
    const bytes = Buffer.alloc(sizeBytes);
    const file = await disk.open(path, "read");
    try {
      await file.read(bytes, 0);
    } finally {
      await file.close();
    }
    return this.#write("upload", name, bytes, signal);
  }

  async download(name: string, path: string, signal?: AbortSignal): Promise<{ readonly bytes: number } | undefined> {
    const found = await this.#call("download", name, signal, () => this.#store.objects.get(name));
    if (found === undefined) return undefined;
    const file = await this.#disk().open(path, "create");
    try {
      await file.write(found, 0);
      await file.datasync();
    } finally {
      await file.close();
    }
    return { bytes: found.length };
  }

  async close(): Promise<void> {}

  async #write(
    call: "create" | "upload",
    name: string,
    bytes: Buffer,
    signal: AbortSignal | undefined,
  ): Promise<"created" | "exists"> {
    const { before, after, fate } = this.#options;
    this.#store.calls[call]++;
    await before?.(call, name);
    const decided = fate?.(call, name) ?? "works";
    if (decided === "no-space") throw new HeadpondError("no-space", `${name}: the store is full`);
    if (decided === "fails") throw unanswered(call, name);
    if (decided === "lands-later") {
      this.#store.late.push({ name, bytes });
      throw unanswered(call, name);
    }
    const answer = this.#store.create(name, bytes);
    await after?.(call, name);
    if (signal?.aborted) throw unanswered(call, name);
    if (decided === "answer-lost") throw unanswered(call, name);
    return decided === "exists-after-success" ? "exists" : answer;
  }

  async #call<T>(call: SharedCall, name: string, signal: AbortSignal | undefined, run: () => T): Promise<T> {
    const { before, after, fate } = this.#options;
    this.#store.calls[call]++;
    await before?.(call, name);
    const decided = fate?.(call, name) ?? "works";
    if (decided === "fails") throw unanswered(call, name);
    const result = run();
    await after?.(call, name);
    if (decided === "answer-lost") throw unanswered(call, name);
    signal?.throwIfAborted();
    return result;
  }

  #disk(): Disk {
    const { disk } = this.#options;
    if (disk === undefined) throw new HeadpondError("unsupported", "this view of the store has no disk");
    return disk;
  }
}

function unanswered(call: SharedCall, name: string): HeadpondError {
  return new HeadpondError("unavailable", `${call} ${name}: no answer`, { outcome: "unknown" });
}
