/**
 * The one table of error codes. An error says what happened, to which thing, why, and what to do next; edges translate
 * its code exactly once, into an exit code, an HTTP status or an S3 code, and never look at messages.
 */

type ErrorTraits = {
  /** Whether the same request may succeed later without anybody changing it. */
  readonly retryable: boolean;
  /** The exit code of the command line (0 ok, 1 failed, 2 usage, 3 not found, 4 unavailable, 5 partly, 6 denied, 7 unknown). */
  readonly exitCode: number;
  readonly httpStatus: number;
};

export const errorTable = {
  "not-found": { retryable: false, exitCode: 3, httpStatus: 404 },
  "already-exists": { retryable: false, exitCode: 1, httpStatus: 409 },
  "not-empty": { retryable: false, exitCode: 1, httpStatus: 409 },
  "not-a-directory": { retryable: false, exitCode: 1, httpStatus: 409 },
  "is-a-directory": { retryable: false, exitCode: 1, httpStatus: 409 },
  "version-mismatch": { retryable: false, exitCode: 1, httpStatus: 412 },
  invalid: { retryable: false, exitCode: 2, httpStatus: 400 },
  "no-mount": { retryable: false, exitCode: 1, httpStatus: 409 },
  "read-only": { retryable: false, exitCode: 1, httpStatus: 403 },
  denied: { retryable: false, exitCode: 6, httpStatus: 403 },
  unauthenticated: { retryable: false, exitCode: 6, httpStatus: 401 },
  "not-leader": { retryable: true, exitCode: 4, httpStatus: 503 },
  unavailable: { retryable: true, exitCode: 4, httpStatus: 503 },
  overloaded: { retryable: true, exitCode: 4, httpStatus: 429 },
  "no-space": { retryable: true, exitCode: 1, httpStatus: 507 },
  corrupt: { retryable: false, exitCode: 1, httpStatus: 500 },
  "under-store": { retryable: true, exitCode: 1, httpStatus: 502 },
  timeout: { retryable: true, exitCode: 1, httpStatus: 504 },
  cancelled: { retryable: false, exitCode: 1, httpStatus: 499 },
  "unknown-outcome": { retryable: true, exitCode: 7, httpStatus: 504 },
  compacted: { retryable: false, exitCode: 1, httpStatus: 410 },
  unsupported: { retryable: false, exitCode: 1, httpStatus: 501 },
  internal: { retryable: false, exitCode: 1, httpStatus: 500 },
} as const satisfies Record<string, ErrorTraits>;

export type ErrorCode = keyof typeof errorTable;

/** `none`: the operation did not and will not take effect. `unknown`: it may have, or may yet. */
export type Outcome = "none" | "unknown";

/** Facts for programs, beside the message: `{ leader: "h1:7070" }`, `{ retryAfterMs: 500 }`. JSON values only. */
export type ErrorDetails = Readonly<Record<string, string | number | boolean>>;

/** The form an error has in CLI JSON, HTTP bodies and RPC replies. */
export type ErrorDocument = {
  readonly code: ErrorCode;
  readonly message: string;
  readonly retryable: boolean;
  readonly outcome: Outcome;
  readonly details?: ErrorDetails;
};

export type HeadpondErrorOptions = {
  readonly cause?: unknown;
  readonly outcome?: Outcome;
  readonly details?: ErrorDetails;
  /** Overrides the table, e.g. an under-store error that no retry will cure. */
  readonly retryable?: boolean;
};

export class HeadpondError extends Error {
  override readonly name = "HeadpondError";
  readonly code: ErrorCode;
  readonly retryable: boolean;
  readonly outcome: Outcome;
  readonly details: ErrorDetails | undefined;

  /** `message`: lower case, names the thing and the values: `"/a/b: version is 7, not 5"`. */
  constructor(code: ErrorCode, message: string, options: HeadpondErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.retryable = options.retryable ?? errorTable[code].retryable;
    this.outcome = options.outcome ?? (code === "unknown-outcome" ? "unknown" : "none");
    this.details = options.details;
  }

  toJSON(): ErrorDocument {
    const document = { code: this.code, message: this.message, retryable: this.retryable, outcome: this.outcome };
    return this.details === undefined ? document : { ...document, details: this.details };
  }
}

export function isErrorCode(value: unknown): value is ErrorCode {
  return typeof value === "string" && Object.hasOwn(errorTable, value);
}

/** Whether `error` is a `HeadpondError`, of one of `codes` if any are named. */
export function isHeadpondError(error: unknown, ...codes: readonly ErrorCode[]): error is HeadpondError {
  return error instanceof HeadpondError && (codes.length === 0 || codes.includes(error.code));
}

/** Rebuilds an error that came over a wire; what is not one of ours becomes `internal`. */
export function errorFromDocument(document: unknown): HeadpondError {
  const { code, message, retryable, outcome, details } = (document ?? {}) as Partial<ErrorDocument>;
  return new HeadpondError(isErrorCode(code) ? code : "internal", String(message ?? "no message"), {
    ...(typeof retryable === "boolean" ? { retryable } : {}),
    ...(outcome === "unknown" ? { outcome } : {}),
    ...(details === undefined ? {} : { details }),
  });
}

/** Every throwable as a `HeadpondError`: an edge may meet anything, and must answer something. */
export function toHeadpondError(error: unknown): HeadpondError {
  if (error instanceof HeadpondError) return error;
  const message = error instanceof Error ? error.message : String(error);
  const name = error instanceof Error ? error.name : "";
  if (name === "AbortError") return new HeadpondError("cancelled", message, { cause: error });
  if (name === "TimeoutError") return new HeadpondError("timeout", message, { cause: error });
  return new HeadpondError("internal", message, { cause: error });
}
