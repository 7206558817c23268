/**
 * An origin for what distribution is tested and measured with: a web server as a process on a host of its own, with files of new
 * random bytes that it can name the SHA-256 of, and that counts the payload that it sent by itself. It can change a file while it
 * is read, and answer that it is asked too much. `ShapedOrigin` starts it and talks to it over its standard input, so that the
 * network that is measured carries nothing else.
 *
 *   shaped-origin.ts PORT FILES FILE_BYTES
 */

import { createHash, randomFillSync } from "node:crypto";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { ServerProcess } from "../cli/role-process.ts";

export type OriginFile = { readonly name: string; readonly sizeBytes: number; readonly sha256: string };

export type OriginCount = {
  /** Of bodies of files, once the kernel has taken them. */
  readonly payloadBytes: number;
  readonly requests: number;
  readonly refused: number;
  /** Most connections that bodies went out on at once. */
  readonly activeMax: number;
};

export type Throttle = {
  readonly status: 429 | 503;
  /** Requests for bodies that are answered in a second; those beyond are refused. */
  readonly perSecond: number;
  readonly retryAfterSeconds?: number;
};

type Question =
  | { readonly ask: "files" }
  | { readonly ask: "count" }
  | { readonly ask: "replace"; readonly name: string }
  | { readonly ask: "throttle"; readonly throttle: Throttle | undefined };

/** The other side: a handle on the process. */
export class ShapedOrigin {
  readonly #process: ServerProcess;
  readonly #waiting: ((line: string) => void)[] = [];
  readonly url: string;

  private constructor(process: ServerProcess, url: string) {
    this.#process = process;
    this.url = url;
    createInterface({ input: process.stdout }).on("line", (line) => this.#waiting.shift()?.(line));
  }

  static async start(options: {
    readonly address: string;
    readonly port?: number;
    readonly prefix: readonly string[];
    readonly files: number;
    readonly fileBytes: number;
  }): Promise<ShapedOrigin> {
    const { address, port = 80, prefix, files, fileBytes } = options;
    const script = fileURLToPath(import.meta.url);
    const words = [...prefix, process.execPath, script, port, files, fileBytes].map(String);
    const server = new ServerProcess("origin", words[0] as string, words.slice(1), process.env, {
      standardInput: true,
    });
    const origin = new ShapedOrigin(server, `http://${address}:${port}/`);
    await origin.files();
    return origin;
  }

  get pid(): number {
    return this.#process.pid;
  }

  files(): Promise<readonly OriginFile[]> {
    return this.#ask({ ask: "files" });
  }

  count(): Promise<OriginCount> {
    return this.#ask({ ask: "count" });
  }

  /** Other bytes of the same length under the same name, at once. */
  replace(name: string): Promise<OriginFile> {
    return this.#ask({ ask: "replace", name });
  }

  throttle(throttle: Throttle | undefined): Promise<unknown> {
    return this.#ask({ ask: "throttle", throttle });
  }

  stop(): Promise<void> {
    return this.#process.stop("SIGKILL");
  }

  #ask<T>(question: Question): Promise<T> {
    return new Promise((done, fail) => {
      const gone = (): void => fail(new Error(`the origin ended:\n${this.#process.log}`));
      if (this.#process.hasExited) return gone();
      this.#process.child.once("exit", gone);
      this.#waiting.push((line) => {
        this.#process.child.off("exit", gone);
        done(JSON.parse(line) as T);
      });
      this.#process.child.stdin?.write(`${JSON.stringify(question)}\n`);
    });
  }
}

const chunkBytes = 128 * 1024;

type Served = { bytes: Buffer; etag: string; sha256: string };

class OriginServer {
  readonly #files = new Map<string, Served>();
  #payloadBytes = 0;
  #requests = 0;
  #refused = 0;
  #active = 0;
  #activeMax = 0;
  #throttle: Throttle | undefined;
  #allowance = 0;
  #allowanceAtMs = 0;

  constructor(files: number, fileBytes: number) {
    for (let index = 1; index <= files; index++) {
      const name = `model-${String(index).padStart(5, "0")}-of-${String(files).padStart(5, "0")}.safetensors`;
      this.#files.set(name, newFile(fileBytes));
    }
  }

  answer(question: Question): unknown {
    switch (question.ask) {
      case "files":
        return [...this.#files.keys()].map((name) => this.#describe(name));
      case "count":
        return {
          payloadBytes: this.#payloadBytes,
          requests: this.#requests,
          refused: this.#refused,
          activeMax: this.#activeMax,
        } satisfies OriginCount;
      case "replace":
        this.#files.set(question.name, newFile(this.#served(question.name).bytes.length));
        return this.#describe(question.name);
      case "throttle":
        this.#throttle = question.throttle;
        this.#allowance = 0;
        this.#allowanceAtMs = performance.now();
        return {};
      default:
        return question satisfies never;
    }
  }

  async serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const name = decodeURIComponent((request.url ?? "").slice(1));
    if (name === "") {
      const links = [...this.#files.keys()].map((file) => `<a href="${file}">${file}</a>`);
      response.writeHead(200, { "content-type": "text/html" }).end(`<html><body>${links.join("\n")}</body></html>`);
      return;
    }
    const file = this.#files.get(name);
    if (file === undefined) {
      response.writeHead(404).end();
      return;
    }
    const { bytes, etag } = file;
    const condition = request.headers["if-match"];
    if (condition !== undefined && condition !== etag) {
      response.writeHead(412).end();
      return;
    }
    if (request.method === "GET" && this.#isTooMuch()) {
      this.#refused++;
      const { status, retryAfterSeconds } = this.#throttle as Throttle;
      response
        .writeHead(status, retryAfterSeconds === undefined ? {} : { "retry-after": String(retryAfterSeconds) })
        .end();
      return;
    }
    const match = /^bytes=([0-9]+)-([0-9]*)$/.exec(request.headers.range ?? "");
    const begin = match === null ? 0 : Number(match[1]);
    const end = match === null || match[2] === "" ? bytes.length : Math.min(bytes.length, Number(match[2]) + 1);
    response.writeHead(match === null ? 200 : 206, {
      "content-length": end - begin,
      etag,
      "accept-ranges": "bytes",
      ...(match === null ? {} : { "content-range": `bytes ${begin}-${end - 1}/${bytes.length}` }),
    });
    if (request.method === "HEAD") response.end();
    else await this.#send(bytes, begin, end, response);
  }

  async #send(bytes: Buffer, begin: number, end: number, response: ServerResponse): Promise<void> {
    this.#requests++;
    this.#active++;
    this.#activeMax = Math.max(this.#active, this.#activeMax);
    try {
      for (let position = begin; position < end && !response.destroyed; ) {
        const chunk = bytes.subarray(position, Math.min(position + chunkBytes, end));
        const taken = await new Promise<boolean>((done) => {
          response.once("close", () => done(false));
          response.write(chunk, (error) => done(error === null || error === undefined));
        });
        response.removeAllListeners("close");
        if (!taken) return;
        this.#payloadBytes += chunk.length;
        position += chunk.length;
      }
      response.end();
    } finally {
      this.#active--;
    }
  }

  #isTooMuch(): boolean {
    if (this.#throttle === undefined) return false;
    const { perSecond } = this.#throttle;
    const nowMs = performance.now();
    this.#allowance = Math.min(
      Math.max(1, perSecond),
      this.#allowance + ((nowMs - this.#allowanceAtMs) / 1000) * perSecond,
    );
    this.#allowanceAtMs = nowMs;
    if (this.#allowance < 1) return true;
    this.#allowance--;
    return false;
  }

  #describe(name: string): OriginFile {
    const { bytes, sha256 } = this.#served(name);
    return { name, sizeBytes: bytes.length, sha256 };
  }

  #served(name: string): Served {
    const file = this.#files.get(name);
    if (file === undefined) throw new Error(`no file ${name}`);
    return file;
  }
}

function newFile(sizeBytes: number): Served {
  const bytes = Buffer.allocUnsafe(sizeBytes);
  for (let at = 0; at < sizeBytes; at += 1 << 28) randomFillSync(bytes, at, Math.min(1 << 28, sizeBytes - at));
  const sha256 = createHash("sha256").update(bytes).digest("hex");
  return { bytes, sha256, etag: `"${sha256.slice(0, 32)}"` };
}

function main(): void {
  const [port = 0, files = 0, fileBytes = 0] = process.argv.slice(2).map(Number);
  const origin = new OriginServer(files, fileBytes);
  const server = createServer((request, response) => {
    origin.serve(request, response).catch((error: unknown) => {
      process.stderr.write(`${String(error)}\n`);
      response.destroy();
    });
  });
  server.keepAliveTimeout = 60_000;
  server.listen(port, () => {
    createInterface({ input: process.stdin })
      .on("line", (line) => process.stdout.write(`${JSON.stringify(origin.answer(JSON.parse(line) as Question))}\n`))
      .on("close", () => process.exit());
  });
}

if (import.meta.main) main();
