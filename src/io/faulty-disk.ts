/**
 * A disk that fails on demand, around any other. A fault is aimed by operation and path, may skip the first calls and
 * strike a given number of times. Calls on the calling thread (`readSync`, `writeSync`) meet the faults of `read` and
 * `write`, except that they cannot be slow.
 */

import type { Clock } from "./clock.ts";
import type { Disk, DiskFile, DiskLock, FileStat, OpenMode, OpenOptions } from "./disk.ts";

export type DiskOperation =
  | "open"
  | "read"
  | "write"
  | "datasync"
  | "truncate"
  | "stat"
  | "list"
  | "makeDirectory"
  | "rename"
  | "link"
  | "unlink"
  | "remove"
  | "syncDirectory"
  | "space"
  | "lock";

export type FaultEffect =
  /** The operation is not done and fails with Node's `code`, e.g. `EIO`, `ENOSPC`. */
  | { readonly kind: "error"; readonly code: string }
  /** The operation is done, then fails all the same: nobody knows. */
  | { readonly kind: "error-after"; readonly code: string }
  /** The operation begins later. */
  | { readonly kind: "slow"; readonly delayMs: number }
  /** The operation begins when `until` is fulfilled. */
  | { readonly kind: "hang"; readonly until: Promise<void> }
  /** Reads only: one bit of what was read is wrong, at `position` in the file, if the read covers it. */
  | { readonly kind: "flip"; readonly position: number };

export type Fault = {
  readonly operation: DiskOperation;
  /** Paths that contain this text, or match; absent: all. */
  readonly path?: string | RegExp;
  /** How many matching calls pass before the fault strikes. */
  readonly skip?: number;
  /** How often it strikes; absent: for ever. */
  readonly times?: number;
  readonly effect: FaultEffect;
};

type ArmedFault = { readonly fault: Fault; seenCount: number };

export class FaultyDisk implements Disk {
  readonly #disk: Disk;
  readonly #clock: Clock;
  readonly #faults = new Set<ArmedFault>();

  constructor({ disk, clock }: { readonly disk: Disk; readonly clock: Clock }) {
    this.#disk = disk;
    this.#clock = clock;
  }

  /** Arms a fault; the answer disarms it. Of several that match, all strike, in the order in which they were armed. */
  inject(fault: Fault): () => void {
    const armed: ArmedFault = { fault, seenCount: 0 };
    this.#faults.add(armed);
    return () => void this.#faults.delete(armed);
  }

  /** Disarms everything. */
  heal(): void {
    this.#faults.clear();
  }

  async open(path: string, mode: OpenMode, options?: OpenOptions): Promise<DiskFile> {
    const file = await this.#run("open", path, () => this.#disk.open(path, mode, options));
    return new FaultyFile(file, {
      run: (operation, body) => this.#run(operation, path, body),
      strike: (operation) => this.#strike(operation, path),
    });
  }

  stat(path: string): Promise<FileStat> {
    return this.#run("stat", path, () => this.#disk.stat(path));
  }

  realPath(path: string): Promise<string> {
    return this.#run("stat", path, () => this.#disk.realPath(path));
  }

  list(path: string): Promise<readonly string[]> {
    return this.#run("list", path, () => this.#disk.list(path));
  }

  makeDirectory(path: string): Promise<void> {
    return this.#run("makeDirectory", path, () => this.#disk.makeDirectory(path));
  }

  rename(from: string, to: string): Promise<void> {
    return this.#run("rename", from, () => this.#disk.rename(from, to));
  }

  link(from: string, to: string): Promise<void> {
    return this.#run("link", to, () => this.#disk.link(from, to));
  }

  unlink(path: string): Promise<void> {
    return this.#run("unlink", path, () => this.#disk.unlink(path));
  }

  removeDirectory(path: string): Promise<void> {
    return this.#run("remove", path, () => this.#disk.removeDirectory(path));
  }

  removeTree(path: string): Promise<void> {
    return this.#run("remove", path, () => this.#disk.removeTree(path));
  }

  syncDirectory(path: string): Promise<void> {
    return this.#run("syncDirectory", path, () => this.#disk.syncDirectory(path));
  }

  space(path: string): Promise<{ readonly freeBytes: number; readonly totalBytes: number }> {
    return this.#run("space", path, () => this.#disk.space(path));
  }

  lock(path: string): Promise<DiskLock | undefined> {
    return this.#run("lock", path, () => this.#disk.lock(path));
  }

  async #run<T>(
    operation: DiskOperation,
    path: string,
    body: (effects: readonly FaultEffect[]) => Promise<T>,
  ): Promise<T> {
    const effects = this.#strike(operation, path);
    for (const effect of effects) {
      if (effect.kind === "slow") await this.#clock.sleep(effect.delayMs);
      if (effect.kind === "hang") await effect.until;
    }
    throwFirst(effects, "error", operation, path);
    const result = await body(effects);
    throwFirst(effects, "error-after", operation, path);
    return result;
  }

  #strike(operation: DiskOperation, path: string): readonly FaultEffect[] {
    const effects: FaultEffect[] = [];
    for (const armed of this.#faults) {
      const { fault } = armed;
      if (fault.operation !== operation) continue;
      if (typeof fault.path === "string" ? !path.includes(fault.path) : fault.path?.test(path) === false) continue;
      const turn = armed.seenCount++ - (fault.skip ?? 0);
      if (turn >= 0 && turn < (fault.times ?? Number.POSITIVE_INFINITY)) effects.push(fault.effect);
    }
    return effects;
  }
}

type FaultGate = {
  readonly run: <T>(operation: DiskOperation, body: (effects: readonly FaultEffect[]) => Promise<T>) => Promise<T>;
  readonly strike: (operation: DiskOperation) => readonly FaultEffect[];
};

class FaultyFile implements DiskFile {
  readonly path: string;
  readonly #file: DiskFile;
  readonly #gate: FaultGate;

  constructor(file: DiskFile, gate: FaultGate) {
    this.path = file.path;
    this.#file = file;
    this.#gate = gate;
  }

  read(buffer: Uint8Array, position: number): Promise<number> {
    return this.#gate.run("read", async (effects) => {
      const count = await this.#file.read(buffer, position);
      flip(effects, buffer.subarray(0, count), position);
      return count;
    });
  }

  readSync(buffer: Uint8Array, position: number): number {
    const effects = this.#gate.strike("read");
    throwFirst(effects, "error", "read", this.path);
    const count = this.#file.readSync(buffer, position);
    flip(effects, buffer.subarray(0, count), position);
    throwFirst(effects, "error-after", "read", this.path);
    return count;
  }

  write(buffer: Uint8Array, position: number): Promise<void> {
    return this.#gate.run("write", () => this.#file.write(buffer, position));
  }

  writeSync(buffer: Uint8Array, position: number): void {
    const effects = this.#gate.strike("write");
    throwFirst(effects, "error", "write", this.path);
    this.#file.writeSync(buffer, position);
    throwFirst(effects, "error-after", "write", this.path);
  }

  datasync(): Promise<void> {
    return this.#gate.run("datasync", () => this.#file.datasync());
  }

  truncate(sizeBytes: number): Promise<void> {
    return this.#gate.run("truncate", () => this.#file.truncate(sizeBytes));
  }

  stat(): Promise<FileStat> {
    return this.#gate.run("stat", () => this.#file.stat());
  }

  /** Closing never fails: there would be nothing to do about it. */
  close(): Promise<void> {
    return this.#file.close();
  }
}

function flip(effects: readonly FaultEffect[], bytes: Uint8Array, position: number): void {
  for (const effect of effects) {
    if (effect.kind !== "flip") continue;
    const at = effect.position - position;
    const byte = bytes[at];
    if (byte !== undefined) bytes[at] = byte ^ 1;
  }
}

function throwFirst(
  effects: readonly FaultEffect[],
  kind: "error" | "error-after",
  operation: string,
  path: string,
): void {
  for (const effect of effects) {
    if (effect.kind !== kind) continue;
    throw Object.assign(new Error(`${effect.code}: injected, ${operation} '${path}'`), { code: effect.code });
  }
}
