/**
 * S3 and what speaks its protocol. Directories are what keys have in common before a slash; an empty object whose key
 * ends with a slash keeps an empty directory. Bulk bytes come through our own HTTP client, everything else through the SDK.
 *
 * Keys that the namespace cannot express are skipped in listings and counted: parts that are empty (`a//b`), `.`, `..`, too long
 * or not Unicode. Where `x` and `x/y` both exist, the object `x` is seen, and what is below `x/` is not.
 */

import {
  DeleteObjectCommand,
  HeadObjectCommand,
  type HeadObjectCommandOutput,
  ListObjectsV2Command,
  type ListObjectsV2CommandOutput,
  PutObjectCommand,
} from "@aws-sdk/client-s3";
import { HeadpondError, isHeadpondError } from "../base/errors.ts";
import type { ContentDigest } from "../base/file.ts";
import { MiB } from "../base/units.ts";
import type { Clock } from "../io/clock.ts";
import type { HttpClient } from "../io/http-client.ts";
import type { Logger } from "../io/logger.ts";
import { readRange } from "./range-reader.ts";
import type { RequestGate } from "./request-gate.ts";
import { S3Connection, type S3Settings } from "./s3-connection.ts";
import { failureOfBody, s3Error } from "./s3-errors.ts";
import { type ListedObject, S3Listing } from "./s3-listing.ts";
import { checkedEtag, partSizeBytesDefault, S3Upload } from "./s3-upload.ts";
import {
  type CallOptions,
  checkFileKey,
  checkKey,
  type ListEntry,
  type ListOptions,
  type ListPage,
  type ObjectInfo,
  type ReadOptions,
  throwIfCancelled,
  type UnderStore,
  type UnderStoreTraits,
  unwrapCaller,
  type WriteOptions,
} from "./under-store.ts";
import type { UnderStoreMetrics } from "./under-store-metrics.ts";

export type S3UnderStoreDependencies = {
  readonly settings: S3Settings;
  readonly partSizeBytes?: number;
  /** Larger objects are copied in parts when they are renamed. */
  readonly copySizeBytesMax?: number;
  readonly gate: RequestGate;
  /** Closed with the store. */
  readonly http: HttpClient;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: UnderStoreMetrics;
};

/** S3's own limit for a page. */
const listPageMax = 1000;
/** Objects moved at once while a directory is renamed. */
const movesActiveMax = 16;

export class S3UnderStore implements UnderStore {
  readonly uri: string;
  readonly traits: UnderStoreTraits = {
    writable: true,
    exclusiveWrites: true,
    rename: "copy",
    listPageMax,
    readBytesPreferred: 16 * MiB,
  };
  readonly #connection: S3Connection;
  readonly #gate: RequestGate;
  readonly #http: HttpClient;
  readonly #clock: Clock;
  readonly #metrics: UnderStoreMetrics;
  readonly #listing: S3Listing;
  readonly #upload: S3Upload;
  readonly #bucket: string;
  readonly #requestTimeoutMs: number;

  constructor(dependencies: S3UnderStoreDependencies) {
    const { settings, partSizeBytes, copySizeBytesMax, gate, http, clock, logger, metrics } = dependencies;
    this.uri = s3Uri(settings);
    this.#connection = new S3Connection(settings, clock);
    this.#gate = gate;
    this.#http = http;
    this.#clock = clock;
    this.#metrics = metrics;
    this.#listing = new S3Listing({ uri: this.uri, logger, metrics });
    this.#upload = new S3Upload({
      connection: this.#connection,
      gate,
      logger,
      partSizeBytes: partSizeBytes ?? partSizeBytesDefault,
      ...(copySizeBytesMax === undefined ? {} : { copySizeBytesMax }),
    });
    this.#bucket = settings.bucket;
    this.#requestTimeoutMs = settings.requestTimeoutMs;
  }

  async list(directoryKey: string, options: ListOptions = {}): Promise<ListPage> {
    checkKey(directoryKey);
    const { token, coveredFiles } = this.#listing.resume(options.continuation);
    const prefix = this.#connection.childPrefix(directoryKey);
    const output = await this.#listObjects(directoryKey, prefix, options, token);
    return this.#listing.page(directoryKey, prefix, output, coveredFiles);
  }

  async head(key: string, { signal }: CallOptions = {}): Promise<ListEntry | undefined> {
    checkKey(key);
    if (key !== "") {
      const output = await this.#headObject(key, signal);
      if (output !== undefined) return { kind: "file", info: infoOfHead(key, output) };
    }
    const children = await this.#listObjects(key, this.#connection.childPrefix(key), { limit: 1, ...optional(signal) });
    // The mount itself is always there; that the bucket is has just been seen.
    const isDirectory = key === "" || (children.KeyCount ?? 0) > 0 || (children.Contents?.length ?? 0) > 0;
    return isDirectory ? { kind: "directory", key } : undefined;
  }

  async read(key: string, options: ReadOptions): Promise<void> {
    checkFileKey(key);
    try {
      if (options.length === 0) await this.#checkEtag(key, options);
      else {
        await readRange(options, {
          gate: this.#gate,
          name: `${this.uri}/${key}`,
          get: async (range, signal) => {
            const request = await this.#connection.signedGet(key, { range, "if-match": options.etag });
            return this.#http.request({
              ...request,
              method: "GET",
              idleTimeoutMs: this.#requestTimeoutMs,
              ...optional(signal),
            });
          },
          etagOf: (headers) => headers["etag"],
          error: (status, headers, body) =>
            s3Error(failureOfBody(status, headers, body), this.#connection.place, key, this.#clock),
          count: (bytes) => this.#metrics.readBytes(bytes, { store: this.uri }),
        });
      }
    } catch (error) {
      throw unwrapCaller(error);
    }
  }

  async write(key: string, options: WriteOptions): Promise<ObjectInfo> {
    checkFileKey(key);
    throwIfCancelled(options.signal);
    let written: { readonly etag: string; readonly sizeBytes: number };
    try {
      written = await this.#upload.write(key, options);
    } catch (error) {
      throw unwrapCaller(error);
    }
    const output = await this.#headObject(key, options.signal);
    if (output?.ETag === written.etag) return infoOfHead(key, output);
    // Somebody has replaced it since. Ours did exist: what is told is what was written.
    return { key, ...written, modifiedMs: Math.floor(this.#clock.wallMs()) };
  }

  async makeDirectory(key: string, { signal }: CallOptions = {}): Promise<void> {
    checkKey(key);
    if (key === "") return;
    if ((await this.#headObject(key, signal)) !== undefined) {
      throw new HeadpondError("not-a-directory", `${key} is an object in ${this.uri}`);
    }
    await this.#putMarker(key, this.#connection.childPrefix(key), signal);
  }

  async remove(key: string, { signal }: CallOptions = {}): Promise<void> {
    checkFileKey(key);
    await this.#delete(key, this.#connection.objectKey(key), signal);
  }

  async removeDirectory(key: string, { signal }: CallOptions = {}): Promise<void> {
    checkFileKey(key);
    const prefix = this.#connection.childPrefix(key);
    const output = await this.#listObjects(key, prefix, { limit: 2, ...optional(signal) });
    const objects = this.#listing.objectsOf(output);
    if ((output.CommonPrefixes?.length ?? 0) > 0 || objects.some(({ objectKey }) => objectKey !== prefix)) {
      throw new HeadpondError("not-empty", `${key} is not empty in ${this.uri}`);
    }
    if (objects.length > 0) await this.#delete(key, prefix, signal);
  }

  async rename(from: string, to: string, { signal }: CallOptions = {}): Promise<void> {
    checkFileKey(from);
    checkFileKey(to);
    if (to.startsWith(`${from}/`))
      throw new HeadpondError("invalid", `${from} cannot be renamed to ${to}, below itself`);
    const source = await this.#headObject(from, signal);
    if (from === to && source !== undefined) return;
    if (source !== undefined) {
      const { sizeBytes, etag } = infoOfHead(from, source);
      const object = { objectKey: this.#connection.objectKey(from), sizeBytes, etag };
      await this.#move(from, object, this.#connection.objectKey(to), signal);
      return;
    }
    await this.#renameDirectory(from, to, signal);
  }

  async close(): Promise<void> {
    this.#connection.close();
    await this.#http.close();
  }

  /** Object by object: what a crash leaves behind is moved by the next try. */
  async #renameDirectory(from: string, to: string, signal: AbortSignal | undefined): Promise<void> {
    const [fromPrefix, toPrefix] = [this.#connection.childPrefix(from), this.#connection.childPrefix(to)];
    for (let moved = 0; ; ) {
      const command = { Bucket: this.#bucket, Prefix: fromPrefix, EncodingType: "url" as const };
      const output = await this.#call("list", from, signal, (sending) =>
        this.#connection.client.send(new ListObjectsV2Command(command), sending),
      );
      const objects = this.#listing.objectsOf(output);
      if (objects.length === 0 && moved === 0) throw new HeadpondError("not-found", `${from} is not in ${this.uri}`);
      if (objects.length === 0 || from === to) return;
      for (let at = 0; at < objects.length; at += movesActiveMax) {
        const batch = objects.slice(at, at + movesActiveMax);
        await Promise.all(
          batch.map((each) => this.#move(from, each, toPrefix + each.objectKey.slice(fromPrefix.length), signal)),
        );
      }
      moved += objects.length;
    }
  }

  async #move(key: string, object: ListedObject, target: string, signal: AbortSignal | undefined): Promise<void> {
    // Some stores keep what ends with a slash as a directory, which cannot be copied.
    if (target.endsWith("/") && object.sizeBytes === 0) await this.#putMarker(key, target, signal);
    else await this.#upload.copy(key, object, target, signal);
    await this.#delete(key, object.objectKey, signal);
  }

  async #putMarker(key: string, objectKey: string, signal: AbortSignal | undefined): Promise<void> {
    const command = new PutObjectCommand({ Bucket: this.#bucket, Key: objectKey, Body: new Uint8Array() });
    await this.#call("put", key, signal, (sending) => this.#connection.client.send(command, sending));
  }

  async #delete(key: string, objectKey: string, signal: AbortSignal | undefined): Promise<void> {
    const command = new DeleteObjectCommand({ Bucket: this.#bucket, Key: objectKey });
    try {
      await this.#call("delete", key, signal, (sending) => this.#connection.client.send(command, sending));
    } catch (error) {
      const isGone =
        isHeadpondError(error, "not-found", "not-a-directory") && !error.message.includes("bucket does not");
      if (!isGone) throw error;
    }
  }

  async #checkEtag(key: string, { etag, position, signal }: ReadOptions): Promise<void> {
    const output = await this.#headObject(key, signal);
    if (output === undefined) throw new HeadpondError("not-found", `${key} is not in ${this.uri}`);
    const { etag: found, sizeBytes } = infoOfHead(key, output);
    if (found !== etag) throw new HeadpondError("version-mismatch", `${key} is ${found}, not ${etag}`);
    if (position > sizeBytes) throw new HeadpondError("invalid", `${key} has ${sizeBytes} bytes, not ${position}`);
  }

  async #headObject(key: string, signal: AbortSignal | undefined): Promise<HeadObjectCommandOutput | undefined> {
    const command = new HeadObjectCommand({
      Bucket: this.#bucket,
      Key: this.#connection.objectKey(key),
      ChecksumMode: "ENABLED",
    });
    try {
      return await this.#call("head", key, signal, (sending) => this.#connection.client.send(command, sending));
    } catch (error) {
      // A HEAD cannot say whether key or bucket is missing; the listing that follows can.
      if (isHeadpondError(error, "not-found", "not-a-directory")) return undefined;
      throw error;
    }
  }

  async #listObjects(
    directoryKey: string,
    prefix: string,
    { limit, signal }: ListOptions,
    token?: string,
  ): Promise<ListObjectsV2CommandOutput> {
    const command = new ListObjectsV2Command({
      Bucket: this.#bucket,
      Prefix: prefix,
      Delimiter: "/",
      EncodingType: "url",
      MaxKeys: Math.max(1, Math.min(limit ?? listPageMax, listPageMax)),
      ...(token === undefined ? {} : { ContinuationToken: token }),
    });
    return this.#call("list", directoryKey, signal, (sending) => this.#connection.client.send(command, sending));
  }

  async #call<T>(
    operation: string,
    key: string,
    signal: AbortSignal | undefined,
    send: (options: { readonly abortSignal?: AbortSignal }) => Promise<T>,
  ): Promise<T> {
    return this.#gate.run(operation, signal, async () => {
      try {
        return await send(signal === undefined ? {} : { abortSignal: signal });
      } catch (error) {
        throw this.#connection.error(error, key);
      }
    });
  }
}

export function s3Uri({ bucket, prefix }: Pick<S3Settings, "bucket" | "prefix">): string {
  return prefix === "" ? `s3://${bucket}` : `s3://${bucket}/${prefix}`;
}

function optional(signal: AbortSignal | undefined): { readonly signal?: AbortSignal } {
  return signal === undefined ? {} : { signal };
}

function infoOfHead(key: string, output: HeadObjectCommandOutput): ObjectInfo {
  const digest = digestOf(output);
  return {
    key,
    sizeBytes: output.ContentLength ?? 0,
    etag: checkedEtag(output.ETag, key),
    modifiedMs: output.LastModified?.getTime() ?? 0,
    ...(digest === undefined ? {} : { digest }),
  };
}

/** A checksum of the whole content. Those of a multipart upload may be checksums of checksums: they say nothing here. */
function digestOf(output: HeadObjectCommandOutput): ContentDigest | undefined {
  const isOfParts =
    output.ChecksumType === "COMPOSITE" ||
    /-\d+"?$/.test(output.ChecksumSHA256 ?? output.ChecksumCRC32C ?? output.ChecksumCRC32 ?? "");
  if (isOfParts) return undefined;
  if (output.ChecksumSHA256) return { algorithm: "sha256", value: hexOf(output.ChecksumSHA256) };
  if (output.ChecksumCRC32C) return { algorithm: "crc32c", value: hexOf(output.ChecksumCRC32C) };
  return output.ChecksumCRC32 ? { algorithm: "crc32", value: hexOf(output.ChecksumCRC32) } : undefined;
}

function hexOf(base64: string): string {
  return Buffer.from(base64, "base64").toString("hex");
}
