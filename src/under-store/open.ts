/** From a mount's URI and options to its under store. */

import { nearestName } from "../base/config.ts";
import { HeadpondError } from "../base/errors.ts";
import { Random } from "../base/random.ts";
import type { Clock } from "../io/clock.ts";
import type { Disk } from "../io/disk.ts";
import { HttpClient } from "../io/http-client.ts";
import type { Logger } from "../io/logger.ts";
import type { Metrics } from "../io/metrics.ts";
import { HttpUnderStore } from "./http.ts";
import { LocalUnderStore } from "./local.ts";
import { type Environment, OptionReader, type OptionTable, redactOptions } from "./options.ts";
import { RequestGate, requestLimitsDefault } from "./request-gate.ts";
import { S3UnderStore, s3Uri } from "./s3.ts";
import type { S3Settings } from "./s3-connection.ts";
import { partSizeBytesDefault, partSizeBytesMax, partSizeBytesMin } from "./s3-upload.ts";
import { checkKey, type UnderStore } from "./under-store.ts";
import { underStoreMetrics } from "./under-store-metrics.ts";

export type OpenUnderStoreDependencies = {
  readonly disk: Disk;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: Metrics;
  /** Variables that options may refer to (`env:NAME`), and that S3's usual names are looked up in. */
  readonly environment: Environment;
  readonly random?: Random;
};

export type UnderStoreOptions = Readonly<Record<string, string>>;

type Opening = {
  readonly uri: string;
  readonly options: OptionReader;
  readonly environment: Environment;
  readonly random: Random;
  readonly dependencies: OpenUnderStoreDependencies;
};

type Scheme = {
  readonly options: OptionTable;
  /** Throws `invalid` for a URI that cannot be one of this scheme. */
  readonly normalise: (uri: string) => string;
  readonly open: (opening: Opening) => Promise<UnderStore>;
};

const requestOptions: OptionTable = { requestsMax: "count", requestTimeout: "duration" };
export const s3Options: OptionTable = {
  endpoint: "text",
  region: "text",
  accessKeyId: "text",
  secretAccessKey: "secret",
  sessionToken: "secret",
  anonymous: "boolean",
  pathStyle: "boolean",
  partSize: "size",
  checksums: "boolean",
  ...requestOptions,
};
const requestsMaxLimit = 1024;
const requestTimeoutMsDefault = 30_000;

const httpScheme: Scheme = {
  options: { authorization: "secret", ...requestOptions },
  normalise: (uri) => parseHttpUri(uri).href,
  open: openHttp,
};

const schemes: Readonly<Record<string, Scheme>> = {
  file: { options: { links: "text" }, normalise: (uri) => `file://${parseFileUri(uri)}`, open: openLocal },
  s3: {
    options: s3Options,
    normalise: (uri) => s3Uri(parseS3Uri(uri)),
    open: openS3,
  },
  http: httpScheme,
  https: httpScheme,
};

/**
 * Throws `unsupported` for a scheme that is not known, `invalid` for a URI or option that makes no sense, `not-found` for
 * a local directory that is not there. Nothing is asked of a remote store yet: `head("")` does that.
 */
export async function openUnderStore(
  uri: string,
  options: UnderStoreOptions,
  dependencies: OpenUnderStoreDependencies,
): Promise<UnderStore> {
  const { name, scheme } = schemeOf(uri);
  const reader = new OptionReader(name, scheme.options, options, dependencies);
  const random = dependencies.random ?? new Random(Math.floor(Math.random() * 2 ** 32));
  return scheme.open({ uri, options: reader, environment: dependencies.environment, random, dependencies });
}

/** The one way to write a mount's URI. Throws as `openUnderStore`; touches nothing. */
export function normaliseUnderStoreUri(uri: string): string {
  return schemeOf(uri).scheme.normalise(uri);
}

/** Options as they may be shown and logged. */
export function redactUnderStoreOptions(uri: string, options: UnderStoreOptions): UnderStoreOptions {
  return redactOptions(schemeOf(uri).scheme.options, options);
}

function schemeOf(uri: string): { readonly name: string; readonly scheme: Scheme } {
  const name = /^([A-Za-z][A-Za-z0-9+.-]*):\/\//.exec(uri)?.[1]?.toLowerCase();
  const known = Object.keys(schemes);
  const all = known.map((each) => `${each}://`).join(", ");
  if (name === undefined)
    throw new HeadpondError("invalid", `${shownUri(uri)} is not a URI of a store: write one of ${all}`);
  const scheme = schemes[name];
  if (scheme !== undefined && known.includes(name)) return { name, scheme };
  const nearest = nearestName(name, known);
  const hint = nearest === undefined ? "" : `; do you mean ${nearest}://?`;
  throw new HeadpondError("unsupported", `${name}:// is no store that can be mounted; these can: ${all}${hint}`);
}

async function openLocal({ uri, options, random, dependencies }: Opening): Promise<UnderStore> {
  const { disk, logger } = dependencies;
  const links = options.oneOf("links", ["inside", "all"], "inside");
  return LocalUnderStore.open({ root: parseFileUri(uri), links, disk, random, logger });
}

async function openS3({ uri, options, environment, random, dependencies }: Opening): Promise<UnderStore> {
  const { clock, logger } = dependencies;
  const settings = await readS3Settings(uri, options, environment);
  const metrics = underStoreMetrics(dependencies.metrics);
  const limits = { requestsMax: settings.requestsMax };
  const gate = new RequestGate({ clock, random, metrics, store: s3Uri(settings), limits });
  const partSizeBytes = options.sizeBytes("partSize", partSizeBytesDefault, partSizeBytesMin, partSizeBytesMax);
  const http = httpClient(clock, settings.requestsMax);
  return new S3UnderStore({ settings, partSizeBytes, gate, http, clock, logger, metrics });
}

/** Of a bucket's URI, options as in `s3Options`, and the usual variables of the environment. */
export async function readS3Settings(
  uri: string,
  options: OptionReader,
  environment: Environment,
  requestTimeoutMs: number = requestTimeoutMsDefault,
): Promise<S3Settings> {
  const { bucket, prefix } = parseS3Uri(uri);
  const endpoint = endpointOf(
    options.text("endpoint") ?? environment["AWS_ENDPOINT_URL_S3"] ?? environment["AWS_ENDPOINT_URL"],
  );
  const accessKeyId = options.text("accessKeyId") ?? environment["AWS_ACCESS_KEY_ID"];
  const secretAccessKey = (await options.secret("secretAccessKey")) ?? environment["AWS_SECRET_ACCESS_KEY"];
  const sessionToken = (await options.secret("sessionToken")) ?? environment["AWS_SESSION_TOKEN"];
  if ((accessKeyId === undefined) !== (secretAccessKey === undefined)) {
    throw new HeadpondError("invalid", "accessKeyId and secretAccessKey go together: give both, or neither");
  }
  return {
    bucket,
    prefix,
    region: options.text("region") ?? environment["AWS_REGION"] ?? environment["AWS_DEFAULT_REGION"] ?? "us-east-1",
    ...(endpoint === undefined ? {} : { endpoint }),
    // Certificates of AWS do not cover names of buckets with dots, and most other stores want the path.
    pathStyle: options.boolean("pathStyle", endpoint !== undefined || bucket.includes(".")),
    ...(accessKeyId === undefined || secretAccessKey === undefined
      ? {}
      : { credentials: { accessKeyId, secretAccessKey, ...(sessionToken === undefined ? {} : { sessionToken }) } }),
    anonymous: options.boolean("anonymous", false),
    checksums: options.boolean("checksums", true),
    requestTimeoutMs: options.durationMs("requestTimeout", requestTimeoutMs),
    requestsMax: options.count("requestsMax", requestLimitsDefault.requestsMax, requestsMaxLimit),
  };
}

async function openHttp({ uri, options, random, dependencies }: Opening): Promise<UnderStore> {
  const { clock, logger } = dependencies;
  const base = parseHttpUri(uri);
  const authorization = await options.secret("authorization");
  const metrics = underStoreMetrics(dependencies.metrics);
  const limits = { requestsMax: options.count("requestsMax", requestLimitsDefault.requestsMax, requestsMaxLimit) };
  return new HttpUnderStore({
    base,
    ...(authorization === undefined ? {} : { authorization }),
    gate: new RequestGate({ clock, random, metrics, store: base.href, limits }),
    http: httpClient(clock, limits.requestsMax),
    clock,
    logger,
    metrics,
    requestTimeoutMs: options.durationMs("requestTimeout", requestTimeoutMsDefault),
  });
}

/** One for each store, closed with it: as many connections as it may have requests. */
function httpClient(clock: Clock, requestsMax: number): HttpClient {
  return new HttpClient({ clock, limits: { connectionsPerOriginMax: requestsMax } });
}

/** `file:///a/b%20c` → `/a/b c`. */
export function parseFileUri(uri: string): string {
  const path = uri.slice("file://".length);
  if (!path.startsWith("/")) {
    throw new HeadpondError("invalid", `${shownUri(uri)} is not absolute: write file:///directory, with three slashes`);
  }
  const decoded = decodePart(uri, path);
  const names = decoded.split("/").filter((name) => name !== "" && name !== ".");
  if (names.includes("..") || decoded.includes("\0")) {
    throw new HeadpondError("invalid", `${shownUri(uri)}: the path must not have .. or NUL in it`);
  }
  return `/${names.join("/")}`;
}

function parseS3Uri(uri: string): { readonly bucket: string; readonly prefix: string } {
  const [, bucket = "", path = ""] = /^s3:\/\/([^/]*)\/?(.*)$/is.exec(uri) ?? [];
  if (bucket.includes("@")) throw secretsInUri("s3", "options accessKeyId and secretAccessKey");
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,254}$/.test(bucket)) {
    throw new HeadpondError(
      "invalid",
      `${shownUri(uri)} does not name a bucket: write s3://bucket or s3://bucket/prefix`,
    );
  }
  const prefix = path.replace(/\/+$/, "");
  checkKey(prefix);
  return { bucket, prefix };
}

function parseHttpUri(uri: string): URL {
  const url = URL.parse(uri);
  if (url === null || url.hostname === "") {
    throw new HeadpondError("invalid", "not a URL: write http://host/path/ or https://host/path/");
  }
  if (url.username !== "" || url.password !== "") throw secretsInUri(url.protocol.slice(0, -1), "option authorization");
  if (url.search !== "" || url.hash !== "") {
    // A query often carries a signature: it would be shown wherever the mount is.
    throw new HeadpondError("invalid", `${url.origin}${url.pathname}: a mount's URL has no query and no fragment`);
  }
  if (!url.pathname.endsWith("/")) url.pathname += "/";
  return url;
}

function endpointOf(text: string | undefined): string | undefined {
  if (text === undefined) return undefined;
  const url = URL.parse(text);
  if (url === null || !/^https?:$/.test(url.protocol) || url.username !== "" || url.search !== "") {
    throw new HeadpondError("invalid", "option endpoint is not a URL: write http://host:port or https://host");
  }
  return url.href.replace(/\/$/, "");
}

function secretsInUri(scheme: string, instead: string): HeadpondError {
  return new HeadpondError(
    "invalid",
    `a ${scheme}:// URI of a mount is shown to everybody: put credentials into ${instead}`,
  );
}

function decodePart(uri: string, text: string): string {
  try {
    return decodeURIComponent(text);
  } catch (error) {
    throw new HeadpondError("invalid", `${shownUri(uri)}: % must be followed by two hexadecimal digits of UTF-8`, {
      cause: error,
    });
  }
}

/** A URI in a message: without what may be a secret. */
export function shownUri(uri: string): string {
  return JSON.stringify(
    uri
      .replace(/[^/]*@/g, "***@")
      .replace(/[?#].*$/s, "?***")
      .slice(0, 200),
  );
}
