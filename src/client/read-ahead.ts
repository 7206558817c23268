/**
 * Reading ahead for a caller that reads a file piece by piece, in order: the next windows are fetched in bulk while it
 * works on the present one. Random reads are left alone. Memory is at most `windowsMax` windows a file.
 */

import type { FileSource } from "./file-source.ts";

export type ReadAheadLimits = {
  readonly windowBytes: number;
  /** Windows kept or under way. */
  readonly windowsMax: number;
  /** Reads in a row, each beginning where the last ended, after which reading ahead begins. */
  readonly sequentialReadsMin: number;
};

const defaultLimits: ReadAheadLimits = { windowBytes: 4 * 1024 * 1024, windowsMax: 3, sequentialReadsMin: 2 };

export class ReadAhead {
  readonly #source: FileSource;
  readonly #limits: ReadAheadLimits;
  /** By number, in ascending order. */
  readonly #windows = new Map<number, Promise<Uint8Array | undefined>>();
  #stop = new AbortController();
  #nextPosition = 0;
  #sequentialReads = 0;

  constructor(source: FileSource, limits: Partial<ReadAheadLimits> = {}) {
    this.#source = source;
    this.#limits = { ...defaultLimits, ...limits };
  }

  /** Bytes of the range, which must lie within the file, in a buffer that belongs to the caller. */
  async read(position: number, length: number, signal: AbortSignal | undefined): Promise<Uint8Array> {
    const sequential = position === this.#nextPosition;
    this.#sequentialReads = sequential ? this.#sequentialReads + 1 : 0;
    this.#nextPosition = position + length;
    if (!sequential) this.#drop();
    if (this.#sequentialReads < this.#limits.sequentialReadsMin) return this.#direct(position, length, signal);
    const { windowBytes, windowsMax } = this.#limits;
    const first = Math.floor(position / windowBytes);
    const last = Math.floor((position + length - 1) / windowBytes);
    // A read as large as all windows gains nothing from them.
    if (last - first + 1 >= windowsMax) return this.#direct(position, length, signal);
    for (const number of this.#windows.keys()) if (number < first) this.#windows.delete(number);
    for (let number = first; number < first + windowsMax; number++) this.#fetch(number);
    const bytes = new Uint8Array(length);
    for (let number = first; number <= last; number++) {
      const window = await this.#windows.get(number);
      signal?.throwIfAborted();
      // A window that failed says nothing about this read yet: it has patience of its own.
      if (window === undefined) return this.#direct(position, length, signal);
      const start = Math.max(position, number * windowBytes);
      const end = Math.min(position + length, number * windowBytes + window.length);
      bytes.set(window.subarray(start - number * windowBytes, end - number * windowBytes), start - position);
    }
    return bytes;
  }

  close(): void {
    this.#drop();
  }

  #direct(position: number, length: number, signal: AbortSignal | undefined): Promise<Uint8Array> {
    return this.#source.read({ position, length, signal });
  }

  #fetch(number: number): void {
    const { windowBytes } = this.#limits;
    const position = number * windowBytes;
    if (this.#windows.has(number) || position >= this.#source.file.sizeBytes) return;
    const length = Math.min(windowBytes, this.#source.file.sizeBytes - position);
    const window = this.#source.read({ position, length, signal: this.#stop.signal }).catch(() => undefined);
    this.#windows.set(number, window);
  }

  #drop(): void {
    if (this.#windows.size === 0) return;
    this.#stop.abort();
    this.#stop = new AbortController();
    this.#windows.clear();
  }
}
