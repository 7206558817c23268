/**
 * The data port of a worker in the same process, without a socket in between: for gateways, which run inside workers.
 * Half the copies of the way over loopback. All other workers are reached as ever.
 */

import { toHeadpondError } from "../base/errors.ts";
import type { FileDescriptor } from "../base/file.ts";
import { asGone, type DataPort, type DataRange, type ObjectPut, type WrittenObject } from "./data-port.ts";
import { Handover } from "./handover.ts";

/** What a worker offers in its own process: verified bytes in order, at the pace of the sink. */
export type LocalReader = {
  read(
    file: FileDescriptor,
    request: { readonly position: number; readonly length: number; readonly signal?: AbortSignal },
    sink: { write(bytes: Uint8Array): Promise<void> },
  ): Promise<void>;
};

export class LocalDataPort implements DataPort {
  readonly #address: string;
  readonly #reader: LocalReader;
  readonly #others: DataPort;

  constructor(parts: { readonly address: string; readonly reader: LocalReader; readonly others: DataPort }) {
    this.#address = parts.address;
    this.#reader = parts.reader;
    this.#others = parts.others;
  }

  stream(range: DataRange): AsyncIterable<Uint8Array> {
    return range.address === this.#address ? this.#stream(range) : this.#others.stream(range);
  }

  async read(range: DataRange): Promise<Uint8Array> {
    if (range.address !== this.#address) return this.#others.read(range);
    const { file, position, length, signal } = range;
    const bytes = new Uint8Array(length);
    let filled = 0;
    const write = async (chunk: Uint8Array): Promise<void> => {
      bytes.set(chunk, filled);
      filled += chunk.length;
    };
    try {
      await this.#reader.read(file, { position, length, ...(signal === undefined ? {} : { signal }) }, { write });
    } catch (error) {
      throw asGone(toHeadpondError(error));
    }
    return bytes;
  }

  put(object: ObjectPut): Promise<WrittenObject> {
    return this.#others.put(object);
  }

  close(): Promise<void> {
    return this.#others.close();
  }

  async *#stream(range: DataRange): AsyncGenerator<Uint8Array, void, undefined> {
    const { file, position, length, signal } = range;
    const stop = new AbortController();
    const stopped = signal === undefined ? stop.signal : AbortSignal.any([signal, stop.signal]);
    const handover = new Handover();
    const done = this.#reader
      .read(file, { position, length, signal: stopped }, { write: (chunk) => handover.give(chunk) })
      .then(
        () => handover.end(),
        (error: unknown) => handover.fail(error),
      );
    try {
      for (let chunk = await handover.take(); chunk !== undefined; chunk = await handover.take()) yield chunk;
    } catch (error) {
      throw asGone(toHeadpondError(error));
    } finally {
      stop.abort();
      handover.close();
      await done;
    }
  }
}
