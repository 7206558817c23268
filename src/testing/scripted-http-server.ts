/**
 * A web server for tests that serves bytes from memory, and misbehaves as told: slow, throttling, cutting bodies off,
 * lying about ranges. It understands enough of S3 (GET and HEAD of `/bucket/key`) to stand before its client.
 */

import http from "node:http";
import type { AddressInfo } from "node:net";
import { digestHex } from "../io/hash.ts";

export type HttpFault =
  | {
      readonly kind: "status";
      readonly status: number;
      readonly headers?: http.OutgoingHttpHeaders;
      readonly body?: string;
    }
  /** The body ends, and the connection with it, after that many bytes. */
  | { readonly kind: "cut"; readonly afterBytes: number }
  /** Nothing comes after that many bytes of the body, for ever. */
  | { readonly kind: "stall"; readonly afterBytes: number }
  /** A write that takes effect, but whose answer never comes. */
  | { readonly kind: "lost-answer" }
  /** A write that is refused before its body was read, and cut off. */
  | { readonly kind: "early-refusal" }
  /** No answer at all. */
  | { readonly kind: "silence" }
  /** Called when that many bytes of the body are out. */
  | { readonly kind: "change"; readonly afterBytes: number; readonly change: () => void }
  | { readonly kind: "ignore-range" }
  | { readonly kind: "wrong-range" }
  /** Another range than the one asked for, said honestly. */
  | { readonly kind: "shorter-range"; readonly length: number }
  | { readonly kind: "headers"; readonly headers: http.OutgoingHttpHeaders };

export type ServedRequest = {
  readonly method: string;
  readonly path: string;
  readonly headers: http.IncomingHttpHeaders;
};

type Served = {
  readonly bytes: Uint8Array;
  readonly etag: string;
  readonly modified: string;
  /** Headers `x-amz-meta-...`. */
  readonly metadata: Readonly<Record<string, string>>;
};

export type HttpTraits = {
  /** `none`: only Last-Modified tells contents apart. */
  readonly etags: "strong" | "weak" | "none";
  readonly head: boolean;
  readonly ranges: boolean;
  readonly index: "json" | "html" | "none";
  /** What is absent is said to be so as S3 says it, and DELETE works. */
  readonly s3: boolean;
  /** `If-None-Match` of a PUT is honoured. */
  readonly conditions: boolean;
};

const traitsDefault: HttpTraits = {
  etags: "strong",
  head: true,
  ranges: true,
  index: "html",
  s3: false,
  conditions: true,
};

export class ScriptedHttpServer {
  readonly requests: ServedRequest[] = [];
  readonly #files = new Map<string, Served>();
  readonly #faults: { readonly method: string; readonly fault: HttpFault; left: number }[] = [];
  readonly #traits: HttpTraits;
  readonly #server: http.Server;
  /** Body bytes that were handed to the network. */
  sentBytes = 0;
  #port = 0;
  #changes = 0;

  private constructor(traits: Partial<HttpTraits>) {
    this.#traits = { ...traitsDefault, ...traits };
    this.#server = http.createServer((request, response) => {
      this.#serve(request, response).catch(() => response.destroy());
    });
  }

  static async start(traits: Partial<HttpTraits> = {}): Promise<ScriptedHttpServer> {
    const server = new ScriptedHttpServer(traits);
    await new Promise<void>((resolve) => server.#server.listen(0, "127.0.0.1", resolve));
    server.#port = (server.#server.address() as AddressInfo).port;
    return server;
  }

  get origin(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  get(path: string): Uint8Array | undefined {
    return this.#files.get(path)?.bytes;
  }

  /** `path` is decoded, and begins with a slash. */
  put(path: string, bytes: Uint8Array, metadata: Readonly<Record<string, string>> = {}): void {
    this.#changes++;
    // Every change is a second later than the one before: Last-Modified tells no finer.
    const modified = new Date(1_700_000_000_000 + this.#changes * 1000).toUTCString();
    this.#files.set(path, { bytes: Uint8Array.from(bytes), etag: `"${digestHex("md5", bytes)}"`, modified, metadata });
  }

  /** Harms the next `times` requests of `method`. */
  inject(
    fault: HttpFault,
    { method = "GET", times = 1 }: { readonly method?: string; readonly times?: number } = {},
  ): void {
    this.#faults.push({ method, fault, left: times });
  }

  clearFaults(): void {
    this.#faults.length = 0;
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async #serve(request: http.IncomingMessage, response: http.ServerResponse): Promise<void> {
    const { method = "GET", url = "/", headers } = request;
    const path = decodeURIComponent(url.split("?", 1)[0] as string);
    this.requests.push({ method, path, headers });
    const fault = this.#take(method);
    if (fault?.kind === "early-refusal") {
      response.writeHead(412, { connection: "close" }).end();
      request.socket.destroySoon();
      return;
    }
    if (method === "PUT" && fault?.kind !== "status" && fault?.kind !== "silence") {
      await this.#store(path, request, response, fault);
      return;
    }
    request.resume();
    if (fault?.kind === "silence") return;
    if (fault?.kind === "status") {
      response.writeHead(fault.status, fault.headers).end(fault.body ?? "");
      return;
    }
    if (method === "HEAD" && !this.#traits.head) {
      response.writeHead(405).end();
      return;
    }
    const file = this.#files.get(path);
    if (method === "DELETE" && this.#traits.s3) {
      this.#files.delete(path);
      response.writeHead(204).end();
      return;
    }
    if (file === undefined && this.#traits.s3) {
      response.writeHead(404).end("<Error><Code>NoSuchKey</Code><Message>none</Message></Error>");
      return;
    }
    if (file === undefined) this.#serveDirectory(path, response);
    else await this.#serveFile(file, request, response, fault);
  }

  async #store(
    path: string,
    request: http.IncomingMessage,
    response: http.ServerResponse,
    fault: HttpFault | undefined,
  ): Promise<void> {
    const parts: Buffer[] = [];
    for await (const part of request as AsyncIterable<Buffer>) parts.push(part);
    if (this.#traits.conditions && request.headers["if-none-match"] === "*" && this.#files.has(path)) {
      response.writeHead(412).end();
      return;
    }
    const metadata = Object.entries(request.headers).filter(([name]) => name.startsWith("x-amz-meta-"));
    this.put(path, Buffer.concat(parts), Object.fromEntries(metadata) as Record<string, string>);
    if (fault?.kind === "lost-answer") request.socket.destroy();
    else response.writeHead(200, { etag: this.#files.get(path)?.etag }).end();
  }

  async #serveFile(
    { bytes, etag, modified, metadata }: Served,
    { method, headers }: http.IncomingMessage,
    response: http.ServerResponse,
    fault: HttpFault | undefined,
  ): Promise<void> {
    const { etags, ranges } = this.#traits;
    const isOther = etags === "strong" && headers["if-match"] !== undefined && headers["if-match"] !== etag;
    if (isOther) {
      response.writeHead(412).end();
      return;
    }
    response.setHeader("last-modified", modified);
    for (const [name, value] of Object.entries(metadata)) response.setHeader(name, value);
    if (etags !== "none") response.setHeader("etag", etags === "weak" ? `W/${etag}` : etag);
    if (fault?.kind === "headers")
      for (const [name, value] of Object.entries(fault.headers)) response.setHeader(name, value ?? "");
    const match = /^bytes=(\d+)-(\d+)$/.exec(headers.range ?? "");
    let [first, end] = [0, bytes.length];
    if (match !== null && ranges && fault?.kind !== "ignore-range") {
      first = Number(match[1]) + (fault?.kind === "wrong-range" ? 1 : 0);
      end = Math.min(Number(match[2]) + 1, bytes.length);
      if (fault?.kind === "shorter-range") end = Math.min(end, first + fault.length);
      if (first >= bytes.length) {
        response.writeHead(416, { "content-range": `bytes */${bytes.length}` }).end();
        return;
      }
      response.statusCode = 206;
      response.setHeader("content-range", `bytes ${first}-${end - 1}/${bytes.length}`);
    }
    response.setHeader("content-length", end - first);
    response.flushHeaders();
    if (method === "HEAD") response.end();
    else await this.#send(bytes.subarray(first, end), response, fault);
  }

  async #send(body: Uint8Array, response: http.ServerResponse, fault: HttpFault | undefined): Promise<void> {
    const isPartial = fault?.kind === "cut" || fault?.kind === "stall" || fault?.kind === "change";
    const first = isPartial ? body.subarray(0, fault.afterBytes) : body;
    this.sentBytes += first.length;
    await new Promise((resolve) => response.write(first, resolve));
    if (fault?.kind === "stall") return;
    if (fault?.kind === "cut") {
      response.socket?.destroySoon();
      return;
    }
    if (fault?.kind === "change") fault.change();
    this.sentBytes += body.length - first.length;
    response.end(body.subarray(first.length));
  }

  #serveDirectory(path: string, response: http.ServerResponse): void {
    const base = path.endsWith("/") ? path : `${path}/`;
    const below = [...this.#files.keys()]
      .filter((name) => name.startsWith(base))
      .map((name) => name.slice(base.length));
    if (below.length === 0 && base !== "/") response.writeHead(404).end();
    else if (base !== path) response.writeHead(301, { location: encodeURI(base) }).end();
    else if (this.#traits.index === "none") response.writeHead(403).end();
    else {
      const names = [
        ...new Set(below.map((name) => (name.includes("/") ? name.slice(0, name.indexOf("/") + 1) : name))),
      ];
      response.setHeader(
        "content-type",
        this.#traits.index === "json" ? "application/json" : "text/html; charset=utf-8",
      );
      response.end(this.#traits.index === "json" ? indexJson(names) : indexHtml(names));
    }
  }

  #take(method: string): HttpFault | undefined {
    const index = this.#faults.findIndex((each) => each.method === method);
    const found = this.#faults[index];
    if (found === undefined) return undefined;
    found.left--;
    if (found.left === 0) this.#faults.splice(index, 1);
    return found.fault;
  }
}

function indexJson(names: readonly string[]): string {
  return JSON.stringify(
    names.map((name) => ({ name: name.replace(/\/$/, ""), type: name.endsWith("/") ? "directory" : "file" })),
  );
}

function indexHtml(names: readonly string[]): string {
  const rows = names.map((name) => {
    const href = name.replace(/\/$/, "").split("/").map(encodeURIComponent).join("/").replaceAll("&", "&amp;");
    return `<a href="${href}${name.endsWith("/") ? "/" : ""}">a name</a> 01-Jan-2026 12:00 123K`;
  });
  return `<html><body><a href="?C=N;O=D">Name</a> <a href="../">Parent</a>\n${rows.join("\n")}</body></html>`;
}
