/** The answers of S3 in our words. The SDK's errors and the bodies that our own client reads are translated alike. */

import { HeadpondError } from "../base/errors.ts";
import type { Clock } from "../io/clock.ts";
import { retryAfterMs } from "./http-headers.ts";

/** What is known of a failed request, whoever made it. */
export type S3Failure = {
  /** E.g. `SlowDown`; `""` when there was no answer, or none that named a code. */
  readonly code: string;
  /** 0: no answer. */
  readonly status: number;
  readonly message: string;
  readonly headers: Readonly<Record<string, string | undefined>>;
};

export type S3Place = { readonly bucket: string; readonly endpoint: string; readonly region: string };

export function s3Error(failure: S3Failure, place: S3Place, key: string, clock: Clock, cause?: unknown): HeadpondError {
  const { code, status, message, headers } = failure;
  const what = `s3 bucket ${place.bucket}, key ${JSON.stringify(key)}`;
  const said = `${code || "no answer"}${status === 0 ? "" : ` (${status})`}${message === "" ? "" : `: ${message.slice(0, 300)}`}`;
  const make = (ours: HeadpondError["code"], text: string): HeadpondError => {
    return new HeadpondError(ours, `${what}: ${text}`, { cause });
  };
  switch (code) {
    case "SlowDown":
    case "SlowDownRead":
    case "SlowDownWrite":
    case "RequestLimitExceeded":
    case "ThrottlingException":
    case "TooManyRequests":
    case "ServiceUnavailable":
      return overloaded(what, said, headers, clock, cause);
    case "NoSuchBucket":
      return make("not-found", `the bucket does not exist at ${place.endpoint}: check the name and the endpoint`);
    case "InvalidAccessKeyId":
    case "SignatureDoesNotMatch":
    case "XAdminUserNotFound":
    case "ExpiredToken":
    case "InvalidToken":
    case "TokenRefreshRequired":
    case "CredentialsProviderError":
      return make(
        "denied",
        `the credentials are not accepted (${said}): check accessKeyId, secretAccessKey, sessionToken`,
      );
    case "RequestTimeTooSkewed":
      return make("denied", `the clock of this machine is wrong (${said}): set it, e.g. with NTP`);
    case "PermanentRedirect":
    case "AuthorizationHeaderMalformed":
    case "IllegalLocationConstraintException":
      return make(
        "invalid",
        `the bucket is not in region ${place.region}${otherRegion(headers)} (${said}): set option region`,
      );
    case "ObjectParentIsFile":
      return make("not-a-directory", "a part of the key is an object, which this store does not allow");
    case "InvalidRange":
      return make("invalid", "the range lies behind the end of the object");
    case "InvalidObjectState":
      return make("denied", "the object is archived: restore it in the store first");
    case "KeyTooLongError":
      return make("invalid", "the key is too long for the store");
    case "QuotaExceeded":
    case "EntityTooLarge":
      return make("no-space", `the store takes no more (${said})`);
    case "ConditionalRequestConflict":
    case "OperationAborted":
    case "RequestTimeout":
    case "InternalError":
      return make("under-store", said);
    default:
      return errorOfStatus(failure, what, said, clock, cause);
  }
}

function errorOfStatus(failure: S3Failure, what: string, said: string, clock: Clock, cause: unknown): HeadpondError {
  const { status, headers } = failure;
  const make = (ours: HeadpondError["code"], text: string): HeadpondError => {
    return new HeadpondError(ours, `${what}: ${text}`, { cause });
  };
  if (status === 0 || status === 500 || status === 502 || status === 504 || status === 408)
    return make("under-store", said);
  if (status === 503 || status === 429) return overloaded(what, said, headers, clock, cause);
  if (status === 404) return make("not-found", "does not exist");
  if (status === 412) return make("version-mismatch", "the content is another one by now");
  if (status === 416) return make("invalid", "the range lies behind the end of the object");
  if (status === 401 || status === 403) {
    return make(
      "denied",
      `access denied (${said}): check that the key may list, read and, unless mounted read-only, write`,
    );
  }
  return new HeadpondError("under-store", `${what}: ${said}`, { cause, retryable: status >= 500 });
}

function overloaded(
  what: string,
  said: string,
  headers: S3Failure["headers"],
  clock: Clock,
  cause: unknown,
): HeadpondError {
  const pauseMs = retryAfterMs(headers["retry-after"], clock.wallMs());
  return new HeadpondError("overloaded", `${what}: the store asks for fewer requests (${said})`, {
    cause,
    ...(pauseMs === undefined ? {} : { details: { retryAfterMs: pauseMs } }),
  });
}

function otherRegion(headers: S3Failure["headers"]): string {
  const region = headers["x-amz-bucket-region"];
  return region === undefined ? "" : ` but in ${region}`;
}

/** Of an error that the SDK threw. */
export function failureOfSdk(error: unknown): S3Failure {
  const { name, message, code, $metadata, $response } = error as {
    readonly name?: string;
    readonly message?: string;
    readonly code?: string;
    readonly $metadata?: { readonly httpStatusCode?: number };
    readonly $response?: { readonly statusCode?: number; readonly headers?: Record<string, string> };
  };
  const status = $metadata?.httpStatusCode ?? $response?.statusCode ?? 0;
  // A HEAD has no body: the SDK then makes up names of the status.
  const isNamed = name !== undefined && name !== "Error" && name !== "UnknownError" && !/^\d+$/.test(name);
  return {
    code: status === 0 && code !== undefined ? code : isNamed ? name : "",
    status,
    message: name === message ? "" : (message ?? ""),
    headers: $response?.headers ?? {},
  };
}

/** Of an answer that our own client got. */
export function failureOfBody(status: number, headers: S3Failure["headers"], body: string): S3Failure {
  return {
    code: /<Code>([A-Za-z0-9.]{1,100})<\/Code>/.exec(body)?.[1] ?? "",
    status,
    message: /<Message>([^<]{1,300})<\/Message>/.exec(body)?.[1] ?? "",
    headers,
  };
}
