/**
 * What peers ask for: `GET /v1/blocks/<id>/<block>` (a block's bytes while they arrive, its checksum in a trailer, or in a header when
 * the block is held), `GET /v1/holdings/<id>` (the bitmap of blocks that are held, or arriving from the under store), `HEAD /v1/alive`.
 */

import { BlockBitmap } from "../base/blocks.ts";
import { HeadpondError } from "../base/errors.ts";
import { type BlockIndex, parseFileVersionId, type WorkerId } from "../base/ids.ts";
import type { BufferPool } from "../io/aligned-buffer.ts";
import type { Clock } from "../io/clock.ts";
import type { FileSender } from "../io/file-sender.ts";
import type { HttpRequest } from "../io/http-request.ts";
import type { HttpResponse } from "../io/http-response.ts";
import type { BlockCache } from "./block-cache.ts";
import type { CachedFile } from "./cached-file.ts";
import type { Descriptors } from "./descriptors.ts";
import type { Fetcher } from "./fetcher.ts";
import { answerReadError } from "./file-routes.ts";
import type { Fill } from "./fill.ts";
import type { Members } from "./members.ts";
import { checksumHeader, descriptorHeader, workersHeader } from "./peer-client.ts";
import { readerUrgency, type Urgency } from "./slots.ts";
import { takesItselfForOwner } from "./source-choice.ts";

export type PeerRoutesDependencies = {
  readonly cache: BlockCache;
  readonly fetcher: Fetcher;
  readonly members: Members;
  readonly descriptors: Descriptors;
  readonly pool: BufferPool;
  readonly clock: Clock;
  /** Absent: all bytes go through this thread. */
  readonly sender?: FileSender | undefined;
  /** Blocks on their way to peers at once; more are answered `429`. */
  readonly streamsMax: number;
  /** How long a newer list of workers, which an asker has, is waited for. */
  readonly listWaitMs: number;
  readonly onSent: (bytes: number) => void;
};

/** What arrives within so long is passed on together, unless it is so much. */
const gatherMs = 10;
const gatherBytes = 64 * 1024;
/** When no pooled buffer is free. */
const privatePieceBytes = 64 * 1024;

type BlockRequest = {
  readonly block: BlockIndex;
  readonly by: WorkerId | undefined;
  readonly skipped: ReadonlySet<WorkerId>;
  readonly heldOnly: boolean;
  readonly workersVersion: number;
  readonly urgency: Urgency;
  /** The asker has the bytes before. */
  readonly from: number;
  /** Whose claim the block is, as the asker knows. */
  readonly claimant: WorkerId | undefined;
};

export class PeerRoutes {
  readonly #deps: PeerRoutesDependencies;
  #streams = 0;

  constructor(dependencies: PeerRoutesDependencies) {
    this.#deps = dependencies;
  }

  get openStreams(): number {
    return this.#streams;
  }

  async serveHoldings(response: HttpResponse, idText: string): Promise<void> {
    const { id } = parseFileVersionId(idText);
    const file = this.#deps.cache.get(id);
    if (file === undefined) throw new HeadpondError("not-found", `nothing of ${id} is held here`);
    const held = BlockBitmap.fromBytes(file.bitmap(), file.blockCount);
    for (const block of this.#deps.fetcher.arriving(file)) held.add(block);
    response.bytes(200, held.toBytes(), { "content-type": "application/octet-stream" });
  }

  async serveBlock(request: HttpRequest, response: HttpResponse, idText: string, blockText: string): Promise<void> {
    const { members, streamsMax } = this.#deps;
    if (this.#streams >= streamsMax) {
      throw new HeadpondError("overloaded", `this worker gives ${streamsMax} blocks to peers already`, {
        details: { retryAfterMs: 100 },
      });
    }
    this.#streams++;
    try {
      await this.#serveBlock(request, response, idText, blockText);
    } catch (error) {
      if (response.headSent) throw error;
      answerReadError(response, error, { [workersHeader]: String(members.version) });
    } finally {
      this.#streams--;
    }
  }

  async #serveBlock(request: HttpRequest, response: HttpResponse, idText: string, blockText: string): Promise<void> {
    const { cache, descriptors, fetcher } = this.#deps;
    const { id } = parseFileVersionId(idText);
    const question = parseQuestion(request, blockText);
    const { block } = question;
    const held = cache.get(id);
    if (question.heldOnly && held === undefined) throw notHeld(idText, block);
    const file = held ?? (await cache.open(await descriptors.find(id, request.headers[descriptorHeader])));
    if (block >= file.blockCount) {
      throw new HeadpondError("invalid", `${id} has ${file.blockCount} blocks: ${block} is not one of them`);
    }
    file.acquire();
    try {
      if (question.from >= file.blockLength(block)) {
        throw new HeadpondError("invalid", `block ${block} of ${id} has no bytes from ${question.from} on`);
      }
      if (fetcher.isReady(file, block) || file.has(block)) {
        if (await this.#sendHeld(request, response, file, question)) return;
      }
      const running = fetcher.current(file, block);
      if (running !== undefined && running.phase !== "failed") {
        // Two lists may name each other the owner: nobody waits for himself.
        if (running.asking !== undefined && running.asking === question.by) throw notOwner(idText, block);
        return await this.#sendGrowing(request, response, running, question.from);
      }
      if (question.heldOnly) throw notHeld(idText, block);
      if (!fetcher.hearClaim(file, block, question.claimant)) await this.#checkOwnership(file, question);
      await this.#sendGrowing(
        request,
        response,
        fetcher.start(file, block, { urgency: question.urgency }),
        question.from,
      );
    } finally {
      file.release();
    }
  }

  /** Throws `already-exists`, i.e. `409`, unless the asker has come to the right one. */
  async #checkOwnership(file: CachedFile, { block, skipped, workersVersion }: BlockRequest): Promise<void> {
    const { members, listWaitMs } = this.#deps;
    if (members.version < workersVersion) await members.waitForVersion(workersVersion, listWaitMs);
    if (!takesItselfForOwner(members.self, members.order(file.id, block), skipped)) throw notOwner(file.id, block);
  }

  /** False: the block turned out damaged, and must be fetched. */
  async #sendHeld(
    request: HttpRequest,
    response: HttpResponse,
    file: CachedFile,
    { block, urgency, from }: BlockRequest,
  ): Promise<boolean> {
    const { fetcher, sender, onSent } = this.#deps;
    if (!fetcher.isReady(file, block)) {
      const fill = fetcher.start(file, block, { urgency });
      await fill.verified;
    }
    const checksum = file.has(block) ? file.checksum(block) : fetcher.current(file, block)?.checksum;
    if (checksum === undefined) return false;
    response.head(200, {
      "content-length": file.blockLength(block) - from,
      [checksumHeader]: Buffer.from(checksum).toString("hex"),
    });
    if (sender?.isUsable === true && response.canSendFile && file.has(block) && file.isChecked(block)) {
      const position = block * file.descriptor.blockSizeBytes + from;
      const lengthBytes = file.blockLength(block) - from;
      const sent = await file.withDescriptor((descriptor) =>
        response.sendFile(sender, { descriptor, position, lengthBytes }, onSent),
      );
      if (sent === lengthBytes) {
        response.end();
        return true;
      }
      // The disk gave less than it was given: the asker takes the block from elsewhere.
      if (sent !== undefined) throw new HeadpondError("corrupt", `block ${block} of ${file.id} cannot be read here`);
    }
    await this.#send(response, from, file.blockLength(block), async (buffer, offset) => {
      const piece = buffer.subarray(0, Math.min(buffer.length, file.blockLength(block) - offset));
      await fetcher.readPiece(file, block, offset, piece, { urgency, signal: request.signal });
      return piece.length;
    });
    response.end();
    return true;
  }

  /** The head with the first bytes (before them an error has a status of its own), the rest as it comes, then the checksum. */
  async #sendGrowing(request: HttpRequest, response: HttpResponse, fill: Fill, from: number): Promise<void> {
    const { fetcher, clock } = this.#deps;
    const { file, block } = fill;
    await fill.progress(from);
    fill.throwIfFailed();
    response.head(200, { trailer: checksumHeader, "content-type": "application/octet-stream" });
    response.flushHead();
    await this.#send(response, from, fill.length, async (buffer, offset) => {
      for (;;) {
        const count = fill.copyTo(buffer.subarray(0, fill.length - offset), offset);
        if (count !== undefined && count > 0) return count;
        fill.throwIfFailed();
        if (count === undefined && fill.phase !== "filling") {
          const piece = buffer.subarray(0, Math.min(buffer.length, fill.length - offset));
          await fetcher.readPiece(file, block, offset, piece, { urgency: fill.urgency, signal: request.signal });
          return piece.length;
        }
        await fill.progress(offset);
        // Passed on packet by packet, bytes cost several times the processor time.
        const isLittle = fill.filledBytes - offset < gatherBytes && fill.filledBytes < fill.length;
        if (isLittle && fill.phase === "filling") await clock.sleep(gatherMs, request.signal);
        request.signal.throwIfAborted();
      }
    });
    await fill.verified;
    response.end({ [checksumHeader]: Buffer.from(fill.checksum ?? new Uint8Array(0)).toString("hex") });
  }

  /** Two pieces in flight: one fills while the other leaves. */
  async #send(
    response: HttpResponse,
    from: number,
    length: number,
    read: (buffer: Uint8Array, offset: number) => Promise<number>,
  ): Promise<void> {
    const { pool, onSent } = this.#deps;
    const buffers = [0, 1].map(() => pool.tryTake() ?? Buffer.allocUnsafe(privatePieceBytes));
    const writes: Promise<void>[] = [Promise.resolve(), Promise.resolve()];
    try {
      for (let offset = from, turn = 0; offset < length; turn = 1 - turn) {
        await writes[turn];
        const buffer = buffers[turn] as Buffer;
        const count = await read(buffer, offset);
        offset += count;
        onSent(count);
        const write = response.write(buffer.subarray(0, count));
        write.catch(() => {});
        writes[turn] = write;
      }
      await Promise.all(writes);
    } finally {
      await Promise.allSettled(writes);
      for (const buffer of buffers) if (buffer.length === pool.bufferBytes) pool.give(buffer);
    }
  }
}

function parseQuestion(request: HttpRequest, blockText: string): BlockRequest {
  const { query } = request;
  const workersVersion = Number(query.get("workers") ?? 0);
  const urgency = Number(query.get("urgency") ?? readerUrgency);
  if (!/^[0-9]{1,9}$/.test(blockText)) {
    throw new HeadpondError("invalid", `not a block index: ${JSON.stringify(blockText.slice(0, 32))}`);
  }
  if (!Number.isSafeInteger(workersVersion) || workersVersion < 0) {
    throw new HeadpondError("invalid", "workers is not the version of a list");
  }
  const from = Number(query.get("from") ?? 0);
  if (!Number.isSafeInteger(from) || from < 0) throw new HeadpondError("invalid", "from is not a place in a block");
  const after = (query.get("after") ?? "").slice(0, 8192);
  return {
    block: Number(blockText) as BlockIndex,
    by: (query.get("by") ?? undefined) as WorkerId | undefined,
    skipped: new Set(after.split(",").filter((text) => text !== "") as WorkerId[]),
    heldOnly: query.get("held") === "1",
    workersVersion,
    urgency: Number.isFinite(urgency) && urgency >= 0 ? urgency : readerUrgency,
    from,
    claimant: (query.get("claimant")?.slice(0, 128) ?? undefined) as WorkerId | undefined,
  };
}

function notHeld(id: string, block: BlockIndex): HeadpondError {
  return new HeadpondError("not-found", `block ${block} of ${id} is not held here`);
}

function notOwner(id: string, block: BlockIndex): HeadpondError {
  return new HeadpondError("already-exists", `block ${block} of ${id} is not held here, and another worker owns it`);
}
