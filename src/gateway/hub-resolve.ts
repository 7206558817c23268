/**
 * The bytes of a repository's file, as Hub clients fetch them. The ETag names the bytes and never changes for a version;
 * the commit goes with every answer. A file that is no longer to be had answers that its revision is gone, never with
 * other bytes.
 */

import { HeadpondError, isHeadpondError, toHeadpondError } from "../base/errors.ts";
import type { HeadpondClient } from "../client/client.ts";
import type { Clock } from "../io/clock.ts";
import type { HttpRequest } from "../io/http-request.ts";
import type { HttpResponse } from "../io/http-response.ts";
import { httpDate, judge } from "./conditions.ts";
import { contentType } from "./content-type.ts";
import type { HubCommit, HubFile } from "./hub-commit.ts";
import { entryNotFound, revisionNotFound } from "./hub-error.ts";
import type { HubRepositories } from "./hub-repositories.ts";
import type { HubRoute } from "./hub-routes.ts";
import { sendFile } from "./send-file.ts";

type ResolveRoute = Extract<HubRoute, { kind: "resolve" }>;

/** Clients refuse to fetch more than this over plain HTTP, if the HEAD tells them the size. */
export const toldSizeBytesMax = 50_000_000_000;

export type HubResolveParts = {
  readonly client: HeadpondClient;
  readonly repositories: HubRepositories;
  readonly clock: Clock;
  /** Clients give up after ten seconds without a byte. */
  readonly firstBytesMs: number;
};

export async function resolveFile(
  parts: HubResolveParts,
  route: ResolveRoute,
  request: HttpRequest,
  response: HttpResponse,
): Promise<void> {
  const { repositories, client, clock, firstBytesMs } = parts;
  const { repository, path } = route;
  const commit = await repositories.commit(repository, route.revision);
  const entry = commit.entry(path);
  if (entry?.kind !== "file") throw entryNotFound(repository.name, path, commit.commit);
  const { sizeBytes, modifiedMs } = entry.file;
  const headers = fileHeaders(entry, commit);
  const verdict = judge(request.headers, { etag: headers.etag, modifiedMs, sizeBytes });
  if (request.method === "HEAD") {
    if (!(await repositories.isServable(repository, entry))) throw revisionNotFound(repository.name, route.revision);
    const length = sizeBytes > toldSizeBytesMax ? {} : { "content-length": sizeBytes, "x-linked-size": sizeBytes };
    const told = verdict.kind === "not-modified" ? {} : { ...length, "content-type": contentType(path) };
    response.head(verdict.kind === "not-modified" ? 304 : 200, { ...headers, ...told });
    response.end();
    return;
  }
  if (verdict.kind === "not-modified") return response.empty(304, headers);
  if (verdict.kind === "failed") {
    const error = new HeadpondError("version-mismatch", `${path}: its ETag is ${headers.etag}`);
    return response.json(412, { error: error.message }, headers);
  }
  if (verdict.kind === "unsatisfiable" && sizeBytes > 0) {
    const message = `${path} has ${sizeBytes} bytes: the range lies behind its end`;
    return response.json(416, { error: message }, { ...headers, "content-range": `bytes */${sizeBytes}` });
  }
  // Of an empty file no range can be satisfied; clients that learn the size from `Content-Range` still want to see one.
  const emptyRange = verdict.kind === "unsatisfiable" ? { "content-range": "bytes */0" } : {};
  const part = verdict.kind === "part" ? verdict : { position: 0, length: sizeBytes };
  const last = part.position + part.length - 1;
  const range =
    verdict.kind === "part" ? { "content-range": `bytes ${part.position}-${last}/${sizeBytes}` } : emptyRange;
  try {
    await sendFile(request, response, {
      file: client.openVersion(entry.file),
      clock,
      firstBytesMs,
      position: part.position,
      length: part.length,
      status: verdict.kind === "part" ? 206 : 200,
      headers: { ...headers, "x-linked-size": sizeBytes, "content-type": contentType(path), ...range },
    });
  } catch (error) {
    if (response.headSent || !isHeadpondError(toHeadpondError(error), "not-found", "compacted")) throw error;
    throw revisionNotFound(repository.name, route.revision);
  }
}

function fileHeaders(entry: HubFile, commit: HubCommit): { readonly etag: string } & Record<string, string> {
  const name = entry.path.slice(entry.path.lastIndexOf("/") + 1);
  const plainName = name.replace(/[^\x20-\x7e]|["\\]/g, "_");
  return {
    etag: `"${entry.oid}"`,
    ...(entry.sha256 === undefined ? {} : { "x-linked-etag": `"${entry.sha256}"` }),
    "x-repo-commit": commit.commit,
    "accept-ranges": "bytes",
    "last-modified": httpDate(entry.file.modifiedMs),
    "content-disposition": `inline; filename*=UTF-8''${encodeURIComponent(name)}; filename="${plainName}";`,
  };
}
