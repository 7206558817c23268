/**
 * HTTP/1.1 responses as bytes arrive (RFC 9112): head, then a body by length, in chunks with trailers, or until the
 * connection closes. Strict where leniency would let two sides disagree about where a body ends; body bytes are
 * handed out in place, never copied.
 */

import { HeadpondError } from "../base/errors.ts";

export type ResponseHead = {
  readonly status: number;
  readonly reason: string;
  /** Names in lower case; repeated ones are joined by `, `. */
  readonly headers: Readonly<Record<string, string>>;
  /** Whether the connection may serve another request afterwards. */
  readonly keepAlive: boolean;
};

export type ResponseHandlers = {
  /** Once, unless the response is malformed. Interim (1xx) responses are skipped. */
  readonly onHead: (head: ResponseHead) => void;
  /** A piece of the body; returns how much of it was taken. Less than all stops the parser there. */
  readonly onBody: (bytes: Uint8Array) => number;
  readonly onEnd: (trailers: Readonly<Record<string, string>>) => void;
};

type State =
  | { readonly kind: "head" }
  | { readonly kind: "length"; left: number }
  | { readonly kind: "chunk-size" }
  | { readonly kind: "chunk-data"; left: number }
  | { readonly kind: "chunk-end" }
  | { readonly kind: "trailers" }
  | { readonly kind: "until-close" }
  | { readonly kind: "ended" };

/** A chunk's size in hexadecimal digits, with extensions that nobody uses. */
const chunkLineBytesMax = 1024;

export class HttpResponseParser {
  readonly #handlers: ResponseHandlers;
  readonly #isHead: boolean;
  readonly #headerBytesMax: number;
  #state: State = { kind: "head" };
  /** Lines of a head, chunk size or trailers that are not complete yet. */
  #held = "";

  constructor(options: { readonly method: string; readonly headerBytesMax: number }, handlers: ResponseHandlers) {
    this.#handlers = handlers;
    this.#isHead = options.method === "HEAD";
    this.#headerBytesMax = options.headerBytesMax;
  }

  get ended(): boolean {
    return this.#state.kind === "ended";
  }

  /** Bytes that the body goes on for certainly, without anything between them. */
  get bodyLeftBytes(): number {
    const { kind } = this.#state;
    return kind === "length" || kind === "chunk-data" ? (this.#state as { left: number }).left : 0;
  }

  /** Returns how many bytes were used up: fewer than all if the body's taker stopped, or the response has ended. Throws `corrupt`. */
  feed(bytes: Uint8Array): number {
    let at = 0;
    while (at < bytes.length && this.#state.kind !== "ended") {
      const state = this.#state;
      switch (state.kind) {
        case "length":
        case "chunk-data": {
          const piece = bytes.subarray(at, at + state.left);
          const taken = this.#handlers.onBody(piece);
          at += taken;
          state.left -= taken;
          if (state.left === 0) {
            if (state.kind === "length") this.#end({});
            else this.#state = { kind: "chunk-end" };
          }
          if (taken < piece.length) return at;
          break;
        }
        case "until-close": {
          const piece = at === 0 ? bytes : bytes.subarray(at);
          return at + this.#handlers.onBody(piece);
        }
        case "head":
        case "trailers":
          at = this.#feedLines(bytes, at);
          break;
        case "chunk-size":
        case "chunk-end":
          at = this.#feedChunkLine(bytes, at, state.kind);
          break;
        default:
          return state satisfies never;
      }
    }
    return at;
  }

  /** The connection has closed: the end of a body, or a broken one. Throws `unavailable` (retry elsewhere or later). */
  finish(): void {
    if (this.#state.kind === "ended") return;
    if (this.#state.kind === "until-close") {
      this.#end({});
      return;
    }
    const missing = "left" in this.#state && this.#state.kind === "length" ? `${this.#state.left} bytes` : "the end";
    throw new HeadpondError("unavailable", `the connection closed before ${missing} of the response had arrived`);
  }

  /** A head or trailers: lines up to an empty one. */
  #feedLines(bytes: Uint8Array, from: number): number {
    const budget = this.#headerBytesMax - this.#held.length;
    const before = this.#held.length;
    this.#held += latin1(bytes.subarray(from, from + budget));
    // Trailers may be nothing but the empty line.
    const startsEmpty = this.#state.kind === "trailers" && this.#held.startsWith("\r\n");
    const end = startsEmpty ? 0 : this.#held.indexOf("\r\n\r\n", Math.max(0, before - 3));
    if (end === -1) {
      if (this.#held.length >= this.#headerBytesMax) {
        throw malformed(`its head is larger than ${this.#headerBytesMax} bytes`);
      }
      if (this.#state.kind === "head" && !"HTTP/1.".startsWith(this.#held.slice(0, 7)))
        throw malformed("it is not HTTP/1");
      return from + this.#held.length - before;
    }
    const text = this.#held.slice(0, end);
    const used = end + (startsEmpty ? 2 : 4) - before;
    this.#held = "";
    if (this.#state.kind === "trailers") this.#end(parseFields(text === "" ? [] : text.split("\r\n")));
    else this.#head(text);
    return from + used;
  }

  #feedChunkLine(bytes: Uint8Array, from: number, kind: "chunk-size" | "chunk-end"): number {
    const newline = bytes.indexOf(10, from);
    const to = newline === -1 ? bytes.length : newline + 1;
    this.#held += latin1(bytes.subarray(from, Math.min(to, from + chunkLineBytesMax + 1)));
    if (this.#held.length > chunkLineBytesMax) throw malformed("the line of a chunk's size is endless");
    if (newline === -1) return to;
    const line = this.#held;
    this.#held = "";
    if (!line.endsWith("\r\n")) throw malformed("a line of a chunk ends without a carriage return");
    if (kind === "chunk-end") {
      if (line !== "\r\n") throw malformed("a chunk is longer than its size");
      this.#state = { kind: "chunk-size" };
      return to;
    }
    const match = /^([0-9a-fA-F]{1,12})[ \t]*(;[^\r\n]*)?\r\n$/.exec(line);
    if (match === null) throw malformed(`${JSON.stringify(line.slice(0, 20))} is not the size of a chunk`);
    const size = Number.parseInt(match[1] ?? "", 16);
    this.#state = size === 0 ? { kind: "trailers" } : { kind: "chunk-data", left: size };
    return to;
  }

  #head(text: string): void {
    const [statusLine = "", ...lines] = text.split("\r\n");
    const match = /^HTTP\/1\.([01]) ([1-9][0-9]{2})(?: (.*))?$/.exec(statusLine);
    if (match === null) throw malformed(`${JSON.stringify(statusLine.slice(0, 40))} is not a status line`);
    const status = Number(match[2]);
    if (status === 101) throw malformed("it switches protocols unasked");
    if (status < 200) return;
    const headers = parseFields(lines);
    const connection = (headers["connection"] ?? "").toLowerCase();
    const body = this.#bodyState(status, headers);
    const wantsKeep = match[1] === "1" ? !/\bclose\b/.test(connection) : /\bkeep-alive\b/.test(connection);
    const ambiguous = headers["transfer-encoding"] !== undefined && headers["content-length"] !== undefined;
    const keepAlive = wantsKeep && body.kind !== "until-close" && !ambiguous;
    this.#state = body;
    this.#handlers.onHead({ status, reason: match[3] ?? "", headers, keepAlive });
    if (body.kind === "length" && body.left === 0) this.#end({});
  }

  #bodyState(status: number, headers: Readonly<Record<string, string>>): State {
    if (this.#isHead || status === 204 || status === 304) return { kind: "length", left: 0 };
    const encoding = headers["transfer-encoding"];
    if (encoding !== undefined) {
      if (encoding.toLowerCase() !== "chunked") throw malformed(`its transfer-encoding is ${JSON.stringify(encoding)}`);
      return { kind: "chunk-size" };
    }
    const length = headers["content-length"];
    if (length === undefined) return { kind: "until-close" };
    // The same length twice is tolerated, as RFC 9110 section 8.6 allows.
    const values = new Set(length.split(",").map((value) => value.trim()));
    const [value = ""] = values;
    if (values.size !== 1 || !/^[0-9]{1,15}$/.test(value)) throw malformed(`its length is ${JSON.stringify(length)}`);
    return { kind: "length", left: Number(value) };
  }

  #end(trailers: Readonly<Record<string, string>>): void {
    this.#state = { kind: "ended" };
    this.#handlers.onEnd(trailers);
  }
}

function parseFields(lines: readonly string[]): Record<string, string> {
  const fields: Record<string, string> = Object.create(null) as Record<string, string>;
  for (const line of lines) {
    const match = /^([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*(.*?)[ \t]*$/.exec(line);
    if (match === null || /[\0\r\n]/.test(line))
      throw malformed(`${JSON.stringify(line.slice(0, 40))} is not a header`);
    const name = (match[1] ?? "").toLowerCase();
    const value = match[2] ?? "";
    fields[name] = fields[name] === undefined ? value : `${fields[name]}, ${value}`;
  }
  return fields;
}

function latin1(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("latin1");
}

function malformed(why: string): HeadpondError {
  return new HeadpondError("corrupt", `malformed HTTP response: ${why}`);
}
