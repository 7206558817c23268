/**
 * An S3-compatible bucket as the shared store of a journal. An object is created by a PUT that the store refuses if the name exists
 * (`If-None-Match: *`); a large one in parts, of which the completion is refused. Stores that ignore the condition lose
 * acknowledged commands: before its first create, each process tries whether this one refuses.
 *
 * A conflict is tried again, as is what may be temporary, a few times and for a short while: whoever calls knows better how long to go on. An answer
 * that was lost makes nobody certain, so a later "exists" may mean an attempt of our own: the caller reads it back. Absent is
 * only what the store itself calls so, not any 404. Requests go through our own HTTP client, those of large files and listings by the AWS SDK.
 */

import { ListObjectsV2Command } from "@aws-sdk/client-s3";
import { HeadpondError, isHeadpondError, toHeadpondError } from "../base/errors.ts";
import type { Random } from "../base/random.ts";
import { MiB } from "../base/units.ts";
import type { Clock } from "../io/clock.ts";
import type { Disk, DiskFile } from "../io/disk.ts";
import { digestHex } from "../io/hash.ts";
import { HttpClient } from "../io/http-client.ts";
import type { HttpClientResponse } from "../io/http-client-response.ts";
import type { Logger } from "../io/logger.ts";
import type { Metrics } from "../io/metrics.ts";
import { readRange } from "../under-store/range-reader.ts";
import { RequestGate, type RequestLimits } from "../under-store/request-gate.ts";
import { s3Uri } from "../under-store/s3.ts";
import { S3Connection, type S3Settings } from "../under-store/s3-connection.ts";
import { failureOfBody, s3Error } from "../under-store/s3-errors.ts";
import { S3Upload } from "../under-store/s3-upload.ts";
import { cancellation, throwIfCancelled } from "../under-store/under-store.ts";
import { underStoreMetrics } from "../under-store/under-store-metrics.ts";
import { objectBytesMax, type SharedObject, type SharedStore } from "./shared-store.ts";
import { checkedPrefix, checkSharedName } from "./shared-store-names.ts";

export type SharedBucketLimits = Pick<RequestLimits, "attemptsMax" | "backoffMinMs" | "backoffMaxMs" | "pauseMaxMs"> & {
  /** A whole call, all its attempts together, except for large files. */
  readonly callTimeoutMs: number;
};

export const sharedBucketLimitsDefault: SharedBucketLimits = {
  attemptsMax: 4,
  backoffMinMs: 20,
  backoffMaxMs: 500,
  pauseMaxMs: 2000,
  callTimeoutMs: 10_000,
};

export type SharedBucketDependencies = {
  readonly settings: S3Settings;
  /** Of the files that `upload` reads and `download` writes. */
  readonly disk: Disk;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: Metrics;
  readonly random: Random;
  readonly limits?: Partial<SharedBucketLimits>;
};

const partSizeBytes = 8 * MiB;
const uploadChunkBytes = MiB;
const listPageMax = 1000;
const errorBodyBytesMax = 16 * 1024;

type Attempt = {
  /** It may have taken effect, though no answer says so. */
  mayHaveHappened: boolean;
  readonly signal: AbortSignal;
};

export class SharedBucket implements SharedStore {
  readonly uri: string;
  readonly parallelCalls = 16;
  readonly #connection: S3Connection;
  readonly #gate: RequestGate;
  readonly #http: HttpClient;
  readonly #upload: S3Upload;
  readonly #disk: Disk;
  readonly #clock: Clock;
  readonly #settings: S3Settings;
  readonly #limits: SharedBucketLimits;
  readonly #stop = new AbortController();
  readonly #countRead: (bytes: number) => void;
  /** Whether the store refuses a second create of a name: fulfilled once it has done so. */
  #conditionsTried: Promise<void> | undefined;

  constructor({ settings, disk, clock, logger, metrics, random, limits }: SharedBucketDependencies) {
    this.uri = s3Uri(settings);
    this.#settings = settings;
    this.#disk = disk;
    this.#clock = clock;
    this.#limits = { ...sharedBucketLimitsDefault, ...limits };
    const { attemptsMax, backoffMinMs, backoffMaxMs, pauseMaxMs } = this.#limits;
    const { requestsMax } = settings;
    const counters = underStoreMetrics(metrics);
    this.#countRead = (bytes) => counters.readBytes(bytes, { store: this.uri });
    this.#connection = new S3Connection(settings, clock);
    this.#gate = new RequestGate({
      clock,
      random,
      metrics: counters,
      store: this.uri,
      limits: { requestsMax, attemptsMax, backoffMinMs, backoffMaxMs, pauseMaxMs },
    });
    this.#http = new HttpClient({ clock, limits: { connectionsPerOriginMax: requestsMax } });
    this.#upload = new S3Upload({ connection: this.#connection, gate: this.#gate, logger, partSizeBytes });
  }

  async create(name: string, bytes: Uint8Array, signal?: AbortSignal): Promise<"created" | "exists"> {
    checkSharedName(name);
    if (bytes.length > objectBytesMax) {
      throw new HeadpondError("invalid", `${name} has ${bytes.length} bytes, more than ${objectBytesMax}`);
    }
    return this.#call("create", name, signal, async (attempt) => {
      await this.#tryConditions();
      return this.#put(name, bytes, attempt);
    });
  }

  async read(name: string, signal?: AbortSignal): Promise<Uint8Array | undefined> {
    checkSharedName(name);
    return this.#call("read", name, signal, (attempt) =>
      this.#request("read", name, attempt, "GET", {}, undefined, async (response) => {
        if (response.status === 200) {
          if ((response.lengthBytes ?? 0) > objectBytesMax) {
            throw new HeadpondError(
              "corrupt",
              `${name} has ${response.lengthBytes} bytes, more than ${objectBytesMax}`,
            );
          }
          const bytes = await response.bytes(objectBytesMax);
          this.#countRead(bytes.length);
          return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length);
        }
        const failure = failureOfBody(response.status, response.headers, await response.text(errorBodyBytesMax));
        if (failure.code === "NoSuchKey" || failure.code === "ObjectParentIsFile") return undefined;
        // Of anything else than the store, e.g. a proxy before it: the object may well exist.
        if (failure.status === 404 && failure.code === "") {
          throw new HeadpondError("under-store", `${this.uri}: ${name}: answered 404, but not by the store`);
        }
        throw s3Error(failure, this.#connection.place, name, this.#clock);
      }),
    );
  }

  async list(prefix: string, after: string, limit: number, signal?: AbortSignal): Promise<readonly SharedObject[]> {
    const directory = checkedPrefix(prefix);
    return this.#call("list", directory, signal, async (attempt) => {
      const skipped = this.#connection.objectKey("x").length - 1;
      const found: SharedObject[] = [];
      for (let startAfter = after; found.length < limit; ) {
        const command = new ListObjectsV2Command({
          Bucket: this.#settings.bucket,
          Prefix: this.#connection.childPrefix(directory),
          Delimiter: "/",
          MaxKeys: Math.min(listPageMax, limit - found.length),
          ...(startAfter === "" ? {} : { StartAfter: this.#connection.objectKey(startAfter) }),
        });
        const page = await this.#gate.run("list", attempt.signal, async () => {
          try {
            return await this.#connection.client.send(command, { abortSignal: attempt.signal });
          } catch (error) {
            throw this.#connection.error(error, directory);
          }
        });
        for (const { Key = "", Size = 0 } of page.Contents ?? []) {
          const name = Key.slice(skipped);
          if (name > after && !name.endsWith("/")) found.push({ name, sizeBytes: Size });
        }
        const last = [
          ...(page.Contents ?? []).map(({ Key }) => Key),
          ...(page.CommonPrefixes ?? []).map(({ Prefix }) => Prefix),
        ]
          .map((key) => (key ?? "").slice(skipped))
          .reduce((a, b) => (a > b ? a : b), "");
        if (page.IsTruncated !== true || last <= startAfter) break;
        startAfter = last;
      }
      return found;
    });
  }

  async remove(name: string, signal?: AbortSignal): Promise<void> {
    checkSharedName(name);
    await this.#call("remove", name, signal, (attempt) =>
      this.#request("remove", name, attempt, "DELETE", {}, undefined, async (response) => {
        const body = await response.text(errorBodyBytesMax);
        if (response.status === 200 || response.status === 204) return;
        const failure = failureOfBody(response.status, response.headers, body);
        if (failure.code === "NoSuchKey" || failure.code === "ObjectParentIsFile") return;
        throw s3Error(failure, this.#connection.place, name, this.#clock);
      }),
    );
  }

  async upload(name: string, path: string, signal?: AbortSignal): Promise<"created" | "exists"> {
    checkSharedName(name);
    const file = await this.#disk.open(path, "read");
    try {
      const { sizeBytes } = await file.stat();
      return await this.#call(
        "upload",
        name,
        signal,
        async (attempt) => {
          await this.#tryConditions();
          attempt.mayHaveHappened = true;
          try {
            const body = chunksOf(file);
            await this.#upload.write(name, { body, sizeBytes, ifAbsent: true, signal: attempt.signal });
            return "created";
          } catch (error) {
            if (isHeadpondError(error, "already-exists")) return "exists";
            throw error;
          }
        },
        Number.POSITIVE_INFINITY,
      );
    } finally {
      await file.close();
    }
  }

  async download(name: string, path: string, signal?: AbortSignal): Promise<{ readonly bytes: number } | undefined> {
    checkSharedName(name);
    return this.#call(
      "download",
      name,
      signal,
      async (attempt) => {
        const found = await this.#head(name, attempt);
        if (found === undefined) return undefined;
        const target = await this.#disk.open(path, "create");
        try {
          await this.#fill(target, name, found, attempt.signal);
          await target.datasync();
          await target.close();
          await this.#disk.syncDirectory(path.slice(0, Math.max(1, path.lastIndexOf("/"))));
          return { bytes: found.sizeBytes };
        } catch (error) {
          await target.close();
          await this.#disk.unlink(path).catch(() => {});
          throw error;
        }
      },
      Number.POSITIVE_INFINITY,
    );
  }

  async close(): Promise<void> {
    this.#stop.abort(new HeadpondError("cancelled", `${this.uri} is closed`));
    this.#connection.close();
    await this.#http.close();
  }

  async #put(name: string, bytes: Uint8Array, attempt: Attempt): Promise<"created" | "exists"> {
    const sum = digestHex("sha256", bytes);
    const headers = { "if-none-match": "*", "content-type": "application/octet-stream" };
    return this.#request("create", name, attempt, "PUT", headers, { bytes, sum }, async (response) => {
      const body = await response.text(errorBodyBytesMax);
      if (response.status === 200 || response.status === 201) return "created";
      if (response.status === 412) return "exists";
      const failure = failureOfBody(response.status, response.headers, body);
      const error = s3Error(failure, this.#connection.place, name, this.#clock);
      // A conflict with another create of the name: nothing was written by this one.
      if (failure.status === 409) throw new HeadpondError("under-store", error.message, { cause: error });
      // A store that throttles says so; any other failure may come from between us and the store, after it has written.
      if (failure.status >= 500 && failure.code !== "SlowDown") attempt.mayHaveHappened = true;
      throw error;
    });
  }

  async #head(
    name: string,
    attempt: Attempt,
  ): Promise<{ readonly etag: string; readonly sizeBytes: number } | undefined> {
    return this.#request("head", name, attempt, "HEAD", {}, undefined, async (response) => {
      response.destroy();
      const { status, headers, lengthBytes } = response;
      if (status === 404) return undefined;
      const etag = headers["etag"];
      if (status === 200 && etag !== undefined && lengthBytes !== undefined) return { etag, sizeBytes: lengthBytes };
      throw s3Error(failureOfBody(status, headers, ""), this.#connection.place, name, this.#clock);
    });
  }

  async #fill(
    target: DiskFile,
    name: string,
    { etag, sizeBytes }: { readonly etag: string; readonly sizeBytes: number },
    signal: AbortSignal,
  ): Promise<void> {
    if (sizeBytes === 0) return;
    let position = 0;
    const onChunk = async (chunk: Uint8Array): Promise<void> => {
      await target.write(chunk, position);
      position += chunk.length;
    };
    await readRange(
      { position: 0, length: sizeBytes, etag, signal, onChunk },
      {
        gate: this.#gate,
        name: `${this.uri}/${name}`,
        get: async (range, rangeSignal) => {
          const request = await this.#connection.signedGet(name, { range, "if-match": etag });
          const idleTimeoutMs = this.#settings.requestTimeoutMs;
          return this.#http.request({ ...request, method: "GET", idleTimeoutMs, signal: rangeSignal ?? signal });
        },
        etagOf: (headers) => headers["etag"],
        error: (status, headers, body) =>
          s3Error(failureOfBody(status, headers, body), this.#connection.place, name, this.#clock),
        count: this.#countRead,
      },
    );
  }

  /** One request until it is answered; `answer` throws what the gate may try again. */
  #request<T>(
    operation: string,
    name: string,
    attempt: Attempt,
    method: "GET" | "HEAD" | "PUT" | "DELETE",
    headers: Readonly<Record<string, string>>,
    body: { readonly bytes: Uint8Array; readonly sum: string } | undefined,
    answer: (response: HttpClientResponse) => Promise<T>,
  ): Promise<T> {
    return this.#gate.run(operation, attempt.signal, async () => {
      const request = await this.#connection.signed(method, name, headers, body?.sum);
      try {
        const response = await this.#http.request({
          ...request,
          method,
          signal: attempt.signal,
          idleTimeoutMs: this.#settings.requestTimeoutMs,
          connectTimeoutMs: this.#settings.requestTimeoutMs,
          ...(body === undefined ? {} : { body: body.bytes }),
        });
        return await answer(response);
      } catch (error) {
        const ours = toHeadpondError(error);
        const isOfNetwork = ours.code === "unavailable" || ours.code === "timeout";
        const changes = method === "PUT" || method === "DELETE";
        if (changes && (attempt.signal.aborted || (isOfNetwork && !neverSent(error)))) attempt.mayHaveHappened = true;
        if (!isOfNetwork) throw ours;
        throw new HeadpondError("under-store", `${this.uri}: ${name}: ${ours.message}`, { cause: error });
      }
    });
  }

  /** Throws `unsupported` for a store that overwrites. */
  async #tryConditions(): Promise<void> {
    this.#conditionsTried ??= this.#probe();
    try {
      await this.#conditionsTried;
    } catch (error) {
      this.#conditionsTried = undefined;
      throw error;
    }
  }

  async #probe(): Promise<void> {
    const name = `probes/${crypto.randomUUID()}`;
    const attempt: Attempt = { mayHaveHappened: false, signal: this.#stop.signal };
    await this.#put(name, new TextEncoder().encode("first"), attempt);
    const second = await this.#put(name, new TextEncoder().encode("second"), attempt);
    await this.remove(name);
    if (second === "exists") return;
    throw new HeadpondError(
      "unsupported",
      `${this.uri} took a second object under one name in spite of If-None-Match: it cannot keep a shared journal, which would lose commands there: use a store that honours conditional writes`,
    );
  }

  /** Errors as the interface has them, and none later than the timeout. */
  async #call<T>(
    what: string,
    name: string,
    signal: AbortSignal | undefined,
    body: (attempt: Attempt) => Promise<T>,
    timeoutMs: number = this.#limits.callTimeoutMs,
  ): Promise<T> {
    throwIfCancelled(signal);
    throwIfCancelled(this.#stop.signal);
    const timeout = new AbortController();
    const late = new HeadpondError("unavailable", `${this.uri}: ${what} ${name}: no answer within ${timeoutMs} ms`);
    const timer = Number.isFinite(timeoutMs) ? this.#clock.timer(timeoutMs, () => timeout.abort(late)) : undefined;
    const signals = [timeout.signal, this.#stop.signal, ...(signal === undefined ? [] : [signal])];
    const attempt: Attempt = { mayHaveHappened: false, signal: AbortSignal.any(signals) };
    try {
      return await body(attempt);
    } catch (error) {
      const outcome = attempt.mayHaveHappened ? "unknown" : "none";
      if (attempt.signal.aborted) {
        const { code, message } = cancellation(attempt.signal);
        throw new HeadpondError(code, message, { cause: error, outcome });
      }
      const ours = toHeadpondError(error);
      const isKept = ["no-space", "denied", "cancelled", "unsupported", "invalid", "corrupt"].includes(ours.code);
      const text = `${this.uri}: ${what} ${name}: ${ours.message}`;
      throw new HeadpondError(isKept ? ours.code : "unavailable", text, { cause: error, outcome });
    } finally {
      timer?.clear();
    }
  }
}

/** Whether the request cannot have reached the store. */
function neverSent(error: unknown): boolean {
  for (let at = error; at !== undefined && at !== null; at = (at as { readonly cause?: unknown }).cause) {
    const { code } = at as { readonly code?: string };
    if (code === "ECONNREFUSED" || code === "ENOTFOUND" || code === "EAI_AGAIN" || code === "EHOSTUNREACH") return true;
  }
  return false;
}

async function* chunksOf(file: DiskFile): AsyncGenerator<Uint8Array> {
  for (let position = 0; ; ) {
    const chunk = new Uint8Array(uploadChunkBytes);
    const count = await file.read(chunk, position);
    if (count === 0) return;
    yield chunk.subarray(0, count);
    position += count;
  }
}
