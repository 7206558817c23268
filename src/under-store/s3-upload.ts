/**
 * Writing to S3: a small body in one request, a larger one in parts, a few at once. Either way the object appears whole or
 * not at all; the parts of an upload that fails are deleted. Memory: `partsActiveMax + 1` parts.
 */

import {
  AbortMultipartUploadCommand,
  CompleteMultipartUploadCommand,
  CopyObjectCommand,
  CreateMultipartUploadCommand,
  HeadObjectCommand,
  PutObjectCommand,
  UploadPartCommand,
  UploadPartCopyCommand,
} from "@aws-sdk/client-s3";
import { HeadpondError, isHeadpondError } from "../base/errors.ts";
import { MiB } from "../base/units.ts";
import type { Logger } from "../io/logger.ts";
import type { RequestGate } from "./request-gate.ts";
import { encodeKey, type S3Connection } from "./s3-connection.ts";
import { bodyChunks, type WriteOptions } from "./under-store.ts";

export const partSizeBytesDefault = 16 * MiB;
/** S3's own limits. */
export const partSizeBytesMin = 5 * MiB;
export const partSizeBytesMax = 5 * 1024 * MiB;
const copySizeBytesMaxDefault = 5 * 1024 * MiB;
const partsMax = 10_000;
const partsActiveMax = 4;

export type S3UploadDependencies = {
  readonly connection: S3Connection;
  readonly gate: RequestGate;
  readonly logger: Logger;
  readonly partSizeBytes: number;
  /** Larger objects are copied in parts. */
  readonly copySizeBytesMax?: number;
};

/** Names one write for ever, in the metadata of what it made. */
type WriteMark = string;
/** Name of the metadata; the store puts `x-amz-meta-` before it. */
const markName = "headpond-write";

type Committed = { readonly ETag?: string | undefined };
type Commit = {
  readonly operation: "put" | "complete-upload";
  readonly signal: AbortSignal | undefined;
  readonly send: () => Promise<Committed>;
};

type ObjectTarget = { readonly Bucket: string; readonly Key: string };
type UploadPart = { readonly UploadId: string | undefined; readonly PartNumber: number };

export class S3Upload {
  readonly #connection: S3Connection;
  readonly #gate: RequestGate;
  readonly #logger: Logger;
  readonly #partSizeBytes: number;
  readonly #copySizeBytesMax: number;

  constructor({ connection, gate, logger, partSizeBytes, copySizeBytesMax }: S3UploadDependencies) {
    this.#connection = connection;
    this.#gate = gate;
    this.#logger = logger;
    this.#partSizeBytes = partSizeBytes;
    this.#copySizeBytesMax = copySizeBytesMax ?? copySizeBytesMaxDefault;
  }

  /** What was written: its etag and size. */
  async write(key: string, options: WriteOptions): Promise<{ readonly etag: string; readonly sizeBytes: number }> {
    let sizeBytes = 0;
    const count = (bytes: number): void => {
      sizeBytes += bytes;
    };
    const partSizeBytes = Math.max(this.#partSizeBytes, Math.ceil((options.sizeBytes ?? 0) / partsMax));
    const etag = await this.#writeParts(key, inParts(bodyChunks(key, options), partSizeBytes, count), options);
    return { etag, sizeBytes };
  }

  async #writeParts(key: string, parts: AsyncGenerator<Uint8Array>, options: WriteOptions): Promise<string> {
    try {
      const first = await parts.next();
      const second = first.done === true ? first : await parts.next();
      if (second.done === true) {
        return await this.#put(key, first.done === true ? new Uint8Array() : first.value, options);
      }
      const target = this.#target(key);
      const pieces = chain([first.value as Uint8Array, second.value], parts);
      return await this.#multipart(key, target, pieces, options, async (piece, part, signal) => {
        const command = new UploadPartCommand({ ...target, ...part, Body: piece, ContentLength: piece.length });
        const { client } = this.#connection;
        return (await this.#call("put-part", key, signal, () => client.send(command, sending(signal)))).ETag;
      });
    } finally {
      await parts.return(undefined);
    }
  }

  async #put(key: string, body: Uint8Array, { ifAbsent = false, signal }: WriteOptions): Promise<string> {
    const mark = newMark();
    const command = new PutObjectCommand({
      ...this.#target(key),
      Body: body,
      ContentLength: body.length,
      Metadata: { [markName]: mark },
      ...(ifAbsent ? { IfNoneMatch: "*" } : {}),
    });
    const send = (): Promise<Committed> => this.#connection.client.send(command, sending(signal));
    return this.#commit(key, mark, ifAbsent, { operation: "put", signal, send });
  }

  /** Within the bucket, by the store itself; `source.etag` is what must be copied. */
  async copy(
    key: string,
    source: { readonly objectKey: string; readonly sizeBytes: number; readonly etag: string },
    targetKey: string,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const { client, place } = this.#connection;
    const target = { Bucket: place.bucket, Key: targetKey };
    const from = { CopySource: encodeKey(`${place.bucket}/${source.objectKey}`), CopySourceIfMatch: source.etag };
    if (source.sizeBytes <= this.#copySizeBytesMax) {
      const command = new CopyObjectCommand({ ...target, ...from });
      await this.#call("copy", key, signal, () => client.send(command, sending(signal)));
      return;
    }
    const pieceBytes = Math.max(this.#partSizeBytes, Math.ceil(source.sizeBytes / partsMax));
    const pieces = async function* (): AsyncGenerator<string> {
      for (let first = 0; first < source.sizeBytes; first += pieceBytes) {
        yield `bytes=${first}-${Math.min(first + pieceBytes, source.sizeBytes) - 1}`;
      }
    };
    await this.#multipart(key, target, pieces(), optional(signal), async (piece, part, partSignal) => {
      const command = new UploadPartCopyCommand({ ...target, ...from, ...part, CopySourceRange: piece });
      const answer = await this.#call("copy-part", key, partSignal, () => client.send(command, sending(partSignal)));
      return answer.CopyPartResult?.ETag;
    });
  }

  /** An upload of which `send` puts the pieces, a few at once. Returns the etag of the whole. */
  async #multipart<Piece>(
    key: string,
    target: ObjectTarget,
    pieces: AsyncGenerator<Piece>,
    { ifAbsent = false, signal }: Pick<WriteOptions, "ifAbsent" | "signal">,
    send: (piece: Piece, part: UploadPart, partSignal: AbortSignal) => Promise<string | undefined>,
  ): Promise<string> {
    const { client } = this.#connection;
    const mark = newMark();
    const creation = new CreateMultipartUploadCommand({ ...target, Metadata: { [markName]: mark } });
    const { UploadId } = await this.#call("create-upload", key, signal, () => client.send(creation, sending(signal)));
    const failed = new AbortController();
    const partSignal = signal === undefined ? failed.signal : AbortSignal.any([signal, failed.signal]);
    const uploads: Promise<{ readonly PartNumber: number; readonly ETag: string }>[] = [];
    const active = new Set<Promise<void>>();
    let failure: { readonly error: unknown } | undefined;
    try {
      for await (const piece of pieces) {
        const PartNumber = uploads.length + 1;
        if (PartNumber > partsMax) {
          throw new HeadpondError(
            "invalid",
            `${key} is longer than ${partsMax} parts: announce its size or raise partSize`,
          );
        }
        const upload = send(piece, { UploadId, PartNumber }, partSignal).then((etag) => {
          return { PartNumber, ETag: checkedEtag(etag, key) };
        });
        uploads.push(upload);
        const settled: Promise<void> = upload.then(
          () => void active.delete(settled),
          (error: unknown) => {
            active.delete(settled);
            failure ??= { error };
          },
        );
        active.add(settled);
        if (active.size >= partsActiveMax) await Promise.race(active);
        // A part that failed for good ends the upload now, not after the body.
        if (failure !== undefined) throw failure.error;
      }
      const command = new CompleteMultipartUploadCommand({
        ...target,
        UploadId,
        MultipartUpload: { Parts: await Promise.all(uploads) },
        ...(ifAbsent ? { IfNoneMatch: "*" } : {}),
      });
      const complete = (): Promise<Committed> => client.send(command, sending(signal));
      return await this.#commit(key, mark, ifAbsent, { operation: "complete-upload", signal, send: complete });
    } catch (error) {
      failed.abort();
      await Promise.allSettled(uploads);
      // After an unknown outcome this either cleans up or finds the upload completed; it cannot harm the object.
      await this.#abort(key, target, UploadId);
      throw error;
    }
  }

  async #abort(key: string, target: ObjectTarget, UploadId: string | undefined): Promise<void> {
    try {
      await this.#call("abort-upload", key, undefined, () =>
        this.#connection.client.send(new AbortMultipartUploadCommand({ ...target, UploadId })),
      );
    } catch (error) {
      this.#logger.warn("under store: parts of a failed upload could not be deleted", {
        key,
        uploadId: UploadId,
        error,
      });
    }
  }

  /**
   * The request that makes the object appear; returns its etag. If its answer is lost, the object itself tells by the mark
   * of its write whether this one took effect: trying again is safe, and nobody is told that it lost against itself.
   */
  async #commit(key: string, mark: WriteMark, ifAbsent: boolean, options: Commit): Promise<string> {
    const { operation, signal, send } = options;
    let wasSent = false;
    let mayHaveHappened = false;
    try {
      return await this.#gate.run(operation, signal, async () => {
        try {
          wasSent = true;
          return checkedEtag((await send()).ETag, key);
        } catch (error) {
          const ours = this.#connection.error(error, key);
          if (signal?.aborted) throw ours;
          const isRefused = ours.code === "version-mismatch" && ifAbsent;
          const isGone = ours.code === "not-found" && operation === "complete-upload";
          if (isAmbiguous(ours, error)) mayHaveHappened = true;
          else if (!mayHaveHappened || !(isRefused || isGone)) throw isRefused ? this.#alreadyExists(key) : ours;
          const found = await this.#findWrite(key, mark, signal);
          if (found === "of another" && ifAbsent) throw this.#alreadyExists(key);
          if (found === undefined || found === "of another") throw ours;
          return found.etag;
        }
      });
    } catch (error) {
      if (signal?.aborted && wasSent) {
        throw new HeadpondError("cancelled", `writing ${key} was cancelled on its way`, {
          cause: error,
          outcome: "unknown",
        });
      }
      if (!mayHaveHappened || !isHeadpondError(error) || error.code === "already-exists") throw error;
      throw unknownOutcome(key, error);
    }
  }

  /** Whether the object is what the write with this mark made. */
  async #findWrite(
    key: string,
    mark: WriteMark,
    signal: AbortSignal | undefined,
  ): Promise<{ readonly etag: string } | "of another" | undefined> {
    try {
      const { ETag, Metadata } = await this.#connection.client.send(
        new HeadObjectCommand(this.#target(key)),
        sending(signal),
      );
      return Metadata?.[markName] === mark ? { etag: checkedEtag(ETag, key) } : "of another";
    } catch {
      // Absent, or not to be had: the write is tried again, or its outcome stays unknown.
      return undefined;
    }
  }

  #alreadyExists(key: string): HeadpondError {
    return new HeadpondError("already-exists", `${key} already exists in bucket ${this.#connection.place.bucket}`);
  }

  async #call<T>(operation: string, key: string, signal: AbortSignal | undefined, send: () => Promise<T>): Promise<T> {
    return this.#gate.run(operation, signal, async () => {
      try {
        return await send();
      } catch (error) {
        throw this.#connection.error(error, key);
      }
    });
  }

  #target(key: string): ObjectTarget {
    return { Bucket: this.#connection.place.bucket, Key: this.#connection.objectKey(key) };
  }
}

/** Whether a failed request may have taken effect all the same. A conflict of conditions and a refused connection did not. */
function isAmbiguous(ours: HeadpondError, sdkError: unknown): boolean {
  if (ours.code !== "under-store" || !ours.retryable) return false;
  const { name, code } = sdkError as { readonly name?: string; readonly code?: string };
  return (
    name !== "ConditionalRequestConflict" &&
    name !== "OperationAborted" &&
    code !== "ECONNREFUSED" &&
    code !== "ENOTFOUND"
  );
}

function newMark(): WriteMark {
  return crypto.randomUUID();
}

function unknownOutcome(key: string, cause: HeadpondError): HeadpondError {
  return new HeadpondError("unknown-outcome", `it is not known whether ${key} was written: ${cause.message}`, {
    cause,
  });
}

function optional(signal: AbortSignal | undefined): { readonly signal?: AbortSignal } {
  return signal === undefined ? {} : { signal };
}

function sending(signal: AbortSignal | undefined): { readonly abortSignal?: AbortSignal } {
  return signal === undefined ? {} : { abortSignal: signal };
}

export function checkedEtag(etag: string | undefined, key: string): string {
  if (etag) return etag;
  throw new HeadpondError("under-store", `the store gave no ETag for ${key}: it cannot tell contents apart`, {
    retryable: false,
  });
}

/** The body in parts of exactly `partSizeBytes`, the last one shorter; nothing for an empty body. */
async function* inParts(
  chunks: AsyncGenerator<Uint8Array>,
  partSizeBytes: number,
  count: (bytes: number) => void,
): AsyncGenerator<Uint8Array> {
  let gathered: Uint8Array[] = [];
  let gatheredBytes = 0;
  for await (const chunk of chunks) {
    count(chunk.length);
    let rest = chunk;
    while (gatheredBytes + rest.length >= partSizeBytes) {
      const head = rest.subarray(0, partSizeBytes - gatheredBytes);
      yield Buffer.concat([...gathered, head]);
      rest = rest.subarray(head.length);
      gathered = [];
      gatheredBytes = 0;
    }
    if (rest.length === 0) continue;
    // Copied: the source may use its buffer again.
    gathered.push(Uint8Array.from(rest));
    gatheredBytes += rest.length;
  }
  if (gatheredBytes > 0) yield Buffer.concat(gathered);
}

async function* chain(early: readonly Uint8Array[], late: AsyncGenerator<Uint8Array>): AsyncGenerator<Uint8Array> {
  yield* early;
  yield* late;
}
