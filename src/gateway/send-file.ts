/**
 * A file's bytes as the body of a response. The status goes out only when the first bytes are there, so that a file that
 * cannot be had is answered with an error and not with a broken body; what breaks later cuts the connection. The client's
 * pace is the workers' pace.
 */

import { HeadpondError } from "../base/errors.ts";
import type { HeadpondFile } from "../client/file.ts";
import { within } from "../client/within.ts";
import type { Clock } from "../io/clock.ts";
import type { HttpRequest } from "../io/http-request.ts";
import type { HttpHeaders, HttpResponse } from "../io/http-response.ts";

export type FileBody = {
  readonly file: HeadpondFile;
  readonly position: number;
  readonly length: number;
  readonly status: 200 | 206;
  /** Without `content-length`, which is added. */
  readonly headers: HttpHeaders;
  readonly clock: Clock;
  /** How long the first bytes may take. */
  readonly firstBytesMs: number;
};

export async function sendFile(request: HttpRequest, response: HttpResponse, body: FileBody): Promise<void> {
  const { file, position, length, status, clock, firstBytesMs } = body;
  const headers = { ...body.headers, "content-length": length };
  if (length === 0 || request.method === "HEAD") {
    response.head(status, headers);
    response.end();
    return;
  }
  const stop = new AbortController();
  const signal = AbortSignal.any([request.signal, stop.signal]);
  const chunks = file.borrowedStream({ position, length, signal, patienceMs: firstBytesMs });
  try {
    const what = `first bytes of ${file.descriptor.path}`;
    let next = await within(chunks.next(), clock, { timeoutMs: firstBytesMs, signal: request.signal }, what);
    response.head(status, headers);
    while (next.done !== true) {
      await response.write(next.value);
      next = await chunks.next();
    }
    response.end();
  } catch (error) {
    stop.abort(new HeadpondError("cancelled", `${file.descriptor.path}: the response ended early`));
    throw error;
  }
}
