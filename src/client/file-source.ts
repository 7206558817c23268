/**
 * The bytes of one file version, from whichever workers can give them. A read that one worker fails goes on at another
 * at the exact offset; because every worker is asked for the same immutable version, bytes of two contents never mix.
 * The list of holders is taken from the answer that opened the file and asked for again when all of them have failed.
 *
 * A whole file whose store gave a digest is released by its worker only when the digest matched: the worker holds the
 * last block back, and cuts when it did not match. Such a cut is passed on, not repaired by another worker.
 */

import type { WorkerAddress } from "../base/cluster.ts";
import { HeadpondError, isHeadpondError, toHeadpondError } from "../base/errors.ts";
import type { FileDescriptor } from "../base/file.ts";
import type { WorkerId } from "../base/ids.ts";
import type { Place } from "../base/place.ts";
import type { Clock } from "../io/clock.ts";
import { smallReadBytesMax } from "../rpc/worker-service.ts";
import type { DataPort } from "./data-port.ts";
import { cancellation } from "./within.ts";
import { chooseWorkers } from "./worker-choice.ts";
import type { WorkerHealth } from "./worker-health.ts";

/** Who may have the bytes. */
export type Whereabouts = { readonly holders: readonly WorkerId[]; readonly workers: readonly WorkerAddress[] };

export type FileSourceParts = {
  readonly file: FileDescriptor;
  readonly whereabouts: Whereabouts;
  /** Asked when every known worker has failed. */
  readonly locate: (signal?: AbortSignal) => Promise<Whereabouts>;
  /** Told once nobody can give this content any more, before the reader is: so that to open the file again helps. */
  readonly gone: () => Promise<void>;
  readonly dataPort: DataPort;
  readonly health: WorkerHealth;
  readonly clock: Clock;
  readonly place: Place | undefined;
  readonly preferred?: WorkerAddress | undefined;
  /** How long to go on without a single byte of progress. */
  readonly patienceMs?: number | undefined;
};

export type ByteRange = {
  readonly position: number;
  readonly length: number;
  readonly signal?: AbortSignal | undefined;
  readonly patienceMs?: number | undefined;
};

const patienceMsDefault = 20_000;
/** Waits between rounds over all workers: doubled each time. */
const roundPauseFirstMs = 50;
const roundPauseMaxMs = 2000;

export class FileSource {
  readonly file: FileDescriptor;
  readonly #parts: FileSourceParts;
  #whereabouts: Whereabouts;

  constructor(parts: FileSourceParts) {
    this.file = parts.file;
    this.#parts = parts;
    this.#whereabouts = parts.whereabouts;
  }

  /** Bytes in order; a chunk is only valid until the next one is asked for. The range must lie within the file. */
  async *stream(range: ByteRange): AsyncGenerator<Uint8Array, void, undefined> {
    const { file, dataPort } = { file: this.file, dataPort: this.#parts.dataPort };
    const end = range.position + range.length;
    const whole = range.position === 0 && end === file.sizeBytes;
    let offset = range.position;
    const attempts = this.#attempts(range);
    while (offset < end) {
      const worker = await attempts.next();
      try {
        const rest = { address: worker.data, file, position: offset, length: end - offset };
        for await (const chunk of dataPort.stream({ ...rest, signal: range.signal })) {
          if (chunk.length > end - offset) {
            throw new HeadpondError("corrupt", `worker ${worker.id} sent more of ${file.path} than was asked for`);
          }
          offset += chunk.length;
          attempts.progress(worker);
          yield chunk;
        }
        if (offset < end) {
          throw new HeadpondError("unavailable", `worker ${worker.id} ended ${file.path} at ${offset} of ${end} bytes`);
        }
      } catch (error) {
        if (whole && this.#isHeldBack(offset)) {
          throw new HeadpondError(
            "unavailable",
            `worker ${worker.id} did not release the last block of ${file.path}: read again`,
            { cause: error },
          );
        }
        attempts.failed(worker, error);
      }
    }
  }

  /** Up to `smallReadBytesMax` bytes at once, in a buffer that belongs to the caller. */
  async read(range: ByteRange): Promise<Uint8Array> {
    if (range.length > smallReadBytesMax) return collect(this.stream(range), range.length);
    const attempts = this.#attempts(range);
    const { position, length, signal } = range;
    for (;;) {
      const worker = await attempts.next();
      try {
        const bytes = await this.#parts.dataPort.read({
          address: worker.data,
          file: this.file,
          position,
          length,
          signal,
        });
        if (bytes.length !== length) {
          throw new HeadpondError("corrupt", `worker ${worker.id} sent ${bytes.length} bytes instead of ${length}`);
        }
        attempts.progress(worker);
        return bytes;
      } catch (error) {
        attempts.failed(worker, error);
      }
    }
  }

  /** Whether a break here may be the worker's refusal to release the end of a file whose digest did not match. */
  #isHeldBack(offset: number): boolean {
    const { digest, sizeBytes, blockSizeBytes } = this.file;
    if (digest === undefined || offset === 0) return false;
    const lastBlock = Math.floor((sizeBytes - 1) / blockSizeBytes) * blockSizeBytes;
    return offset >= lastBlock;
  }

  #attempts(range: ByteRange): Attempts {
    return new Attempts({
      ...this.#parts,
      signal: range.signal,
      patienceMs: range.patienceMs ?? this.#parts.patienceMs ?? patienceMsDefault,
      whereabouts: () => this.#whereabouts,
      relocate: async () => {
        this.#whereabouts = await this.#parts.locate(range.signal);
      },
    });
  }
}

type AttemptsParts = Pick<FileSourceParts, "file" | "gone" | "health" | "clock" | "place" | "preferred"> & {
  readonly signal: AbortSignal | undefined;
  readonly patienceMs: number;
  readonly whereabouts: () => Whereabouts;
  readonly relocate: () => Promise<void>;
};

/** The order of workers of one read: each once a round, then a pause and newer whereabouts, until patience ends. */
class Attempts {
  readonly #parts: AttemptsParts;
  #queue: WorkerAddress[];
  #giveUpMs: number;
  #pauseMs = roundPauseFirstMs;
  /** Errors of this round. */
  #errors: HeadpondError[] = [];
  /** The version was gone everywhere in the last round already, before the master was asked again. */
  #goneBefore = false;

  constructor(parts: AttemptsParts) {
    this.#parts = parts;
    this.#queue = this.#choose();
    this.#giveUpMs = parts.clock.monotonicMs() + parts.patienceMs;
  }

  async next(): Promise<WorkerAddress> {
    for (;;) {
      if (this.#parts.signal?.aborted === true) throw cancellation(this.#parts.signal);
      const worker = this.#queue.shift();
      if (worker !== undefined) return worker;
      await this.#nextRound();
    }
  }

  progress(worker: WorkerAddress): void {
    this.#giveUpMs = this.#parts.clock.monotonicMs() + this.#parts.patienceMs;
    this.#pauseMs = roundPauseFirstMs;
    this.#goneBefore = false;
    this.#parts.health.succeeded(worker.id);
  }

  /** Notes the error; throws it when no other worker could do better. */
  failed(worker: WorkerAddress, error: unknown): void {
    if (this.#parts.signal?.aborted === true) throw cancellation(this.#parts.signal);
    const failure = toHeadpondError(error);
    if (isHeadpondError(failure, "invalid", "denied", "unauthenticated", "cancelled")) throw failure;
    if (!isGone(failure)) this.#parts.health.failed(worker.id);
    this.#errors.push(failure);
  }

  async #nextRound(): Promise<void> {
    const { clock, signal, file } = this.#parts;
    const errors = this.#errors;
    this.#errors = [];
    const allGone = errors.length > 0 && errors.every(isGone);
    if (allGone && this.#goneBefore) throw await this.#gone(errors);
    this.#goneBefore = allGone;
    const busy = errors.find((error) => error.code === "overloaded");
    const askedPauseMs = Number(busy?.details?.["retryAfterMs"] ?? 0);
    const pauseMs = Math.max(this.#pauseMs, askedPauseMs);
    this.#pauseMs = Math.min(this.#pauseMs * 2, roundPauseMaxMs);
    if (clock.monotonicMs() + pauseMs >= this.#giveUpMs) throw this.#giveUp(errors, busy);
    if (!allGone && errors.length > 0) await clock.sleep(pauseMs, signal).catch(() => {});
    try {
      await this.#parts.relocate();
    } catch (error) {
      // With no master, the workers known so far are asked again; a version that the master does not know is gone.
      if (isGone(toHeadpondError(error))) throw await this.#gone([toHeadpondError(error)]);
    }
    this.#queue = this.#choose();
    if (this.#queue.length === 0) {
      this.#errors.push(new HeadpondError("unavailable", `no live worker can serve ${file.path}: start one`));
    }
  }

  async #gone(causes: readonly HeadpondError[]): Promise<HeadpondError> {
    const { path, id } = this.#parts.file;
    await this.#parts.gone();
    return new HeadpondError("compacted", `${path}: its content ${id} is no longer to be had: open it again`, {
      cause: causes[0],
    });
  }

  #giveUp(errors: readonly HeadpondError[], busy: HeadpondError | undefined): HeadpondError {
    if (busy !== undefined) return busy;
    const cause = errors.find((error) => !isGone(error)) ?? errors[0];
    if (cause !== undefined) return cause;
    return new HeadpondError("unavailable", `no live worker can serve ${this.#parts.file.path}: start one`);
  }

  #choose(): WorkerAddress[] {
    const { file, place, preferred, health } = this.#parts;
    const { holders, workers } = this.#parts.whereabouts();
    const others = workers.filter((worker) => worker.id !== preferred?.id);
    return [
      ...chooseWorkers({
        file: file.id,
        holders,
        workers: preferred === undefined ? others : [preferred, ...others],
        place: place ?? preferred?.place,
        preferred: preferred?.id,
        isAvoided: (worker) => health.isAvoided(worker),
      }),
    ];
  }
}

function isGone(error: HeadpondError): boolean {
  return error.code === "not-found" || error.code === "compacted";
}

/** All of `chunks` in one buffer. */
async function collect(chunks: AsyncIterable<Uint8Array>, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  let filled = 0;
  for await (const chunk of chunks) {
    bytes.set(chunk, filled);
    filled += chunk.length;
  }
  return bytes;
}
