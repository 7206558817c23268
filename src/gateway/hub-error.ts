/** Errors as Hub clients read them: over plain HTTP they go by `X-Error-Code`, not by the status. */

import { errorTable, type HeadpondError } from "../base/errors.ts";
import type { HttpHeaders, HttpResponse } from "../io/http-response.ts";

export type HubErrorCode = "RepoNotFound" | "RevisionNotFound" | "EntryNotFound";

export class HubError extends Error {
  override readonly name = "HubError";
  readonly status: number;
  readonly code: HubErrorCode | undefined;
  /** Told with `EntryNotFound`: clients remember the absence for this commit. */
  readonly commit: string | undefined;

  constructor(status: number, message: string, code?: HubErrorCode, commit?: string) {
    super(message);
    this.status = status;
    this.code = code;
    this.commit = commit;
  }
}

export function repositoryNotFound(name: string): HubError {
  return new HubError(404, `Repository not found: ${name}`, "RepoNotFound");
}

export function revisionNotFound(name: string, revision: string): HubError {
  return new HubError(404, `Revision not found: ${revision} of ${name}`, "RevisionNotFound");
}

export function entryNotFound(name: string, path: string, commit: string): HubError {
  return new HubError(404, `Entry not found: ${path} in ${name} at ${commit}`, "EntryNotFound", commit);
}

/** Seconds after which a client of a busy mirror should come back. */
const retryAfterSecondsDefault = 2;

export function sendHubError(response: HttpResponse, error: HubError | HeadpondError, forBytes: boolean): void {
  const message = error.message;
  const headers: Record<string, string | number> = { "x-error-message": headerText(message) };
  if (error instanceof HubError) {
    if (error.code !== undefined) headers["x-error-code"] = error.code;
    if (error.commit !== undefined) headers["x-repo-commit"] = error.commit;
  } else if (error.retryable) {
    const afterMs = Number(error.details?.["retryAfterMs"] ?? retryAfterSecondsDefault * 1000);
    headers["retry-after"] = Math.max(1, Math.ceil(afterMs / 1000));
  }
  response.json(errorStatus(error, forBytes), { error: message }, headers as HttpHeaders);
}

/**
 * A client that asks for bytes comes back after 429 and gives up at once on any 5xx; one that asks for metadata falls
 * back to its cache on 503, which is what it should do when no master can be reached.
 */
function errorStatus(error: HubError | HeadpondError, forBytes: boolean): number {
  if (error instanceof HubError) return error.status;
  if (forBytes && error.retryable) return 429;
  if (error.code === "timeout") return 503;
  return errorTable[error.code].httpStatus;
}

/** Headers are Latin-1 on the wire, and names are anything. */
function headerText(text: string): string {
  return text.replace(/[^\x20-\x7e]/g, "?").slice(0, 500);
}
