/**
 * Writing a file through to its under store: the masters note the intent and say where the bytes go, a worker writes them,
 * whole or not at all, and the masters note what the store answered. Until then the file is incomplete, and nobody reads
 * it. When the fate of the bytes is not known, the error says so (`unknown-outcome`): it is never reported as failed.
 */

import type { WorkerAddress } from "../base/cluster.ts";
import { HeadpondError, isHeadpondError, toHeadpondError } from "../base/errors.ts";
import { type FileVersionId, fileVersionId, type InodeId, type MountId, type WorkerId } from "../base/ids.ts";
import { type InodeRef, masterService } from "../rpc/master-service.ts";
import type { DataPort, WrittenObject } from "./data-port.ts";
import type { CallOptions } from "./master-calls.ts";
import type { Session } from "./session.ts";

export type WriteBody = Uint8Array | AsyncIterable<Uint8Array>;

export type WriteRequest = {
  readonly path: string;
  readonly body: WriteBody;
  readonly sizeBytes?: number | undefined;
  readonly exclusive?: boolean | undefined;
  readonly recursive?: boolean | undefined;
  readonly requestId?: string | undefined;
  readonly call: CallOptions;
};

export type WriterParts = {
  readonly session: Session;
  readonly dataPort: DataPort;
  /** Live workers, the one to ask first at the front. */
  readonly workers: (file: FileVersionId, signal?: AbortSignal) => Promise<readonly WorkerAddress[]>;
  readonly failed: (worker: WorkerId) => void;
  /** Gives the intent up, as far as that can be done; never throws. */
  readonly abandon: (inodeId: InodeId, contentVersion: number) => Promise<void>;
};

export async function writeFile(parts: WriterParts, request: WriteRequest): Promise<InodeRef> {
  const { path, exclusive, recursive, requestId, call } = request;
  const created = await parts.session.change(
    masterService.methods.create,
    {
      path,
      forWriting: true,
      recursive: recursive ?? true,
      ...(exclusive === undefined ? {} : { exclusive }),
      ...(requestId === undefined ? {} : { requestId: `${requestId}/create` }),
    },
    call,
  );
  if (created.target === undefined) {
    throw new HeadpondError(
      "no-mount",
      `${path} lies under no mount, so its bytes would go nowhere: mount a store first`,
    );
  }
  const { inodeId, contentVersion, target } = created;
  let written: WrittenObject;
  try {
    written = await put(parts, request, target, fileVersionId(inodeId, contentVersion));
  } catch (error) {
    // Nothing reached the store: the path is free again, and what was there before is there still.
    if (toHeadpondError(error).outcome === "none") await parts.abandon(inodeId, contentVersion);
    throw error;
  }
  return await parts.session.change(
    masterService.methods.complete,
    {
      inodeId,
      contentVersion,
      sizeBytes: written.sizeBytes,
      etag: written.etag,
      modifiedMs: written.modifiedMs,
      ...(written.digest === undefined ? {} : { digest: written.digest }),
      ...(requestId === undefined ? {} : { requestId: `${requestId}/complete` }),
    },
    call,
  );
}

async function put(
  parts: WriterParts,
  request: WriteRequest,
  target: { readonly mountId: MountId; readonly key: string },
  file: FileVersionId,
): Promise<WrittenObject> {
  const { path, body, exclusive, call } = request;
  const sizeBytes = body instanceof Uint8Array ? body.length : request.sizeBytes;
  const source = new Body(body, path, sizeBytes);
  const workers = await parts.workers(file, call.signal);
  let failure = new HeadpondError("unavailable", `no live worker can write ${path}: start one`);
  for (const worker of workers) {
    try {
      return await parts.dataPort.put({
        address: worker.data,
        ...target,
        ifAbsent: exclusive === true,
        body: source.chunks(),
        sizeBytes,
        signal: call.signal,
      });
    } catch (error) {
      failure = toHeadpondError(error);
      // Another worker may try only if nothing of this attempt can reach the store, and the body is still whole.
      const mayTryAnother = isHeadpondError(failure, "unavailable", "overloaded", "no-space") && source.isWhole;
      if (failure.outcome === "unknown" || !mayTryAnother) throw failure;
      parts.failed(worker.id);
    }
  }
  throw failure;
}

/** A body that knows whether it can be sent again, and that it has the length that was announced. */
class Body {
  readonly #body: WriteBody;
  readonly #path: string;
  readonly #sizeBytes: number | undefined;
  #taken = false;

  constructor(body: WriteBody, path: string, sizeBytes: number | undefined) {
    this.#body = body;
    this.#path = path;
    this.#sizeBytes = sizeBytes;
  }

  get isWhole(): boolean {
    return !this.#taken || this.#body instanceof Uint8Array;
  }

  async *chunks(): AsyncGenerator<Uint8Array, void, undefined> {
    this.#taken = true;
    if (this.#body instanceof Uint8Array) {
      yield this.#body;
      return;
    }
    let count = 0;
    for await (const chunk of this.#body) {
      count += chunk.length;
      this.#checkSize(count, false);
      if (chunk.length > 0) yield chunk;
    }
    this.#checkSize(count, true);
  }

  #checkSize(count: number, ended: boolean): void {
    const size = this.#sizeBytes;
    if (size === undefined || (ended ? count === size : count <= size)) return;
    throw new HeadpondError(
      "invalid",
      `${this.#path}: the body has ${ended ? "" : "at least "}${count} bytes, not ${size}`,
    );
  }
}
