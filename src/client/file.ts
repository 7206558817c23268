/** An open file: one immutable content. What happens to its path afterwards (replaced, renamed, removed) does not touch it. */

import { HeadpondError } from "../base/errors.ts";
import type { FileDescriptor } from "../base/file.ts";
import type { FileSource } from "./file-source.ts";
import { ReadAhead } from "./read-ahead.ts";

export type ReadRequest = {
  readonly position: number;
  /** Less is answered only at the end of the file. */
  readonly length: number;
  readonly signal?: AbortSignal;
};

export type StreamRequest = {
  /** Default: the start. */
  readonly position?: number;
  /** Default: to the end. */
  readonly length?: number;
  readonly signal?: AbortSignal;
  /** How long to wait for a byte when workers fail or are busy. */
  readonly patienceMs?: number;
};

export class HeadpondFile implements AsyncDisposable {
  readonly descriptor: FileDescriptor;
  readonly #source: FileSource;
  readonly #readAhead: ReadAhead;
  #closed = false;

  constructor(source: FileSource) {
    this.descriptor = source.file;
    this.#source = source;
    this.#readAhead = new ReadAhead(source);
  }

  get sizeBytes(): number {
    return this.descriptor.sizeBytes;
  }

  /** The bytes of the range, cut at the end of the file; the buffer belongs to the caller. */
  async read(request: ReadRequest): Promise<Uint8Array> {
    const { position, length } = this.#clip(request.position, request.length);
    if (length === 0) return new Uint8Array(0);
    return this.#readAhead.read(position, length, request.signal);
  }

  /** The bytes of the range in order, in chunks that belong to the caller. */
  async *stream(request: StreamRequest = {}): AsyncGenerator<Uint8Array, void, undefined> {
    for await (const chunk of this.borrowedStream(request)) yield new Uint8Array(chunk);
  }

  /** As `stream`, without copying: a chunk is only valid until the next one is asked for. */
  borrowedStream(request: StreamRequest = {}): AsyncGenerator<Uint8Array, void, undefined> {
    const range = this.#clip(request.position ?? 0, request.length ?? Number.MAX_SAFE_INTEGER);
    return this.#source.stream({ ...range, signal: request.signal, patienceMs: request.patienceMs });
  }

  /** Stops reading ahead. Streams that are under way end by leaving their loops. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#readAhead.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #clip(position: number, length: number): { position: number; length: number } {
    const { path, sizeBytes } = this.descriptor;
    if (this.#closed) throw new HeadpondError("invalid", `${path} is closed: open it again`);
    for (const value of [position, length]) {
      if (Number.isSafeInteger(value) && value >= 0) continue;
      throw new HeadpondError(
        "invalid",
        `${path}: cannot read ${length} bytes at ${position}: give whole numbers from 0`,
      );
    }
    const start = Math.min(position, sizeBytes);
    return { position: start, length: Math.min(length, sizeBytes - start) };
  }
}
