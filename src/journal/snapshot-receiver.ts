/**
 * Receives checkpoints into a directory of its own, one at a time. A file has its name only when it is whole, checked
 * against its xxh64 and durable; until then it is `NAME.part`. What a broken connection left behind is gone on with when
 * the same checkpoint is offered again; what another reason left behind is removed.
 *
 * The newest leader's offer wins: an older one's transfer is given up for it.
 */

import { HeadpondError } from "../base/errors.ts";
import { MiB } from "../base/units.ts";
import type { Disk, DiskFile } from "../io/disk.ts";
import { Xxh64 } from "../io/hash.ts";
import type { Logger } from "../io/logger.ts";
import type { NodeId } from "../raft/types.ts";
import { decodeMessages } from "./peer-codec.ts";
import type { PeerConnection } from "./peer-connection.ts";
import { type Frame, frameKind } from "./peer-frame.ts";
import type { CheckpointFile, SnapshotMessage } from "./peers.ts";
import { chunkBytes, isSameCheckpoint, readOffer, type SnapshotOffer } from "./snapshot-offer.ts";

/** Chunks that came and are not written yet; with more the sender is held back. */
const queuedChunksMax = 4;
/** Bytes that may be lost by a crash, and that the last flush has to write. */
const unsyncedBytesMax = 32 * MiB;
const partSuffix = ".part";

/** What has arrived of a checkpoint: its first `bytes` are in the file, and in the sum. */
type Partial = { readonly offer: SnapshotOffer; readonly hash: Xxh64; bytes: number };

export class SnapshotReceiver {
  readonly #disk: Disk;
  readonly #directory: string;
  readonly #self: NodeId;
  readonly #logger: Logger;
  readonly #onReceived: (message: SnapshotMessage, file: CheckpointFile) => void;
  /** The transfer that goes on, if any, and the promise of its end. */
  #current: { readonly incoming: Incoming; readonly done: Promise<void> } | undefined;
  #partial: Partial | undefined;
  #isClosed = false;

  constructor(options: {
    readonly disk: Disk;
    readonly directory: string;
    readonly self: NodeId;
    readonly logger: Logger;
    readonly onReceived: (message: SnapshotMessage, file: CheckpointFile) => void;
  }) {
    this.#disk = options.disk;
    this.#directory = options.directory;
    this.#self = options.self;
    this.#logger = options.logger;
    this.#onReceived = options.onReceived;
  }

  /** Removes what an earlier life of the process left: nobody owns it. The beginning of a file may still be of use. */
  async start(): Promise<void> {
    await this.#disk.makeDirectory(this.#directory);
    await this.#disk.syncDirectory(this.#directory.slice(0, this.#directory.lastIndexOf("/")) || "/");
    for (const name of await this.#disk.list(this.#directory)) {
      if (!name.endsWith(partSuffix)) await this.#disk.removeTree(`${this.#directory}/${name}`);
    }
  }

  /** A peer has dialled to send a checkpoint. Called in the turn in which it was let in. */
  accept(connection: PeerConnection, from: NodeId): void {
    const incoming = new Incoming(connection);
    const onClose = connection.onClose;
    connection.onClose = (reason) => {
      incoming.end(reason);
      onClose(reason);
    };
    connection.onFrame = (frame) => {
      if (frame.kind !== frameKind.offer) connection.destroy(`frame of kind ${frame.kind} instead of an offer`);
      else this.#begin(incoming, from, readOffer(frame.head));
    };
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    this.#current?.incoming.end("closing");
    await this.#current?.done;
  }

  #begin(incoming: Incoming, from: NodeId, offer: SnapshotOffer): void {
    const before = this.#current;
    if (this.#isClosed) {
      incoming.refuse("it is closing");
      return;
    }
    if (before !== undefined && before.incoming.leaderTerm > offer.leaderTerm) {
      incoming.refuse(`it receives a checkpoint from the leader of term ${before.incoming.leaderTerm}`);
      return;
    }
    incoming.leaderTerm = offer.leaderTerm;
    incoming.listen();
    before?.incoming.refuse("another transfer takes its place");
    const done = (async () => {
      await before?.done;
      await this.#receive(incoming, from, offer);
      if (this.#current?.incoming === incoming) this.#current = undefined;
    })();
    this.#current = { incoming, done };
  }

  async #receive(incoming: Incoming, from: NodeId, offer: SnapshotOffer): Promise<void> {
    const fields = { from, index: offer.index, term: offer.term, bytes: offer.bytes };
    try {
      if (incoming.isOver) return;
      const partial = await this.#resume(incoming, offer);
      this.#logger.info("a checkpoint arrives", { ...fields, offset: partial.bytes });
      const message = await this.#fill(incoming, from, partial);
      if (message === undefined) {
        this.#logger.warn("the transfer of a checkpoint broke", {
          ...fields,
          arrived: partial.bytes,
          reason: incoming.reason,
        });
        return;
      }
      const file = await this.#complete(partial);
      incoming.answer(frameKind.installed, {});
      this.#logger.info("a checkpoint has arrived", fields);
      if (!this.#isClosed) this.#onReceived(message, file);
    } catch (error) {
      const reason = reasonOf(error, offer);
      this.#partial = undefined;
      // If even that fails there is nothing more to do; the next start removes it, or the next offer.
      await this.#disk.removeTree(this.#partPath(offer)).catch(() => {});
      incoming.refuse(reason);
      this.#logger.warn("a checkpoint cannot be received", { ...fields, reason });
    }
  }

  /** What is there of this checkpoint already. */
  async #resume(incoming: Incoming, offer: SnapshotOffer): Promise<Partial> {
    const path = this.#partPath(offer);
    for (const name of await this.#disk.list(this.#directory)) {
      const other = `${this.#directory}/${name}`;
      if (name.endsWith(partSuffix) && other !== path) await this.#disk.removeTree(other);
    }
    let partial = this.#partial;
    if (partial === undefined || !isSameCheckpoint(partial.offer, offer)) {
      partial = { offer, hash: new Xxh64(), bytes: 0 };
      await this.#readAgain(incoming, partial);
    }
    this.#partial = partial;
    const { freeBytes } = await this.#disk.space(this.#directory);
    const neededBytes = offer.bytes - partial.bytes;
    if (freeBytes < neededBytes)
      throw new HeadpondError("no-space", `${this.#directory} has ${freeBytes} bytes free, ${neededBytes} are needed`);
    incoming.answer(frameKind.resume, { offset: partial.bytes });
    return partial;
  }

  /** Sums what an earlier life of the process received. If a crash spoilt it, the whole sum will tell. */
  async #readAgain(incoming: Incoming, partial: Partial): Promise<void> {
    const file = await this.#disk.open(this.#partPath(partial.offer), "open-or-create");
    try {
      const buffer = new Uint8Array(chunkBytes);
      while (partial.bytes < partial.offer.bytes && !incoming.isOver) {
        const count = await file.read(buffer.subarray(0, partial.offer.bytes - partial.bytes), partial.bytes);
        if (count === 0) break;
        partial.hash.update(buffer.subarray(0, count));
        partial.bytes += count;
        incoming.answer(frameKind.progress, { offset: partial.bytes });
      }
    } finally {
      await file.close();
    }
  }

  /** Writes chunks as they come. `undefined`: the connection broke before the end. */
  async #fill(incoming: Incoming, from: NodeId, partial: Partial): Promise<SnapshotMessage | undefined> {
    const file = await this.#disk.open(this.#partPath(partial.offer), "write");
    try {
      let unsyncedBytes = 0;
      for (;;) {
        const frame = await incoming.next();
        if (frame === undefined) return undefined;
        if (frame.kind === frameKind.finish) {
          // Whatever else had this name before may have been longer.
          if ((await file.stat()).sizeBytes > partial.bytes) await file.truncate(partial.bytes);
          await file.datasync();
          return readFinish(frame, from, this.#self, partial.offer);
        }
        await this.#writeChunk(file, partial, frame);
        unsyncedBytes += frame.body.length;
        if (unsyncedBytes >= unsyncedBytesMax) {
          await file.datasync();
          unsyncedBytes = 0;
        }
        incoming.answer(frameKind.progress, { offset: partial.bytes });
      }
    } finally {
      await file.close();
    }
  }

  async #writeChunk(file: DiskFile, partial: Partial, { kind, head, body }: Frame): Promise<void> {
    if (kind !== frameKind.chunk || head.length !== 8)
      throw new HeadpondError("corrupt", `frame of kind ${kind} instead of a chunk`);
    const offset = head.readUInt32LE(4) * 2 ** 32 + head.readUInt32LE(0);
    if (offset !== partial.bytes || offset + body.length > partial.offer.bytes)
      throw new HeadpondError("corrupt", `${body.length} bytes at ${offset} came instead of those at ${partial.bytes}`);
    await file.write(body, offset);
    partial.hash.update(body);
    partial.bytes += body.length;
  }

  /** Checks the whole and gives it its name. */
  async #complete({ offer, hash, bytes }: Partial): Promise<CheckpointFile> {
    const { index, term, digest, xxh64 } = offer;
    if (bytes !== offer.bytes) throw new HeadpondError("corrupt", `it ended after ${bytes} of ${offer.bytes} bytes`);
    const sum = hash.hex();
    if (sum !== xxh64) throw new HeadpondError("corrupt", `its xxh64 is ${sum}, not ${xxh64} as its sender said`);
    const path = this.#path(offer);
    try {
      await this.#disk.rename(this.#partPath(offer), path);
      await this.#disk.syncDirectory(this.#directory);
    } catch (error) {
      await this.#disk.removeTree(path).catch(() => {});
      throw error;
    }
    this.#partial = undefined;
    return { path, index, term, digest, bytes, xxh64 };
  }

  #path({ index, term, xxh64 }: SnapshotOffer): string {
    return `${this.#directory}/received-${index}-${term}-${xxh64}`;
  }

  #partPath(offer: SnapshotOffer): string {
    return `${this.#path(offer)}${partSuffix}`;
  }
}

/** One connection by which a checkpoint comes, as a queue of its frames. */
class Incoming {
  readonly #connection: PeerConnection;
  readonly #frames: Frame[] = [];
  #wake: (() => void) | undefined;
  #isPaused = false;
  isOver = false;
  leaderTerm = 0;
  reason = "";

  constructor(connection: PeerConnection) {
    this.#connection = connection;
  }

  listen(): void {
    this.#connection.onFrame = (frame) => {
      // The head is only valid now, and this frame may wait.
      this.#frames.push({ ...frame, head: Buffer.from(frame.head) });
      if (this.#frames.length >= queuedChunksMax && !this.#isPaused) {
        this.#isPaused = true;
        this.#connection.pause();
      }
      this.#wake?.();
    };
  }

  /** `undefined`: the connection is over. What had come before its end is not waited for any more. */
  async next(): Promise<Frame | undefined> {
    while (this.#frames.length === 0 && !this.isOver) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      this.#wake = undefined;
    }
    if (this.isOver) return undefined;
    const frame = this.#frames.shift();
    if (this.#isPaused && this.#frames.length <= 1) {
      this.#isPaused = false;
      this.#connection.resume();
    }
    return frame;
  }

  answer(
    kind: typeof frameKind.resume | typeof frameKind.progress | typeof frameKind.installed,
    document: unknown,
  ): void {
    this.#connection.writeJson(kind, document);
    this.#connection.flush();
  }

  refuse(reason: string): void {
    if (!this.isOver) {
      this.#connection.writeJson(frameKind.failed, { reason });
      this.#connection.end(reason);
    }
    this.end(reason);
  }

  end(reason: string): void {
    if (this.isOver) return;
    this.isOver = true;
    this.reason = reason;
    this.#frames.length = 0;
    this.#wake?.();
  }
}

/** Throws `corrupt`. */
function readFinish({ head }: Frame, from: NodeId, self: NodeId, offer: SnapshotOffer): SnapshotMessage {
  const [message] = decodeMessages(head, new Uint8Array(0), from, self);
  if (message?.type !== "snapshot") throw new HeadpondError("corrupt", "a checkpoint came without its message");
  const { index, term } = message.snapshot;
  if (index !== offer.index || term !== offer.term)
    throw new HeadpondError("corrupt", `a checkpoint at ${offer.term}/${offer.index} came for ${term}/${index}`);
  return message;
}

function reasonOf(error: unknown, { bytes }: SnapshotOffer): string {
  const { code, message } = error as { code?: unknown; message: string };
  return code === "ENOSPC" ? `no space for a checkpoint of ${bytes} bytes: ${message}` : message;
}
