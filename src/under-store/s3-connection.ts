/**
 * One bucket as seen by the AWS SDK, and signatures for what does not go through it. The SDK signs, encodes and parses;
 * it never tries again by itself, so that there is one place that backs off (`request-gate.ts`).
 */

import { S3Client } from "@aws-sdk/client-s3";
import { SignatureV4 } from "@smithy/signature-v4";
import type { HeadpondError } from "../base/errors.ts";
import type { Clock } from "../io/clock.ts";
import { failureOfSdk, type S3Place, s3Error } from "./s3-errors.ts";

export type S3Credentials = {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly sessionToken?: string;
};

export type S3Settings = {
  readonly bucket: string;
  /** Of the mount inside the bucket, without slashes around it; `""`: the whole bucket. */
  readonly prefix: string;
  readonly region: string;
  /** `https://host[:port]`; absent: AWS. */
  readonly endpoint?: string;
  /** The bucket as the first part of the path, instead of as part of the host's name. */
  readonly pathStyle: boolean;
  /** Absent: as the AWS SDK finds them (environment, profile, machine). */
  readonly credentials?: S3Credentials;
  /** Requests carry no signature: public buckets. */
  readonly anonymous: boolean;
  /** Bodies carry checksums that the store checks; some stores that resemble S3 do not know them. */
  readonly checksums: boolean;
  readonly requestTimeoutMs: number;
  readonly requestsMax: number;
};

/** `target` goes out as it was signed: a URL object might write it another way. */
export type SignedRequest = {
  readonly url: string;
  readonly target: string;
  readonly headers: Readonly<Record<string, string>>;
};

const connectTimeoutMs = 5000;

export class S3Connection {
  readonly client: S3Client;
  readonly place: S3Place;
  readonly #settings: S3Settings;
  readonly #clock: Clock;
  readonly #signer: SignatureV4 | undefined;
  readonly #base: URL;

  constructor(settings: S3Settings, clock: Clock) {
    this.#settings = settings;
    this.#clock = clock;
    const { bucket, region, endpoint, pathStyle, credentials, anonymous, checksums } = settings;
    this.client = new S3Client({
      region,
      ...(endpoint === undefined ? {} : { endpoint }),
      forcePathStyle: pathStyle,
      maxAttempts: 1,
      requestChecksumCalculation: checksums ? "WHEN_SUPPORTED" : "WHEN_REQUIRED",
      responseChecksumValidation: checksums ? "WHEN_SUPPORTED" : "WHEN_REQUIRED",
      requestHandler: {
        connectionTimeout: connectTimeoutMs,
        requestTimeout: settings.requestTimeoutMs,
        throwOnRequestTimeout: true,
        httpAgent: { keepAlive: true, maxSockets: settings.requestsMax },
        httpsAgent: { keepAlive: true, maxSockets: settings.requestsMax },
      },
      ...(anonymous
        ? { credentials: { accessKeyId: "", secretAccessKey: "" }, signer: { sign: async (request) => request } }
        : credentials === undefined
          ? {}
          : { credentials }),
    });
    const host = `s3.${region}.amazonaws.com${region.startsWith("cn-") ? ".cn" : ""}`;
    this.#base = new URL(endpoint ?? `https://${host}`);
    if (!pathStyle) this.#base.hostname = `${bucket}.${this.#base.hostname}`;
    this.place = { bucket, endpoint: endpoint ?? `https://${host}`, region };
    this.#signer = anonymous
      ? undefined
      : new SignatureV4({
          service: "s3",
          region,
          credentials: async () => this.client.config.credentials(),
          sha256: this.client.config.sha256,
          uriEscapePath: false,
          applyChecksum: false,
        });
  }

  /** Of a key relative to the mount. */
  objectKey(key: string): string {
    const { prefix } = this.#settings;
    return prefix === "" ? key : key === "" ? prefix : `${prefix}/${key}`;
  }

  /** What the keys of a directory's children begin with. */
  childPrefix(directoryKey: string): string {
    const key = this.objectKey(directoryKey);
    return key === "" ? "" : `${key}/`;
  }

  /** A signed GET of the object; `headers` are signed too. */
  signedGet(key: string, headers: Readonly<Record<string, string>>): Promise<SignedRequest> {
    return this.signed("GET", key, headers);
  }

  /** A signed request for the object. `bodySha256`: of the body that goes with it, hexadecimal; absent: the body is not signed. */
  async signed(
    method: "GET" | "HEAD" | "PUT" | "DELETE",
    key: string,
    headers: Readonly<Record<string, string>>,
    bodySha256 = "UNSIGNED-PAYLOAD",
  ): Promise<SignedRequest> {
    const basePath = this.#base.pathname.replace(/\/$/, "");
    const bucketPath = this.#settings.pathStyle ? `/${this.#settings.bucket}` : "";
    const path = `${basePath}${bucketPath}/${encodeKey(this.objectKey(key))}`;
    const url = `${this.#base.origin}${path}`;
    if (this.#signer === undefined) return { url, target: path, headers };
    const signed = await this.#signer.sign(
      {
        method,
        protocol: this.#base.protocol,
        hostname: this.#base.hostname,
        ...(this.#base.port === "" ? {} : { port: Number(this.#base.port) }),
        path,
        query: {},
        headers: { ...headers, host: this.#base.host, "x-amz-content-sha256": bodySha256 },
      },
      // The SDK learns how far this machine's clock is off; signatures of ours follow it.
      { signingDate: new Date(this.#clock.wallMs() + this.client.config.systemClockOffset) },
    );
    return { url, target: path, headers: signed.headers };
  }

  /** A failed call of the SDK in our words. */
  error(error: unknown, key: string): HeadpondError {
    return s3Error(failureOfSdk(error), this.place, key, this.#clock, error);
  }

  close(): void {
    this.client.destroy();
  }
}

/** As S3 wants keys in paths: everything but unreserved characters and slashes encoded. */
export function encodeKey(key: string): string {
  return encodeURIComponent(key)
    .replaceAll("%2F", "/")
    .replace(/[!'()*]/g, (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`);
}
