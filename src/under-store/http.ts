/**
 * A web server as an under store, read-only. Directories are URLs that end with a slash, and can be listed where the
 * server shows listings. A content is known by its strong ETag; where there is none, by Last-Modified (of one second's
 * accuracy) and size. Redirects are followed a few steps, and credentials never go to another origin.
 */

import { HeadpondError, isHeadpondError } from "../base/errors.ts";
import { MiB } from "../base/units.ts";
import type { Clock } from "../io/clock.ts";
import type { HttpClient } from "../io/http-client.ts";
import type { HttpClientResponse } from "../io/http-client-response.ts";
import type { Logger } from "../io/logger.ts";
import { httpDateMs, parseContentRange, retryAfterMs } from "./http-headers.ts";
import { advice, type IndexEntry, parseIndex } from "./http-index.ts";
import { type HttpHeaders, readRange, requested } from "./range-reader.ts";
import type { RequestGate } from "./request-gate.ts";
import {
  type CallOptions,
  checkFileKey,
  checkKey,
  compareCodePoints,
  isValidName,
  type ListEntry,
  type ListOptions,
  type ListPage,
  type ObjectInfo,
  type ReadOptions,
  type UnderStore,
  type UnderStoreTraits,
  unwrapCaller,
} from "./under-store.ts";
import type { UnderStoreMetrics } from "./under-store-metrics.ts";

export type HttpUnderStoreDependencies = {
  /** Without query, fragment and credentials; ends with a slash. */
  readonly base: URL;
  /** Value of the header of that name. */
  readonly authorization?: string;
  readonly gate: RequestGate;
  /** Closed with the store. */
  readonly http: HttpClient;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: UnderStoreMetrics;
  readonly requestTimeoutMs: number;
};

type Answer = { readonly response: HttpClientResponse; readonly url: URL };

const redirectsMax = 5;
const indexBytesMax = 32 * MiB;
const listPageMax = 1000;
/** Files asked about at once while a page is made. */
const headsActiveMax = 16;

export class HttpUnderStore implements UnderStore {
  readonly uri: string;
  readonly traits: UnderStoreTraits = {
    writable: false,
    exclusiveWrites: false,
    rename: "none",
    listPageMax,
    readBytesPreferred: 16 * MiB,
  };
  readonly #base: URL;
  readonly #authorization: string | undefined;
  readonly #gate: RequestGate;
  readonly #http: HttpClient;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #metrics: UnderStoreMetrics;
  readonly #requestTimeoutMs: number;

  constructor(dependencies: HttpUnderStoreDependencies) {
    this.#base = dependencies.base;
    this.uri = dependencies.base.href;
    this.#authorization = dependencies.authorization;
    this.#gate = dependencies.gate;
    this.#http = dependencies.http;
    this.#clock = dependencies.clock;
    this.#logger = dependencies.logger;
    this.#metrics = dependencies.metrics;
    this.#requestTimeoutMs = dependencies.requestTimeoutMs;
  }

  async list(directoryKey: string, { continuation, limit = listPageMax, signal }: ListOptions = {}): Promise<ListPage> {
    checkKey(directoryKey);
    const { entries, impossible } = await this.#index(directoryKey, signal);
    // Servers have no pages: the whole is asked for each time, and the page cut from it.
    const start = continuation === undefined ? 0 : entries.findIndex((entry) => isBehind(entry, continuation));
    const rest = start === -1 ? [] : entries.slice(start);
    const page = rest.slice(0, Math.max(1, Math.min(limit, listPageMax)));
    const found: ListEntry[] = [];
    let skipped = continuation === undefined ? impossible : 0;
    for (let at = 0; at < page.length; at += headsActiveMax) {
      const batch = page.slice(at, at + headsActiveMax).map((entry) => this.#look(directoryKey, entry, signal));
      for (const entry of await Promise.all(batch)) {
        if (entry === "skipped") skipped++;
        else if (entry !== undefined) found.push(entry);
      }
    }
    if (skipped > 0) this.#metrics.skippedNames(skipped, { store: this.uri });
    const last = page.at(-1);
    return {
      entries: found,
      skipped,
      ...(rest.length > page.length && last !== undefined ? { next: orderKey(last) } : {}),
    };
  }

  async head(key: string, { signal }: CallOptions = {}): Promise<ListEntry | undefined> {
    checkKey(key);
    if (key === "") {
      // Whether it can be listed or not, the root is there if its server is.
      await this.#request("HEAD", this.#urlOf("", true), {}, signal).then(({ response }) => response.destroy());
      return { kind: "directory", key };
    }
    const facts = await this.#facts(key, signal);
    if (facts === "directory") return { kind: "directory", key };
    if (facts !== undefined) return { kind: "file", info: facts };
    // A server that does not send us to the slash may still have something there.
    const url = this.#urlOf(key, true);
    let { response } = await this.#request("HEAD", url, {}, signal);
    response.destroy();
    if (isHeadRefused(response.status)) ({ response } = await this.#request("GET", url, {}, signal));
    response.destroy();
    return response.status >= 200 && response.status < 300 ? { kind: "directory", key } : undefined;
  }

  async read(key: string, options: ReadOptions): Promise<void> {
    checkFileKey(key);
    try {
      if (options.length === 0) await this.#checkEtag(key, options);
      else {
        await readRange(options, {
          gate: this.#gate,
          name: this.#urlOf(key).href,
          get: async (range, signal) => {
            const condition = options.etag.startsWith('"') ? { "if-match": options.etag } : {};
            return (await this.#send("GET", this.#urlOf(key), { range, ...condition }, signal)).response;
          },
          etagOf: contentEtag,
          error: (status, headers) => this.#error(key, status, headers),
          count: (bytes) => this.#metrics.readBytes(bytes, { store: this.uri }),
        });
      }
    } catch (error) {
      throw unwrapCaller(error);
    }
  }

  async write(key: string): Promise<ObjectInfo> {
    checkFileKey(key);
    throw this.#readOnly();
  }

  async makeDirectory(key: string): Promise<void> {
    checkKey(key);
    throw this.#readOnly();
  }

  async remove(key: string): Promise<void> {
    checkFileKey(key);
    throw this.#readOnly();
  }

  async removeDirectory(key: string): Promise<void> {
    checkFileKey(key);
    throw this.#readOnly();
  }

  async rename(from: string, to: string): Promise<void> {
    checkFileKey(from);
    checkFileKey(to);
    throw this.#readOnly();
  }

  async close(): Promise<void> {
    await this.#http.close();
  }

  async #index(
    directoryKey: string,
    signal: AbortSignal | undefined,
  ): Promise<{ readonly entries: readonly IndexEntry[]; readonly impossible: number }> {
    const url = this.#urlOf(directoryKey, true);
    return this.#gate.run("list", signal, async () => {
      const { response, url: answered } = await this.#send(
        "GET",
        url,
        { accept: "application/json, text/html" },
        signal,
      );
      try {
        if (response.status === 403 || response.status === 405) {
          throw new HeadpondError("unsupported", `${url.href} cannot be listed (${response.status}): ${advice}`);
        }
        if (response.status !== 200) throw this.#error(directoryKey, response.status, response.headers);
        const body = await requested(() => response.text(indexBytesMax));
        const all = parseIndex(answered.href, response.headers["content-type"] ?? "", body);
        const entries = all.filter(({ name }) => isValidName(name));
        entries.sort((a, b) => compareCodePoints(orderKey(a), orderKey(b)));
        return { entries, impossible: all.length - entries.length };
      } finally {
        response.destroy();
      }
    });
  }

  async #look(
    directoryKey: string,
    { kind, name }: IndexEntry,
    signal: AbortSignal | undefined,
  ): Promise<ListEntry | "skipped" | undefined> {
    const key = directoryKey === "" ? name : `${directoryKey}/${name}`;
    if (kind === "directory") return { kind, key };
    try {
      const facts = await this.#facts(key, signal);
      if (facts === "directory") return { kind: "directory", key };
      return facts === undefined ? undefined : { kind: "file", info: facts };
    } catch (error) {
      if (!isHeadpondError(error, "denied", "unsupported")) throw error;
      this.#logger.warn("under store: skipped a name", { uri: this.uri, objectKey: key, why: error.message });
      return "skipped";
    }
  }

  /** Size and identity of a file; a server that knows no HEAD is asked for the first byte. */
  async #facts(key: string, signal: AbortSignal | undefined): Promise<ObjectInfo | "directory" | undefined> {
    const url = this.#urlOf(key);
    let { response, url: answered } = await this.#request("HEAD", url, {}, signal);
    response.destroy();
    if (answered.pathname === `${url.pathname}/`) return "directory";
    let sizeBytes = response.lengthBytes;
    if (isHeadRefused(response.status) || (response.status === 200 && sizeBytes === undefined)) {
      ({ response, url: answered } = await this.#request("GET", url, { range: "bytes=0-0" }, signal));
      response.destroy();
      if (answered.pathname === `${url.pathname}/`) return "directory";
      sizeBytes = parseContentRange(response.headers["content-range"])?.totalBytes;
      if (response.status === 200) sizeBytes = response.lengthBytes;
      // An empty file has no first byte: 416 then tells the size.
      if (response.status === 416)
        sizeBytes = Number(/^bytes \*\/(\d+)$/.exec(response.headers["content-range"] ?? "")?.[1]);
    }
    const { status, headers } = response;
    if (status === 404 || status === 410) return undefined;
    if (status !== 200 && status !== 206 && status !== 416) throw this.#error(key, status, headers);
    if (sizeBytes === undefined || Number.isNaN(sizeBytes)) {
      throw new HeadpondError("unsupported", `${url.href}: the server does not tell its size`);
    }
    const etag = contentEtag(headers, sizeBytes);
    if (etag === undefined) {
      throw new HeadpondError(
        "unsupported",
        `${url.href} has neither ETag nor Last-Modified: changes could not be seen`,
      );
    }
    return { key, sizeBytes, etag, modifiedMs: httpDateMs(headers["last-modified"]) };
  }

  async #checkEtag(key: string, { etag, signal }: ReadOptions): Promise<void> {
    const facts = await this.#facts(key, signal);
    if (facts === undefined) throw new HeadpondError("not-found", `${this.#urlOf(key).href} does not exist`);
    if (facts === "directory") throw new HeadpondError("is-a-directory", `${this.#urlOf(key).href} is a directory`);
    if (facts.etag !== etag) throw new HeadpondError("version-mismatch", `${key} is ${facts.etag}, not ${etag}`);
  }

  /** A request that is tried again while the server is busy or broken. */
  async #request(method: string, url: URL, headers: HttpHeaders, signal: AbortSignal | undefined): Promise<Answer> {
    return this.#gate.run(method === "HEAD" ? "head" : "read", signal, async () => {
      const answer = await this.#send(method, url, headers, signal);
      const { status } = answer.response;
      if (status < 500 && status !== 429 && status !== 408) return answer;
      if (status === 501) return answer;
      answer.response.destroy();
      throw this.#error(url.pathname, status, answer.response.headers);
    });
  }

  async #send(method: string, url: URL, headers: HttpHeaders, signal: AbortSignal | undefined): Promise<Answer> {
    let target = url;
    for (let redirects = 0; ; redirects++) {
      const isOwn = target.origin === this.#base.origin;
      const authorization: HttpHeaders =
        isOwn && this.#authorization !== undefined ? { authorization: this.#authorization } : {};
      const response = await requested(() =>
        this.#http.request({
          method,
          url: target,
          headers: { "accept-encoding": "identity", "user-agent": "headpond", ...authorization, ...headers },
          idleTimeoutMs: this.#requestTimeoutMs,
          ...(signal === undefined ? {} : { signal }),
        }),
      );
      const location = response.headers["location"];
      if (![301, 302, 303, 307, 308].includes(response.status) || location === undefined)
        return { response, url: target };
      response.destroy();
      const next = new URL(location, target);
      // The question whether a name is a directory is answered by where the server sends us.
      if (next.pathname === `${url.pathname}/`) return { response, url: next };
      if (redirects === redirectsMax)
        throw new HeadpondError("under-store", `${url.href}: too many redirects`, { retryable: false });
      target = next;
    }
  }

  #urlOf(key: string, isDirectory = false): URL {
    const path = key.split("/").map(encodeURIComponent).join("/");
    return new URL(this.#base.href + path + (isDirectory && key !== "" ? "/" : ""));
  }

  #error(key: string, status: number, headers: HttpHeaders): HeadpondError {
    const what = `${key || "/"} at ${this.uri}`;
    if (status === 404 || status === 410) return new HeadpondError("not-found", `${what} does not exist`);
    if (status === 412) return new HeadpondError("version-mismatch", `${what}: the content is another one by now`);
    if (status === 416) return new HeadpondError("invalid", `${what}: the range lies behind the end`);
    if (status === 401 || status === 403 || status === 407) {
      return new HeadpondError("denied", `${what}: access denied (${status}): check option authorization`);
    }
    if (status === 429 || status === 503) {
      const pauseMs = retryAfterMs(headers["retry-after"], this.#clock.wallMs());
      return new HeadpondError("overloaded", `${what}: the server asks for fewer requests (${status})`, {
        ...(pauseMs === undefined ? {} : { details: { retryAfterMs: pauseMs } }),
      });
    }
    if (status >= 300 && status < 400) return new HeadpondError("is-a-directory", `${what} is not a file (${status})`);
    return new HeadpondError("under-store", `${what}: the server answers ${status}`, {
      retryable: status === 408 || (status >= 500 && status !== 501),
    });
  }

  #readOnly(): HeadpondError {
    return new HeadpondError("read-only", `${this.uri} is a web server: nothing can be written there`);
  }
}

/** Whether a server may have meant the method, not the file. */
function isHeadRefused(status: number): boolean {
  return status === 400 || status === 403 || status === 405 || status === 501;
}

/** A weak ETag may stand for several contents, so time and size say more. */
function contentEtag(headers: HttpHeaders, totalBytes: number | undefined): string | undefined {
  const etag = headers["etag"];
  if (etag?.startsWith('"')) return etag;
  const modified = headers["last-modified"];
  if (modified === undefined || totalBytes === undefined) return undefined;
  return `time-${httpDateMs(modified).toString(36)}-${totalBytes.toString(36)}`;
}

function orderKey({ kind, name }: IndexEntry): string {
  return kind === "directory" ? `${name}/` : name;
}

function isBehind(entry: IndexEntry, continuation: string): boolean {
  return compareCodePoints(orderKey(entry), continuation) > 0;
}
