/**
 * Workers' data ports (rpc/worker-service.ts): bulk over HTTP with pooled connections, small reads over framed RPC, one
 * connection a worker. Repeats nothing: which worker to ask next is the reader's business.
 */

import { errorFromDocument, HeadpondError, toHeadpondError } from "../base/errors.ts";
import type { Clock } from "../io/clock.ts";
import type { HttpClient } from "../io/http-client.ts";
import type { HttpClientResponse } from "../io/http-client-response.ts";
import type { Logger } from "../io/logger.ts";
import type { Network } from "../io/network.ts";
import { parseAddress } from "../rpc/address.ts";
import { RpcClient } from "../rpc/client.ts";
import { workerService } from "../rpc/worker-service.ts";
import { asGone, type DataPort, type DataRange, type ObjectPut, type WrittenObject } from "./data-port.ts";
import { Handover } from "./handover.ts";
import { cancellation } from "./within.ts";

/** Workers to which a framed connection is kept; the one used longest ago goes first. */
const rpcClientsMax = 256;
const errorBytesMax = 64 * 1024;
const connectTimeoutMs = 2000;
/** Silence of a worker that has taken a request. */
const idleTimeoutMs = 20_000;
/** A worker answers a write when the under store has it, which may take long for a large object. */
const putIdleTimeoutMs = 300_000;
const readTimeoutMs = 15_000;

export class WorkerDataPort implements DataPort {
  readonly #http: HttpClient;
  readonly #network: Network;
  readonly #clock: Clock;
  readonly #logger: Logger;
  /** By address, oldest use first. */
  readonly #rpcClients = new Map<string, RpcClient>();

  constructor(parts: {
    readonly http: HttpClient;
    readonly network: Network;
    readonly clock: Clock;
    readonly logger: Logger;
  }) {
    this.#http = parts.http;
    this.#network = parts.network;
    this.#clock = parts.clock;
    this.#logger = parts.logger;
  }

  async *stream(range: DataRange): AsyncGenerator<Uint8Array, void, undefined> {
    const { address, file, position, length, signal } = range;
    const { id } = file;
    // Without a range the worker knows that this is the whole file, and checks the store's digest at its end.
    const whole = position === 0 && length === file.sizeBytes;
    const last = position + length - 1;
    const response = await translated(
      this.#http.request({
        method: "GET",
        url: `http://${address}/v1/files/${id}`,
        headers: whole ? {} : { range: `bytes=${position}-${last}` },
        ...(signal === undefined ? {} : { signal }),
        connectTimeoutMs,
        idleTimeoutMs,
      }),
      signal,
    );
    if (response.status !== (whole ? 200 : 206)) throw await answeredError(response, `${id} at ${address}`);
    const { etag } = response.headers;
    if (response.lengthBytes !== length || (etag !== undefined && etag !== `"${id}"`)) {
      response.destroy();
      const answer = `${response.lengthBytes} bytes of ${etag}`;
      throw new HeadpondError(
        "corrupt",
        `worker ${address} answered ${answer} when asked for ${length} bytes of ${id}`,
      );
    }
    const handover = new Handover();
    const done = response
      .consume((bytes) => handover.give(bytes))
      .then(
        () => handover.end(),
        (error: unknown) => handover.fail(error),
      );
    try {
      for (let chunk = await handover.take(); chunk !== undefined; chunk = await handover.take()) yield chunk;
    } catch (error) {
      throw asFailure(error, signal);
    } finally {
      handover.close();
      response.destroy();
      await done;
    }
  }

  async read(range: DataRange): Promise<Uint8Array> {
    const { address, file, position, length, signal } = range;
    const { id } = file;
    const client = this.#rpcClient(address);
    const options = { timeoutMs: readTimeoutMs, signal };
    try {
      return (await client.call(workerService.methods.read, { id, position, length }, options)).bytes;
    } catch (error) {
      throw asGone(toHeadpondError(error));
    }
  }

  async put(object: ObjectPut): Promise<WrittenObject> {
    const { address, mountId, key, ifAbsent, sizeBytes, signal } = object;
    const query = new URLSearchParams({ key, ifAbsent: String(ifAbsent) });
    const body = new SentBody(object.body);
    try {
      const response = await translated(
        this.#http.request({
          method: "PUT",
          url: `http://${address}/v1/objects/${mountId}?${query.toString()}`,
          headers: sizeBytes === undefined ? {} : { "content-length": String(sizeBytes) },
          body: body.chunks(),
          ...(signal === undefined ? {} : { signal }),
          connectTimeoutMs,
          idleTimeoutMs: putIdleTimeoutMs,
        }),
        signal,
      );
      if (response.status !== 200 && response.status !== 201)
        throw await answeredError(response, `${key} at ${address}`);
      return JSON.parse(await response.text(errorBytesMax)) as WrittenObject;
    } catch (thrown) {
      const error = toHeadpondError(thrown);
      // Without its end the worker throws the body away; with it, only an answer could tell.
      if (!body.isSent || !["unavailable", "timeout", "cancelled", "corrupt"].includes(error.code)) throw error;
      throw new HeadpondError(
        "unknown-outcome",
        `${key}: no answer of ${address} after all bytes were sent: ${error.message}`,
        {
          cause: thrown,
        },
      );
    }
  }

  async close(): Promise<void> {
    const clients = [...this.#rpcClients.values()];
    this.#rpcClients.clear();
    await Promise.all([this.#http.close(), ...clients.map((client) => client.close())]);
  }

  #rpcClient(address: string): RpcClient {
    let client = this.#rpcClients.get(address);
    this.#rpcClients.delete(address);
    client ??= new RpcClient({
      network: this.#network,
      address: parseAddress(address),
      service: workerService,
      self: { software: "headpond", role: "client", name: "sdk" },
      clock: this.#clock,
      logger: this.#logger,
    });
    this.#rpcClients.set(address, client);
    for (const [oldest, unused] of this.#rpcClients) {
      if (this.#rpcClients.size <= rpcClientsMax) break;
      this.#rpcClients.delete(oldest);
      unused.close().catch((error: unknown) => this.#logger.debug("closing a worker's connection failed", { error }));
    }
    return client;
  }
}

/** A body on its way, which knows whether its end has been handed to the connection. */
class SentBody {
  readonly #body: AsyncIterable<Uint8Array>;
  isSent = false;

  constructor(body: AsyncIterable<Uint8Array>) {
    this.#body = body;
  }

  async *chunks(): AsyncGenerator<Uint8Array, void, undefined> {
    for await (const chunk of this.#body) yield chunk;
    this.isSent = true;
  }
}

async function translated<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  try {
    return await promise;
  } catch (error) {
    throw asFailure(error, signal);
  }
}

/** What Node says of connections (`ECONNREFUSED`, ...) means that the worker cannot be reached. */
function asFailure(error: unknown, signal: AbortSignal | undefined): HeadpondError {
  if (signal?.aborted === true) return cancellation(signal);
  if (error instanceof HeadpondError) return error;
  const message = error instanceof Error ? error.message : String(error);
  return new HeadpondError("unavailable", message, { cause: error });
}

async function answeredError(response: HttpClientResponse, what: string): Promise<HeadpondError> {
  const retryAfterMs = Number(response.headers["retry-after"] ?? 0) * 1000;
  let document: unknown;
  try {
    document = JSON.parse(await response.text(errorBytesMax));
  } catch {
    response.destroy();
  }
  const error = errorFromDocument(document);
  const known = error.code !== "internal" || (document as { code?: unknown } | undefined)?.code === "internal";
  const code = known ? error.code : codeOfStatus(response.status);
  const details = retryAfterMs > 0 ? { retryAfterMs, ...error.details } : error.details;
  const failure = new HeadpondError(code, known ? error.message : `${what}: HTTP status ${response.status}`, {
    outcome: error.outcome,
    ...(known ? { retryable: error.retryable } : {}),
    ...(details === undefined ? {} : { details }),
  });
  return asGone(failure);
}

function codeOfStatus(status: number): "not-found" | "compacted" | "overloaded" | "unavailable" {
  if (status === 404) return "not-found";
  if (status === 410) return "compacted";
  return status === 429 ? "overloaded" : "unavailable";
}
