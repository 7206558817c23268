/**
 * The smallest state machine that shows every mistake of a journal: its state is the list of all that was applied.
 * For the contract suite and the tests of journals; in production the namespace takes its place.
 */

import { assert } from "../base/assert.ts";
import type { Disk } from "../io/disk.ts";
import { xxh64Hex } from "../io/hash.ts";
import type { Entry, StateMachine } from "./journal.ts";

export type Applied = { readonly index: number; readonly term: number; readonly text: string };

export class ListMachine implements StateMachine<string> {
  readonly #disk: Disk;
  /** Everything that was applied, in order; entry `index` is at `index - 1`. */
  readonly list: Applied[] = [];
  /** How often the state was replaced. */
  resets = 0;

  constructor(disk: Disk) {
    this.#disk = disk;
  }

  get applied(): { readonly index: number; readonly term: number } {
    const { index, term } = this.list.at(-1) ?? { index: 0, term: 0 };
    return { index, term };
  }

  apply(entries: readonly Entry[]): string[] {
    return entries.map(({ index, term, payload }) => {
      assert(index === this.list.length + 1, `entry ${index} was applied after ${this.list.length}`);
      const text = Buffer.from(payload).toString("utf8");
      this.list.push({ index, term, text });
      return resultOf(text);
    });
  }

  digest(): string {
    return xxh64Hex(Buffer.from(JSON.stringify(this.list), "utf8"));
  }

  async writeCheckpoint(path: string, signal?: AbortSignal): Promise<{ index: number; term: number; digest: string }> {
    const about = { ...this.applied, digest: this.digest() };
    const bytes = Buffer.from(JSON.stringify(this.list), "utf8");
    const file = await this.#disk.open(path, "create");
    try {
      await file.write(bytes, 0);
      await file.datasync();
      signal?.throwIfAborted();
    } finally {
      await file.close();
    }
    return about;
  }

  async reset(path: string | undefined): Promise<void> {
    this.resets++;
    this.list.length = 0;
    if (path === undefined) return;
    const { sizeBytes } = await this.#disk.stat(path);
    const bytes = Buffer.alloc(sizeBytes);
    const file = await this.#disk.open(path, "read");
    try {
      await file.read(bytes, 0);
    } finally {
      await file.close();
    }
    this.list.push(...(JSON.parse(bytes.toString("utf8")) as Applied[]));
  }
}

export function resultOf(text: string): string {
  return `result of ${text}`;
}
