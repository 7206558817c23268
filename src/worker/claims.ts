/**
 * Claims as a worker takes part in them: a session for each file that it loads together with others, the tables of the files that it
 * coordinates, and the way to the other coordinators.
 */

import type { BlockBitmap } from "../base/blocks.ts";
import { HeadpondError } from "../base/errors.ts";
import { parseFileVersionId, type WorkerId } from "../base/ids.ts";
import type { Clock } from "../io/clock.ts";
import type { HttpRequest } from "../io/http-request.ts";
import type { HttpResponse } from "../io/http-response.ts";
import type { Logger } from "../io/logger.ts";
import type { CachedFile } from "./cached-file.ts";
import { ClaimService, type ClaimServiceLimits } from "./claim-service.ts";
import { ClaimSession, type ClaimSessionLimits } from "./claim-session.ts";
import { type ClaimReply, type ClaimRequest, claimBodyBytesMax, parseClaimRequest } from "./claim-wire.ts";
import type { Descriptors } from "./descriptors.ts";
import type { Fetcher } from "./fetcher.ts";
import type { Members } from "./members.ts";
import { descriptorHeader, type PeerClient } from "./peer-client.ts";

export type ClaimsLimits = {
  /** If not, the blocks of loads come from their owners, as those of readers do. */
  readonly isOn: boolean;
  readonly service: ClaimServiceLimits;
  readonly session: ClaimSessionLimits;
  /** Files with fewer blocks come from their blocks' owners. */
  readonly blocksMin: number;
  readonly firstListWaitMs: number;
};

export type ClaimsDependencies = {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly members: Members;
  readonly peers: PeerClient;
  readonly fetcher: Fetcher;
  readonly descriptors: Descriptors;
  readonly incarnation: string;
  readonly limits: ClaimsLimits;
  /** Workers of this domain that hold some of a file, and what. */
  readonly holders: (file: CachedFile) => Promise<ReadonlyMap<WorkerId, BlockBitmap>>;
};

export class Claims {
  readonly service: ClaimService;
  readonly #deps: ClaimsDependencies;
  readonly #sessions = new Map<CachedFile, { readonly session: ClaimSession; users: number }>();
  #begun = 0;
  #closed = false;

  constructor(dependencies: ClaimsDependencies) {
    this.#deps = dependencies;
    const { clock, members, incarnation, limits } = dependencies;
    this.service = new ClaimService({
      clock,
      members,
      incarnation,
      limits: limits.service,
      isAlive: (worker) => this.#isAlive(worker),
    });
  }

  get sessionCount(): number {
    return this.#sessions.size;
  }

  /** From now on the blocks of this file come by claims, until `end`. Undefined: there is nobody to share it with. */
  async begin(file: CachedFile): Promise<ClaimSession | undefined> {
    const { members, limits, fetcher } = this.#deps;
    if (!limits.isOn) return undefined;
    await members.waitForFirst(limits.firstListWaitMs);
    if (this.#closed || file.isFull || file.blockCount < limits.blocksMin || members.peers().length === 0)
      return undefined;
    const known = this.#sessions.get(file);
    if (known !== undefined) {
      known.users++;
      return known.session;
    }
    const session = this.#session(file);
    this.#sessions.set(file, { session, users: 1 });
    fetcher.useClaims(file, session);
    return session;
  }

  async end(file: CachedFile): Promise<void> {
    const entry = this.#sessions.get(file);
    if (entry === undefined || --entry.users > 0) return;
    this.#sessions.delete(file);
    this.#deps.fetcher.endClaims(file);
    await entry.session.close();
  }

  /** `POST /v1/claims/<fileVersionId>`. */
  async serve(request: HttpRequest, response: HttpResponse, idText: string): Promise<void> {
    const { id } = parseFileVersionId(idText);
    const file = await this.#deps.descriptors.find(id, request.headers[descriptorHeader]);
    const asked = parseClaimRequest(await request.json(claimBodyBytesMax));
    response.json(200, await this.service.report(file, asked, request.signal));
  }

  async close(): Promise<void> {
    this.#closed = true;
    const sessions = [...this.#sessions.values()].map(({ session }) => session);
    this.#sessions.clear();
    await Promise.all([this.service.close(), ...sessions.map((session) => session.close())]);
  }

  #session(file: CachedFile): ClaimSession {
    const { members, clock, logger, fetcher, limits, holders } = this.#deps;
    return new ClaimSession({
      name: `${this.#deps.incarnation.slice(0, 40)}/${++this.#begun}`,
      file,
      members,
      clock,
      logger,
      limits: limits.session,
      underWay: () => fetcher.underWay(file),
      ask: (worker, request, signal) => this.#ask(worker, file, request, signal),
      isAlive: (worker) => this.#isAlive(worker),
      holders: () => holders(file),
    });
  }

  async #isAlive(worker: WorkerId): Promise<boolean> {
    const address = this.#deps.members.address(worker);
    return address !== undefined && (await this.#deps.peers.isAlive(address));
  }

  async #ask(worker: WorkerId, file: CachedFile, request: ClaimRequest, signal: AbortSignal): Promise<ClaimReply> {
    const { members, peers } = this.#deps;
    if (worker === members.self) return this.service.report(file.descriptor, request, signal);
    const address = members.address(worker);
    if (address === undefined) throw new HeadpondError("unavailable", `worker ${worker} is not in the list`);
    return peers.claim(address, file, request, signal);
  }
}
