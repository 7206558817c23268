/**
 * The memory of all fills: a fixed number of page-aligned buffers. Those of blocks that are stored already stay readable
 * ("warm") as long as nobody else needs them, so that the readers who waited need not go to the disk. A bounded number of them is
 * lent to sockets, which send from them without a copy; a lent buffer changes hands only when the last of its bytes is gone.
 */

import { assert } from "../base/assert.ts";
import { BufferPool } from "../io/aligned-buffer.ts";
import type { Fill } from "./fill.ts";

/** Bytes of a fill that stay as they are until they are given back, once. */
export type Loan = { readonly bytes: Uint8Array; giveBack(): void };

export class FillBuffers {
  readonly #pool: BufferPool;
  readonly #lentMax: number;
  readonly #warm = new Map<string, { readonly fill: Fill; readonly buffer: Buffer }>();
  /** Loans of each buffer that has any. */
  readonly #lent = new Map<Buffer, number>();
  /** Buffers that would be free if they were not lent. */
  readonly #awaited = new Set<Buffer>();

  /** `lentMax`: buffers that slow readers may hold on to, while fills go on with the others. */
  constructor(options: { readonly bufferBytes: number; readonly countMax: number; readonly lentMax?: number }) {
    this.#pool = new BufferPool(options);
    this.#lentMax = Math.min(options.lentMax ?? 0, options.countMax - 1);
  }

  get takenCount(): number {
    return this.#pool.takenCount - this.#warm.size;
  }

  get lentCount(): number {
    return this.#lent.size;
  }

  /** A buffer; the oldest warm block makes room if it must. */
  take(signal?: AbortSignal): Promise<Buffer> {
    const buffer = this.#pool.tryTake();
    if (buffer !== undefined) return Promise.resolve(buffer);
    this.#retireOldest();
    return this.#pool.take(signal);
  }

  give(buffer: Buffer): void {
    if (this.#lent.has(buffer)) this.#awaited.add(buffer);
    else this.#pool.give(buffer);
  }

  /** Bytes of the fill that are there already; undefined: they are not in memory, or too much is lent. */
  lend(fill: Fill, offset: number, lengthMax: number): Loan | undefined {
    const buffer = fill.buffer as Buffer | undefined;
    const bytes = fill.bytes()?.subarray(offset, offset + lengthMax);
    if (buffer === undefined || bytes === undefined || bytes.length === 0) return undefined;
    const loans = this.#lent.get(buffer) ?? 0;
    if (loans === 0 && this.#lent.size >= this.#lentMax) return undefined;
    this.#lent.set(buffer, loans + 1);
    return { bytes, giveBack: () => this.#takeBack(buffer) };
  }

  /** The fill has ended; its buffer stays readable for a while. */
  keepWarm(fill: Fill, buffer: Buffer): void {
    const key = warmKey(fill.file.id, fill.block);
    this.#retire(key);
    this.#warm.set(key, { fill, buffer });
    if (this.#pool.waiterCount > 0) this.#retireOldest();
  }

  warm(id: string, block: number): Fill | undefined {
    return this.#warm.get(warmKey(id, block))?.fill;
  }

  /** The bytes of a version are not to be trusted any more. */
  forget(id: string, block: number): void {
    this.#retire(warmKey(id, block));
  }

  #takeBack(buffer: Buffer): void {
    const loans = this.#lent.get(buffer) ?? 0;
    assert(loans > 0, "a loan is given back once");
    if (loans > 1) {
      this.#lent.set(buffer, loans - 1);
      return;
    }
    this.#lent.delete(buffer);
    if (this.#awaited.delete(buffer)) this.#pool.give(buffer);
    // Whoever waits found only lent ones to retire.
    else if (this.#pool.waiterCount > 0) this.#retireOldest();
  }

  #retireOldest(): void {
    for (const [key, { buffer }] of this.#warm) {
      if (!this.#lent.has(buffer)) return this.#retire(key);
    }
  }

  #retire(key: string): void {
    const entry = this.#warm.get(key);
    if (entry === undefined) return;
    this.#warm.delete(key);
    entry.fill.detach();
    this.give(entry.buffer);
  }
}

export function warmKey(id: string, block: number): string {
  return `${id}/${block}`;
}
