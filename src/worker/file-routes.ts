/** `GET|HEAD /v1/files/<fileVersionId>`: verified bytes for readers. */

import { errorTable, HeadpondError, isHeadpondError, toHeadpondError } from "../base/errors.ts";
import type { FileDescriptor } from "../base/file.ts";
import { parseFileVersionId } from "../base/ids.ts";
import type { FileSender } from "../io/file-sender.ts";
import type { HttpRequest } from "../io/http-request.ts";
import type { HttpResponse } from "../io/http-response.ts";
import { checkConditions, parseRange } from "./byte-range.ts";
import type { Descriptors } from "./descriptors.ts";
import type { ByteSink, Reader } from "./reader.ts";

export class FileRoutes {
  readonly #descriptors: Descriptors;
  readonly #reader: Reader;
  readonly #sender: FileSender | undefined;
  readonly #streamsMax: number;
  #streams = 0;

  constructor(options: {
    readonly descriptors: Descriptors;
    readonly reader: Reader;
    /** Absent: all bytes go through this thread. */
    readonly sender?: FileSender | undefined;
    /** Bodies on their way at once; more are answered `429`. */
    readonly streamsMax: number;
  }) {
    this.#descriptors = options.descriptors;
    this.#reader = options.reader;
    this.#sender = options.sender;
    this.#streamsMax = options.streamsMax;
  }

  get openStreams(): number {
    return this.#streams;
  }

  async serve(request: HttpRequest, response: HttpResponse, idText: string): Promise<void> {
    const { id } = parseFileVersionId(idText);
    const file = await this.#descriptors.find(id);
    const etag = `"${id}"`;
    const { headers } = request;
    const verdict = checkConditions(
      { ifMatch: headers["if-match"], ifNoneMatch: headers["if-none-match"], ifRange: headers["if-range"] },
      etag,
    );
    if (verdict === "not-modified") return response.empty(304, { etag });
    if (verdict === "precondition-failed") {
      throw new HeadpondError("version-mismatch", `${file.path} is ${etag}, not ${headers["if-match"]}`);
    }
    const range = parseRange(verdict === "ignore-range" ? undefined : headers["range"], file.sizeBytes);
    if (range.kind === "unsatisfiable") {
      const message = `${file.path} has ${file.sizeBytes} bytes: ${headers["range"]} is outside`;
      return response.error(new HeadpondError("invalid", message), 416, {
        "content-range": `bytes */${file.sizeBytes}`,
        "accept-ranges": "bytes",
        etag,
      });
    }
    const { position, length } = range.kind === "part" ? range : { position: 0, length: file.sizeBytes };
    const head = {
      "content-length": length,
      "content-type": "application/octet-stream",
      "accept-ranges": "bytes",
      "last-modified": new Date(file.modifiedMs).toUTCString(),
      etag,
      ...(range.kind === "part"
        ? { "content-range": `bytes ${position}-${position + length - 1}/${file.sizeBytes}` }
        : {}),
    };
    const status = range.kind === "part" ? 206 : 200;
    if (request.method === "HEAD" || length === 0) {
      response.head(status, head);
      return response.end();
    }
    await this.#stream(request, response, file, { position, length }, () => response.head(status, head));
  }

  async #stream(
    request: HttpRequest,
    response: HttpResponse,
    file: FileDescriptor,
    range: { readonly position: number; readonly length: number },
    sendHead: () => void,
  ): Promise<void> {
    if (this.#streams >= this.#streamsMax) {
      throw new HeadpondError("overloaded", `this worker serves ${this.#streamsMax} streams already`, {
        details: { retryAfterMs: 1000 },
      });
    }
    this.#streams++;
    try {
      // The head waits for the first checked bytes: an error before them still has a status of its own.
      const sender = this.#sender;
      const sink: ByteSink = {
        write: (bytes) => {
          if (!response.headSent) sendHead();
          return response.write(bytes);
        },
        ...(sender?.isUsable === true && response.canSendFile
          ? {
              sendFile: (range, onSent) => {
                if (!response.headSent) sendHead();
                return response.sendFile(sender, range, onSent);
              },
            }
          : {}),
      };
      await this.#reader.read(file, { ...range, signal: request.signal }, sink);
      response.end();
    } catch (error) {
      if (response.headSent) throw error;
      answerReadError(response, error);
    } finally {
      this.#streams--;
    }
  }
}

/** As the error table says, except that content which is gone for good is `410`, not a failed precondition. */
export function answerReadError(
  response: HttpResponse,
  thrown: unknown,
  headers: Readonly<Record<string, string>> = {},
): void {
  const error = toHeadpondError(thrown);
  const isGone = isHeadpondError(error, "version-mismatch") && error.details?.["gone"] === true;
  response.error(error, isGone ? 410 : errorTable[error.code].httpStatus, headers);
}
