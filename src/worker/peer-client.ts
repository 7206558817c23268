/**
 * What one worker asks of another: a block's bytes while they arrive, and which blocks it holds. A peer that falls silent is
 * asked for a sign of life; only one that gives none counts as dead, because an owner may itself be waiting for a slow origin.
 */

import { BlockBitmap } from "../base/blocks.ts";
import { errorFromDocument, HeadpondError, isHeadpondError, toHeadpondError } from "../base/errors.ts";
import type { WorkerId } from "../base/ids.ts";
import type { Clock } from "../io/clock.ts";
import type { HttpClient } from "../io/http-client.ts";
import type { HttpClientResponse } from "../io/http-client-response.ts";
import type { CachedFile } from "./cached-file.ts";
import { type ClaimReply, type ClaimRequest, claimBodyBytesMax, parseClaimReply } from "./claim-wire.ts";
import type { Fill } from "./fill.ts";

export type PeerLimits = {
  readonly connectTimeoutMs: number;
  /** Silence after which a peer must show that it lives. */
  readonly quietMs: number;
  readonly probeTimeoutMs: number;
  /** One block in all. */
  readonly blockTimeoutMs: number;
};

export const peerLimits: PeerLimits = {
  connectTimeoutMs: 1500,
  quietMs: 1500,
  probeTimeoutMs: 1000,
  blockTimeoutMs: 120_000,
};

const unwatched = { heard: (): void => {}, end: (): void => {} };
/** A timer that is so late tells of this process, not of the peer. */
const busyMs = 30;
const probesMax = 4;
/** A coordinator has so long for its answer; before it counts as dead it is asked for a sign of life. */
const claimAnswerMs = 1000;

export const checksumHeader = "x-headpond-xxh64";
export const workersHeader = "x-headpond-workers";
export const descriptorHeader = "x-headpond-descriptor";

export type PeerBlockRequest = {
  readonly address: string;
  readonly worker: WorkerId;
  readonly by: WorkerId;
  /** Better owners that we could not reach. */
  readonly skipped: readonly WorkerId[];
  /** Only if the peer holds it or is just receiving it. */
  readonly heldOnly: boolean;
  readonly workersVersion: number;
  /** Who claimed the block, if it is part of a load: the peer takes it for right and asks its own neighbour. */
  readonly claimant?: WorkerId;
  /** Called when bytes are about to come: room for them is made then, and not while the peer itself waits for them. */
  readonly onHead?: () => Promise<void>;
  /** The asker ends the attempt itself when nothing comes. */
  readonly isWatched?: boolean;
};

export class PeerClient {
  readonly #http: HttpClient;
  readonly #control: HttpClient;
  readonly #clock: Clock;
  readonly #limits: PeerLimits;
  readonly #onBytes: (bytes: number) => void;
  readonly #probes = new Map<string, Promise<boolean>>();

  constructor(options: {
    readonly http: HttpClient;
    /** For questions: they must not wait behind blocks that wait themselves. */
    readonly control: HttpClient;
    readonly clock: Clock;
    readonly limits: PeerLimits;
    readonly onBytes: (bytes: number) => void;
  }) {
    this.#http = options.http;
    this.#control = options.control;
    this.#clock = options.clock;
    this.#limits = options.limits;
    this.#onBytes = options.onBytes;
  }

  /**
   * Fills `fill` from `fill.filledBytes` on, and returns the checksum of the whole block that the peer claims; the caller compares. Throws `unavailable` or `timeout` when
   * the peer is dead or silent, else what the peer answered, with its list's version in `details.workersVersion`.
   */
  async readBlock(request: PeerBlockRequest, fill: Fill, signal: AbortSignal): Promise<Uint8Array> {
    const attempt = new AbortController();
    // A neighbour in a load may itself wait, for long: who asks it watches its bytes.
    const watch = request.isWatched === true ? unwatched : this.#watch(request, attempt);
    const late = this.#clock.timer(this.#limits.blockTimeoutMs, () =>
      attempt.abort(new HeadpondError("timeout", `${request.worker} took too long over block ${fill.block}`)),
    );
    const both = AbortSignal.any([signal, attempt.signal]);
    try {
      const response = await this.#http.request({
        method: "GET",
        url: blockUrl(request, fill),
        headers: { [descriptorHeader]: Buffer.from(JSON.stringify(fill.file.descriptor)).toString("base64url") },
        signal: both,
        connectTimeoutMs: this.#limits.connectTimeoutMs,
        idleTimeoutMs: this.#limits.blockTimeoutMs,
      });
      watch.heard();
      if (response.status !== 200) throw await refusal(response);
      try {
        await request.onHead?.();
      } catch (error) {
        response.destroy();
        throw error;
      }
      const into = fill.room();
      await response.consume(
        (chunk) => {
          watch.heard();
          this.#onBytes(chunk.length);
          if (fill.append(chunk)) return;
          throw new HeadpondError("corrupt", `${request.worker} sent more bytes than block ${fill.block} has`);
        },
        into === undefined ? {} : { into },
      );
      if (fill.filledBytes !== fill.length) {
        const what = `${fill.filledBytes} of ${fill.length} bytes of block ${fill.block}`;
        throw new HeadpondError("corrupt", `${request.worker} sent ${what}`);
      }
      return checksumFrom(response.trailers[checksumHeader] ?? response.headers[checksumHeader], request.worker);
    } catch (error) {
      signal.throwIfAborted();
      throw toHeadpondError(error);
    } finally {
      watch.end();
      late.clear();
    }
  }

  /** Undefined: it cannot be asked, or knows nothing of the file. */
  async holdings(address: string, file: CachedFile): Promise<BlockBitmap | undefined> {
    try {
      const response = await this.#control.request({
        method: "GET",
        url: `http://${address}/v1/holdings/${file.id}`,
        connectTimeoutMs: this.#limits.connectTimeoutMs,
        idleTimeoutMs: this.#limits.probeTimeoutMs,
      });
      const body = await response.bytes(Math.ceil(file.blockCount / 8) + 4096);
      return response.status === 200 ? BlockBitmap.fromBytes(body, file.blockCount) : undefined;
    } catch {
      return undefined;
    }
  }

  /** Reports to the coordinator of a load. Throws what it answered, `unavailable`, `timeout` or `corrupt`. */
  async claim(address: string, file: CachedFile, asked: ClaimRequest, signal: AbortSignal): Promise<ClaimReply> {
    const response = await this.#control.request({
      method: "POST",
      url: `http://${address}/v1/claims/${file.id}`,
      headers: {
        "content-type": "application/json",
        [descriptorHeader]: Buffer.from(JSON.stringify(file.descriptor)).toString("base64url"),
      },
      body: Buffer.from(JSON.stringify(asked)),
      signal,
      connectTimeoutMs: this.#limits.connectTimeoutMs,
      idleTimeoutMs: asked.waitMs + claimAnswerMs,
    });
    if (response.status !== 200) throw await refusal(response);
    return parseClaimReply(JSON.parse(await response.text(claimBodyBytesMax)), file.blockCount);
  }

  /** Asks for a sign of life whenever nothing was heard for a while; aborts the attempt when none comes. */
  #watch(request: PeerBlockRequest, attempt: AbortController): { heard(): void; end(): void } {
    let ended = false;
    const onQuiet = (): void => {
      void this.isAlive(request.address).then((alive) => {
        if (ended) return;
        if (alive) timer = this.#clock.timer(this.#limits.quietMs, onQuiet);
        else attempt.abort(new HeadpondError("timeout", `worker ${request.worker} is silent`));
      });
    };
    let timer = this.#clock.timer(this.#limits.quietMs, onQuiet);
    return {
      heard: () => {
        timer.clear();
        if (!ended) timer = this.#clock.timer(this.#limits.quietMs, onQuiet);
      },
      end: () => {
        ended = true;
        timer.clear();
      },
    };
  }

  /** Whether it answers at all, soon. Those who ask at the same time share the answer. */
  isAlive(address: string): Promise<boolean> {
    const asking = this.#probes.get(address);
    if (asking !== undefined) return asking;
    const probe = this.#probe(address).finally(() => this.#probes.delete(address));
    this.#probes.set(address, probe);
    return probe;
  }

  async #probe(address: string): Promise<boolean> {
    const { probeTimeoutMs } = this.#limits;
    for (let attempt = 1; ; attempt++) {
      const startedMs = this.#clock.monotonicMs();
      try {
        const response = await this.#control.request({
          method: "HEAD",
          url: `http://${address}/v1/alive`,
          connectTimeoutMs: probeTimeoutMs,
          idleTimeoutMs: probeTimeoutMs,
        });
        await response.bytes(4096);
        return true;
      } catch (error) {
        // A refused connection is an answer. A timeout that fires late says that this process had no turn: the answer may lie in the socket.
        const tookMs = this.#clock.monotonicMs() - startedMs;
        const wasBusy = isHeadpondError(error, "timeout") && tookMs > probeTimeoutMs + busyMs;
        if (!wasBusy || attempt >= probesMax) return false;
      }
    }
  }
}

function blockUrl(request: PeerBlockRequest, fill: Fill): string {
  const { address, by, skipped, heldOnly, workersVersion, claimant } = request;
  const query = new URLSearchParams({ workers: String(workersVersion), by, urgency: String(fill.urgency) });
  if (skipped.length > 0) query.set("after", skipped.join(","));
  if (heldOnly) query.set("held", "1");
  if (claimant !== undefined) query.set("claimant", claimant);
  if (fill.filledBytes > 0) query.set("from", String(fill.filledBytes));
  return `http://${address}/v1/blocks/${fill.file.id}/${fill.block}?${query}`;
}

async function refusal(response: HttpClientResponse): Promise<HeadpondError> {
  const text = await response.text(64 * 1024);
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch {
    document = { code: "internal", message: `status ${response.status}: ${text.slice(0, 200)}` };
  }
  const error = errorFromDocument(document);
  const workers = Number(response.headers[workersHeader]);
  if (!Number.isSafeInteger(workers)) return error;
  return new HeadpondError(error.code, error.message, { details: { ...error.details, workersVersion: workers } });
}

function checksumFrom(text: string | undefined, worker: WorkerId): Uint8Array {
  if (text === undefined || !/^[0-9a-f]{16}$/.test(text)) {
    throw new HeadpondError("corrupt", `${worker} sent a block without a checksum`);
  }
  return Buffer.from(text, "hex");
}
