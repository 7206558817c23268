/**
 * Memory for O_DIRECT and for bulk transfer: page-aligned, outside the garbage collector's heap, used again and again.
 * Plain JavaScript has one source of page-aligned memory, WebAssembly.Memory; its pages are 64 KiB.
 */

import { assert, present } from "../base/assert.ts";
import { HeadpondError } from "../base/errors.ts";
import { registerMemory } from "./in-place-hash.ts";

/** TypeScript knows it only together with everything else of a browser. */
declare const WebAssembly: {
  readonly Memory: new (options: { readonly initial: number }) => { readonly buffer: ArrayBuffer };
};

const wasmPageBytes = 64 * 1024;
export const directAlignmentBytes = 4096;

/** Zeroed memory that begins on a page boundary. Reserves address space generously: make few, keep them. */
export function alignedBuffer(lengthBytes: number): Buffer {
  const memory = new WebAssembly.Memory({ initial: Math.ceil(lengthBytes / wasmPageBytes) });
  registerMemory(memory);
  return Buffer.from(memory.buffer, 0, lengthBytes);
}

export type BufferPoolOptions = {
  /** Length of every buffer, a multiple of 4096. */
  readonly bufferBytes: number;
  /** Buffers that exist at most. They are made on demand and kept. */
  readonly countMax: number;
  /** Askers that may wait for a buffer; the next one is refused with `overloaded`. */
  readonly waitersMax?: number;
};

type Waiter = { readonly resolve: (buffer: Buffer) => void };

/** A fixed budget of equal buffers, handed out first come, first served. */
export class BufferPool {
  readonly bufferBytes: number;
  readonly countMax: number;
  readonly #waitersMax: number;
  readonly #free: Buffer[] = [];
  readonly #taken = new Set<Buffer>();
  /** In order of arrival; an aborted one is deleted at once. */
  readonly #waiters = new Set<Waiter>();

  constructor(options: BufferPoolOptions) {
    assert(options.bufferBytes > 0 && options.countMax > 0, "a buffer pool needs buffers");
    assert(options.bufferBytes % directAlignmentBytes === 0, "the buffers of a pool are multiples of 4096 bytes");
    this.bufferBytes = options.bufferBytes;
    this.countMax = options.countMax;
    this.#waitersMax = options.waitersMax ?? 10_000;
  }

  get takenCount(): number {
    return this.#taken.size;
  }

  get waiterCount(): number {
    return this.#waiters.size;
  }

  /** A buffer with arbitrary old content, or `undefined` if all are in use. */
  tryTake(): Buffer | undefined {
    let buffer = this.#free.pop();
    if (buffer === undefined && this.#taken.size < this.countMax) buffer = alignedBuffer(this.bufferBytes);
    if (buffer !== undefined) this.#taken.add(buffer);
    return buffer;
  }

  /** A buffer, as soon as one is free. Rejects with the signal's reason, or `overloaded`. */
  take(signal?: AbortSignal): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) {
        reject(signal.reason as Error);
        return;
      }
      const buffer = this.tryTake();
      if (buffer !== undefined) {
        resolve(buffer);
        return;
      }
      if (this.#waiters.size >= this.#waitersMax) {
        const message = `all ${this.countMax} buffers of ${this.bufferBytes} bytes are in use and ${this.#waitersMax} wait`;
        reject(new HeadpondError("overloaded", message));
        return;
      }
      const onAbort = (): void => {
        this.#waiters.delete(waiter);
        reject(signal?.reason as Error);
      };
      const waiter: Waiter = {
        resolve: (given) => {
          signal?.removeEventListener("abort", onAbort);
          resolve(given);
        },
      };
      this.#waiters.add(waiter);
      signal?.addEventListener("abort", onAbort, { once: true });
    });
  }

  /** Back into the pool; nobody may touch it afterwards. Giving one twice is a defect. */
  give(buffer: Buffer): void {
    assert(this.#taken.has(buffer), "a buffer came back that this pool has not handed out");
    if (this.#waiters.size > 0) {
      const waiter = present(this.#waiters.values().next().value, "a waiter");
      this.#waiters.delete(waiter);
      waiter.resolve(buffer);
      return;
    }
    this.#taken.delete(buffer);
    this.#free.push(buffer);
  }
}
