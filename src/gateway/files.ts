/**
 * Files by their paths over plain HTTP: GET and HEAD with ranges and conditions, listings of directories as JSON or HTML,
 * PUT through to the under store. The ETag of a file is its under store's.
 *
 * Leaves out: deleting and renaming (the SDK and the command line do that), multipart ranges (answered whole), ETags of
 * directories.
 */

import { HeadpondError, isHeadpondError } from "../base/errors.ts";
import type { FileStatus } from "../base/file.ts";
import { baseName, joinPath, type Path, parentPath } from "../base/path.ts";
import type { HeadpondClient } from "../client/client.ts";
import type { HeadpondFile } from "../client/file.ts";
import type { Clock } from "../io/clock.ts";
import type { HttpRequest } from "../io/http-request.ts";
import type { HttpHeaders, HttpResponse } from "../io/http-response.ts";
import { httpDate, judge, quoteEtag } from "./conditions.ts";
import { contentType } from "./content-type.ts";
import { decodePath, encodePath } from "./request-path.ts";
import { sendFile } from "./send-file.ts";

export type FilesGatewayLimits = {
  /** How long a master may take for an answer. */
  readonly metadataTimeoutMs: number;
  /** How long the first bytes of a body may take. */
  readonly firstBytesMs: number;
  readonly putBytesMax: number;
};

const defaultLimits: FilesGatewayLimits = {
  metadataTimeoutMs: 10_000,
  firstBytesMs: 30_000,
  putBytesMax: 5 * 1024 ** 4,
};

/** Rows of a listing that go out in one write. */
const rowsPerWrite = 500;

export class FilesGateway {
  readonly #client: HeadpondClient;
  readonly #clock: Clock;
  readonly #limits: FilesGatewayLimits;

  constructor(parts: {
    readonly client: HeadpondClient;
    readonly clock: Clock;
    readonly limits?: Partial<FilesGatewayLimits>;
  }) {
    this.#client = parts.client;
    this.#clock = parts.clock;
    this.#limits = { ...defaultLimits, ...parts.limits };
  }

  readonly handle = async (request: HttpRequest, response: HttpResponse): Promise<void> => {
    switch (request.method) {
      case "GET":
      case "HEAD":
        return this.#get(request, response);
      case "PUT":
        return this.#put(request, response);
      default: {
        const error = new HeadpondError("unsupported", `${request.method} is not served here: use GET, HEAD or PUT`);
        response.error(error, 405, { allow: "GET, HEAD, PUT" });
      }
    }
  };

  async #get(request: HttpRequest, response: HttpResponse): Promise<void> {
    const path = decodePath(request.path);
    if (path === "/") return this.#list(path, request, response);
    const call = { timeoutMs: this.#limits.metadataTimeoutMs, signal: request.signal };
    try {
      try {
        await this.#send(await this.#client.open(path, call), path, request, response);
      } catch (error) {
        // The file was changed in its under store: the masters have looked at it anew by now.
        if (response.headSent || !isHeadpondError(error, "compacted")) throw error;
        await this.#send(await this.#client.open(path, call), path, request, response);
      }
    } catch (error) {
      if (!isHeadpondError(error, "is-a-directory")) throw error;
      await this.#list(path, request, response);
    }
  }

  async #send(file: HeadpondFile, path: Path, request: HttpRequest, response: HttpResponse): Promise<void> {
    const { sizeBytes, modifiedMs } = file.descriptor;
    const etag = quoteEtag(file.descriptor.etag);
    const known = { etag, "last-modified": httpDate(modifiedMs), "accept-ranges": "bytes" };
    const headers: HttpHeaders = { ...known, "content-type": contentType(baseName(path)) };
    const verdict = judge(request.headers, { etag, modifiedMs, sizeBytes });
    const body = { file, clock: this.#clock, firstBytesMs: this.#limits.firstBytesMs };
    switch (verdict.kind) {
      case "not-modified":
        response.empty(304, known);
        return;
      case "failed":
        response.error(new HeadpondError("version-mismatch", `${path}: its etag is ${etag}`), 412, known);
        return;
      case "unsatisfiable": {
        const error = new HeadpondError("invalid", `${path} has ${sizeBytes} bytes: the range lies behind its end`);
        response.error(error, 416, { ...known, "content-range": `bytes */${sizeBytes}` });
        return;
      }
      case "part": {
        const { position, length } = verdict;
        const range = { "content-range": `bytes ${position}-${position + length - 1}/${sizeBytes}` };
        return sendFile(request, response, { ...body, ...verdict, status: 206, headers: { ...headers, ...range } });
      }
      case "whole":
        return sendFile(request, response, { ...body, position: 0, length: sizeBytes, status: 200, headers });
    }
  }

  async #put(request: HttpRequest, response: HttpResponse): Promise<void> {
    const path = decodePath(request.path);
    if (path === "/" || request.path.endsWith("/")) {
      throw new HeadpondError("invalid", `${path} names a directory: PUT takes the path of a file`);
    }
    const { headers } = request;
    for (const name of ["content-range", "if-match", "if-unmodified-since"]) {
      if (headers[name] === undefined) continue;
      throw new HeadpondError(
        "unsupported",
        `PUT with ${name} is not served: send the whole file, at most with if-none-match: *`,
      );
    }
    const encoding = headers["content-encoding"];
    if (encoding !== undefined && encoding !== "identity") {
      throw new HeadpondError(
        "unsupported",
        `PUT with content-encoding ${encoding} is not served: send the bytes as they are`,
      );
    }
    const ifNoneMatch = headers["if-none-match"]?.trim();
    if (ifNoneMatch !== undefined && ifNoneMatch !== "*") {
      throw new HeadpondError("unsupported", "PUT with if-none-match serves only *: write if there is no such file");
    }
    const exclusive = ifNoneMatch === "*";
    const sizeBytes = request.lengthBytes;
    try {
      await this.#client.write(path, request.stream(this.#limits.putBytesMax), {
        exclusive,
        signal: request.signal,
        ...(sizeBytes === undefined ? {} : { sizeBytes }),
      });
    } catch (error) {
      if (exclusive && isHeadpondError(error, "already-exists")) return response.error(error, 412);
      throw error;
    }
    const status = await this.#client.stat(path, { timeoutMs: this.#limits.metadataTimeoutMs });
    response.json(201, status, status.etag === undefined ? {} : { etag: quoteEtag(status.etag) });
  }

  async #list(path: Path, request: HttpRequest, response: HttpResponse): Promise<void> {
    const format = listingFormat(request);
    const rows = this.#client.list(path, { signal: request.signal });
    // The first row before the status: a directory that cannot be listed is an error, not a broken page.
    let next = await rows.next();
    response.head(200, { "content-type": format.contentType, "cache-control": "no-cache", vary: "accept" });
    if (request.method === "HEAD") {
      await rows.return();
      response.end();
      return;
    }
    let text = format.begin(path);
    for (let count = 0; next.done !== true; count++) {
      text += (count === 0 ? "" : format.separator) + format.row(path, next.value);
      if (count % rowsPerWrite === rowsPerWrite - 1) {
        await response.write(Buffer.from(text));
        text = "";
      }
      next = await rows.next();
    }
    await response.write(Buffer.from(text + format.end));
    response.end();
  }
}

type ListingFormat = {
  readonly contentType: string;
  readonly begin: (path: Path) => string;
  readonly row: (path: Path, status: FileStatus) => string;
  readonly separator: string;
  readonly end: string;
};

const json: ListingFormat = {
  contentType: "application/json",
  begin: (path) => `{"path":${JSON.stringify(path)},"entries":[`,
  row: (_, status) => JSON.stringify(status),
  separator: ",\n",
  end: "]}\n",
};

const html: ListingFormat = {
  contentType: "text/html; charset=utf-8",
  begin: (path) => {
    const title = escapeHtml(path);
    const up = path === "/" ? "" : `<tr><td><a href="${encodePath(parentPath(path) as string)}">..</a></td></tr>\n`;
    return `<!doctype html>\n<meta charset="utf-8">\n<title>${title}</title>\n<h1>${title}</h1>\n<table>\n${up}`;
  },
  row: (path, { path: childPath, kind, sizeBytes, modifiedMs }) => {
    const name = baseName(childPath);
    const href = escapeHtml(encodePath(joinPath(path, name)));
    const size = kind === "directory" ? "" : String(sizeBytes);
    const text = escapeHtml(kind === "directory" ? `${name}/` : name);
    return `<tr><td><a href="${href}">${text}</a></td><td align="right">${size}</td><td>${new Date(modifiedMs).toISOString()}</td></tr>\n`;
  },
  separator: "",
  end: "</table>\n",
};

function listingFormat(request: HttpRequest): ListingFormat {
  const format = request.query.get("format");
  if (format === "json") return json;
  if (format === "html") return html;
  if (format !== null)
    throw new HeadpondError("invalid", `format ${JSON.stringify(format)} is not served: use json or html`);
  return (request.headers["accept"] ?? "").includes("text/html") ? html : json;
}

function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (character) => `&#${character.codePointAt(0)};`);
}
