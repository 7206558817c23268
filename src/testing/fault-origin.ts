/** A web server that holds files and misbehaves as it is told: an under store for tests of faults. Counts what it sends. */

import { once } from "node:events";
import http from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";

export type Fault =
  | "none"
  /** Takes connections, answers nothing. */
  | "silent"
  /** Sends the head and some bytes, then nothing more. */
  | "stalls"
  /** Announces more bytes than it sends, and closes. */
  | "cuts"
  /** Answers a range with bytes of another length than asked for. */
  | "short-range"
  | "throttles"
  | "broken";

const pieceBytes = 64 * 1024;

export class FaultOrigin {
  readonly #server: http.Server;
  readonly #files = new Map<string, { readonly bytes: Uint8Array; readonly version: number }>();
  #versions = 0;
  /** By the name of the file. */
  readonly faults = new Map<string, Fault>();
  bytesPerSecond = Number.POSITIVE_INFINITY;
  /** Bytes of bodies that were sent. */
  sentBytes = 0;

  private constructor() {
    this.#server = http.createServer((request, response) => {
      response.on("error", () => {});
      this.#serve(request, response).catch(() => response.destroy());
    });
  }

  static async start(): Promise<FaultOrigin> {
    const origin = new FaultOrigin();
    await origin.#listen(0);
    return origin;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  get uri(): string {
    return `http://127.0.0.1:${this.port}/`;
  }

  put(name: string, bytes: Uint8Array): void {
    this.#files.set(name, { bytes, version: ++this.#versions });
  }

  /** Refuses connections until `resume`. */
  async down(): Promise<() => Promise<void>> {
    const { port } = this;
    await this.close();
    return () => this.#listen(port);
  }

  async close(): Promise<void> {
    const closed = once(this.#server, "close");
    this.#server.close();
    this.#server.closeAllConnections();
    await closed;
  }

  async #listen(port: number): Promise<void> {
    this.#server.listen(port, "127.0.0.1");
    await once(this.#server, "listening");
  }

  async #serve(request: http.IncomingMessage, response: http.ServerResponse): Promise<void> {
    const name = decodeURIComponent(new URL(request.url ?? "/", "http://x").pathname.slice(1));
    const fault = this.faults.get(name) ?? "none";
    if (fault === "silent") return;
    if (fault === "throttles") {
      response.writeHead(503, { "retry-after": "1" }).end();
      return;
    }
    if (fault === "broken") {
      response.writeHead(500).end("out of order");
      return;
    }
    const file = this.#files.get(name);
    if (file === undefined) {
      if (name !== "" && !name.endsWith("/")) {
        response.writeHead(404).end();
        return;
      }
      const names = [...this.#files.keys()]
        .filter((each) => each.startsWith(name))
        .map((each) => each.slice(name.length));
      const links = [...new Set(names.map((each) => each.replace(/\/.*/, "/")))].map(
        (each) => `<a href="${each}">${each}</a>`,
      );
      response.writeHead(200, { "content-type": "text/html" }).end(links.join("\n"));
      return;
    }
    const { bytes, version } = file;
    const etag = `"v${version}"`;
    if (request.headers["if-match"] !== undefined && request.headers["if-match"] !== etag) {
      response.writeHead(412).end();
      return;
    }
    const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "");
    const start = Number(range?.[1] ?? 0);
    const end = Math.min(bytes.length, range?.[2] ? Number(range[2]) + 1 : bytes.length);
    const length = fault === "short-range" ? Math.max(1, (end - start) >> 1) : end - start;
    response.writeHead(range === null ? 200 : 206, {
      etag,
      "accept-ranges": "bytes",
      "content-length": length,
      "last-modified": new Date(1_700_000_000_000 + version * 1000).toUTCString(),
      ...(range === null ? {} : { "content-range": `bytes ${start}-${start + length - 1}/${bytes.length}` }),
    });
    if (request.method === "HEAD") {
      response.end();
      return;
    }
    await this.#send(response, bytes.subarray(start, start + length), fault);
  }

  async #send(response: http.ServerResponse, body: Uint8Array, fault: Fault): Promise<void> {
    for (let at = 0; at < body.length; at += pieceBytes) {
      if (at > 0 && fault === "stalls") return;
      if (at > 0 && fault === "cuts") {
        response.destroy();
        return;
      }
      const piece = body.subarray(at, at + pieceBytes);
      this.sentBytes += piece.length;
      await new Promise<void>((done) => response.write(piece, () => done()));
      if (response.destroyed) return;
      if (Number.isFinite(this.bytesPerSecond)) await sleep((piece.length / this.bytesPerSecond) * 1000);
    }
    response.end();
  }
}
