/**
 * The memory of all fills: a fixed number of page-aligned buffers. Those of blocks that are stored already stay readable
 * ("warm") as long as nobody else needs them, so that the readers who waited need not go to the disk.
 */

import { BufferPool } from "../io/aligned-buffer.ts";
import type { Fill } from "./fill.ts";

export class FillBuffers {
  readonly #pool: BufferPool;
  readonly #warm = new Map<string, { readonly fill: Fill; readonly buffer: Buffer }>();

  constructor(options: { readonly bufferBytes: number; readonly countMax: number }) {
    this.#pool = new BufferPool(options);
  }

  get takenCount(): number {
    return this.#pool.takenCount - this.#warm.size;
  }

  /** A buffer; the oldest warm block makes room if it must. */
  take(signal?: AbortSignal): Promise<Buffer> {
    const buffer = this.#pool.tryTake();
    if (buffer !== undefined) return Promise.resolve(buffer);
    this.#retireOldest();
    return this.#pool.take(signal);
  }

  give(buffer: Buffer): void {
    this.#pool.give(buffer);
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

  #retireOldest(): void {
    const oldest = this.#warm.keys().next().value;
    if (oldest !== undefined) this.#retire(oldest);
  }

  #retire(key: string): void {
    const entry = this.#warm.get(key);
    if (entry === undefined) return;
    this.#warm.delete(key);
    entry.fill.detach();
    this.#pool.give(entry.buffer);
  }
}

export function warmKey(id: string, block: number): string {
  return `${id}/${block}`;
}
