/** One request as a handler sees it. The body is read at most once, and never without a limit. */

import type { IncomingMessage, ServerResponse } from "node:http";
import { HeadpondError } from "../base/errors.ts";
import type { Clock } from "./clock.ts";
import type { HttpLimits } from "./http-limits.ts";
import { socketAddress } from "./tcp-connection.ts";

export class HttpRequest {
  readonly method: string;
  /** As it came: path and query, undecoded. */
  readonly target: string;
  /** The part of `target` before the question mark, undecoded. */
  readonly path: string;
  /** Names in lower case. */
  readonly headers: Readonly<Record<string, string | undefined>>;
  /** `host:port` of the client. */
  readonly remote: string;
  readonly #incoming: IncomingMessage;
  readonly #limits: HttpLimits;
  readonly #clock: Clock;
  readonly #gone = new AbortController();
  #query: URLSearchParams | undefined;

  constructor(incoming: IncomingMessage, outgoing: ServerResponse, limits: HttpLimits, clock: Clock) {
    this.#incoming = incoming;
    this.#limits = limits;
    this.#clock = clock;
    this.method = incoming.method ?? "GET";
    this.target = originForm(incoming.url ?? "/");
    const mark = this.target.indexOf("?");
    this.path = mark === -1 ? this.target : this.target.slice(0, mark);
    this.headers = incoming.headers as Record<string, string | undefined>;
    this.remote = socketAddress(incoming.socket);
    outgoing.once("close", () => {
      if (!outgoing.writableFinished) this.#gone.abort(clientGone(this.remote));
    });
  }

  /** Fires when the client leaves before the response is out. */
  get signal(): AbortSignal {
    return this.#gone.signal;
  }

  get query(): URLSearchParams {
    this.#query ??= new URLSearchParams(this.target.slice(this.path.length + 1));
    return this.#query;
  }

  /** `Content-Length`, if the client gave one. */
  get lengthBytes(): number | undefined {
    const text = this.headers["content-length"];
    return text === undefined ? undefined : Number(text);
  }

  /** Whether the whole body has arrived. */
  get complete(): boolean {
    return this.#incoming.complete;
  }

  /**
   * The body, piece by piece; the client is slowed down to the reader's pace. Throws `invalid` beyond `bytesMax`,
   * `timeout` when the client pauses for too long, `cancelled` when it leaves.
   */
  async *stream(bytesMax: number): AsyncGenerator<Uint8Array, void, undefined> {
    if ((this.lengthBytes ?? 0) > bytesMax) throw this.#tooLarge(bytesMax);
    let count = 0;
    let timedOut = false;
    const watch = (): { clear(): void } =>
      this.#clock.timer(this.#limits.bodyTimeoutMs, () => {
        timedOut = true;
        this.#incoming.destroy();
      });
    let timer = watch();
    try {
      for await (const chunk of this.#incoming as AsyncIterable<Buffer>) {
        timer.clear();
        count += chunk.length;
        if (count > bytesMax) throw this.#tooLarge(bytesMax);
        yield chunk;
        timer = watch();
      }
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code;
      if (timedOut) {
        const message = `${this.method} ${this.path}: the body paused for ${this.#limits.bodyTimeoutMs} ms after ${count} bytes`;
        throw new HeadpondError("timeout", message, { cause: error });
      }
      if (code === "ECONNRESET" || code === "ERR_STREAM_PREMATURE_CLOSE" || code === "ABORT_ERR") {
        throw clientGone(this.remote, error);
      }
      throw error;
    } finally {
      timer.clear();
    }
    if (!this.complete) throw clientGone(this.remote);
  }

  async bytes(bytesMax: number = this.#limits.bodyBytesMax): Promise<Buffer> {
    const chunks: Uint8Array[] = [];
    for await (const chunk of this.stream(bytesMax)) chunks.push(chunk);
    return Buffer.concat(chunks);
  }

  async text(bytesMax?: number): Promise<string> {
    return (await this.bytes(bytesMax)).toString("utf8");
  }

  /** Throws `invalid` if the body is not JSON. */
  async json(bytesMax?: number): Promise<unknown> {
    const text = await this.text(bytesMax);
    try {
      return JSON.parse(text) as unknown;
    } catch (error) {
      throw new HeadpondError("invalid", `${this.method} ${this.path}: the body is not JSON`, { cause: error });
    }
  }

  #tooLarge(bytesMax: number): HeadpondError {
    return new HeadpondError("invalid", `${this.method} ${this.path}: the body is larger than ${bytesMax} bytes`);
  }
}

export function clientGone(remote: string, cause?: unknown): HeadpondError {
  return new HeadpondError("cancelled", `the client ${remote} left before the end`, { cause });
}

/** `http://host/path`, as proxies send it, → `/path`. */
function originForm(target: string): string {
  if (target.startsWith("/") || target === "*") return target;
  const match = /^https?:\/\/[^/?#]*/i.exec(target);
  const rest = match === null ? target : target.slice(match[0].length);
  return rest.startsWith("/") ? rest : `/${rest}`;
}
