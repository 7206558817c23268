/**
 * Ranges of one content over HTTP, for S3 and web servers alike. An answer is believed only if it says that it is the
 * range that was asked for, of the content that was asked for; a body that breaks off is taken up from where it broke;
 * the reader never gets a byte twice, nor one more than it asked for.
 */

import { HeadpondError, toHeadpondError } from "../base/errors.ts";
import { MiB } from "../base/units.ts";
import type { HttpClientResponse } from "../io/http-client-response.ts";
import { type ContentRange, parseContentRange } from "./http-headers.ts";
import type { RequestGate } from "./request-gate.ts";
import { CallerError, handOver, type ReadOptions } from "./under-store.ts";

export type HttpHeaders = Readonly<Record<string, string>>;

export type RangeSource = {
  readonly gate: RequestGate;
  /** For messages. */
  readonly name: string;
  /** Sends a conditional GET with this `Range`; resolves with the head of the answer. */
  readonly get: (range: string, signal: AbortSignal | undefined) => Promise<HttpClientResponse>;
  /** The identity of the content that an answer carries; undefined if it does not tell. */
  readonly etagOf: (headers: HttpHeaders, totalBytes: number | undefined) => string | undefined;
  /** An answer other than 200 and 206. */
  readonly error: (status: number, headers: HttpHeaders, body: string) => HeadpondError;
  /** Told of all bytes that came, wanted or not. */
  readonly count: (bytes: number) => void;
};

/** An answer that ignores the range is used if no more than this must be thrown away before it and the object is no longer. */
const wholeBodyBytesMax = 16 * MiB;
const errorBodyBytesMax = 16 * 1024;

export async function readRange(options: ReadOptions, source: RangeSource): Promise<void> {
  const { position, length, signal } = options;
  if (!Number.isSafeInteger(position) || !Number.isSafeInteger(length) || position < 0 || length < 1) {
    throw new HeadpondError("invalid", `${source.name}: not a range: ${position} + ${length}`);
  }
  const progress = { doneBytes: 0 };
  while (progress.doneBytes < length) {
    const beforeBytes = progress.doneBytes;
    await source.gate.run("read", signal, async () => {
      // What was handed over by an attempt that broke stays handed over.
      if (progress.doneBytes < length) await readOnce(options, source, progress);
    });
    if (progress.doneBytes === beforeBytes) {
      throw new HeadpondError("under-store", `${source.name}: the store sends nothing of the range`);
    }
  }
}

async function readOnce(options: ReadOptions, source: RangeSource, progress: { doneBytes: number }): Promise<void> {
  const { position, length, etag, signal, onChunk, into } = options;
  const first = position + progress.doneBytes;
  const last = position + length - 1;
  const response = await requested(() => source.get(`bytes=${first}-${last}`, signal));
  try {
    if (response.status !== 206 && response.status !== 200) {
      const body = await requested(() => response.text(errorBodyBytesMax).catch(() => ""));
      throw source.error(response.status, response.headers, body);
    }
    const range = coveredRange(response, source.name);
    const { totalBytes } = range;
    const found = source.etagOf(response.headers, totalBytes);
    if (found !== etag) {
      throw new HeadpondError("version-mismatch", `${source.name} is ${found ?? "of no known content"}, not ${etag}`);
    }
    if (totalBytes !== undefined && last >= totalBytes) {
      throw new HeadpondError("invalid", `${source.name} has ${totalBytes} bytes, not ${position} + ${length}`);
    }
    if (range.first > first || range.last < first) {
      throw new HeadpondError(
        "under-store",
        `${source.name}: asked for bytes from ${first}, got ${range.first}-${range.last}`,
      );
    }
    let skipBytes = first - range.first;
    const place = into === undefined || skipBytes > 0 ? {} : { into: into.subarray(progress.doneBytes, length) };
    await requested(() =>
      response.consume((chunk) => {
        source.count(chunk.length);
        const skipped = Math.min(skipBytes, chunk.length);
        skipBytes -= skipped;
        const wanted = chunk.subarray(skipped, skipped + length - progress.doneBytes);
        if (wanted.length === 0) {
          if (progress.doneBytes === length) throw enough;
          return;
        }
        progress.doneBytes += wanted.length;
        const isLast = progress.doneBytes === length && range.last > last;
        const taken = handOver(onChunk, wanted);
        if (isLast && taken === undefined) throw enough;
        return isLast ? taken?.then(() => Promise.reject(enough)) : taken;
      }, place),
    );
    const expected = Math.min(range.last, last) - position + 1;
    if (progress.doneBytes < expected) {
      throw new HeadpondError(
        "under-store",
        `${source.name}: the body ended ${expected - progress.doneBytes} bytes early`,
      );
    }
  } catch (error) {
    if (error !== enough) throw error;
  } finally {
    // Harmless after the end of the body.
    response.destroy();
  }
}

/** Ends a body of which the rest is not wanted. */
const enough = new Error("the rest of the body is not wanted");

/** Which bytes of the object an answer holds. */
function coveredRange(response: HttpClientResponse, name: string): ContentRange {
  const { status, headers, lengthBytes } = response;
  if (headers["content-encoding"] !== undefined && headers["content-encoding"] !== "identity") {
    throw new HeadpondError("unsupported", `${name}: the server sends it as ${headers["content-encoding"]}, unasked`);
  }
  if (status === 206) {
    const range = parseContentRange(headers["content-range"]);
    const isConsistent =
      range !== undefined && (lengthBytes === undefined || lengthBytes === range.last - range.first + 1);
    if (range !== undefined && isConsistent) return range;
    const said = `content-range ${headers["content-range"]}, content-length ${lengthBytes}`;
    throw new HeadpondError("under-store", `${name}: the answer to a range does not say which: ${said}`);
  }
  if (lengthBytes === undefined || lengthBytes > wholeBodyBytesMax) {
    const size = lengthBytes === undefined ? "an unknown number of" : lengthBytes;
    throw new HeadpondError(
      "unsupported",
      `${name}: the server ignores ranges, and ${size} bytes are too many to read for each: use one that knows ranges`,
    );
  }
  return { first: 0, last: lengthBytes - 1, totalBytes: lengthBytes };
}

/** Runs a step of a request; what breaks on the way is a fault of the store that may be tried again. */
export async function requested<T>(step: () => Promise<T>): Promise<T> {
  try {
    return await step();
  } catch (error) {
    if (error === enough || error instanceof CallerError) throw error;
    const ours = toHeadpondError(error);
    if (ours.code === "cancelled" || ours.code === "unsupported" || ours.code === "denied") throw ours;
    if (ours.code === "invalid" || ours.code === "under-store" || ours.code === "overloaded") throw ours;
    throw new HeadpondError("under-store", ours.message, { cause: error });
  }
}
