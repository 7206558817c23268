/** Sessions of clients: opened, renewed and closed by journaled commands, so that any leader knows them. */

import { HeadpondError } from "../base/errors.ts";
import type { MasterMethods } from "../rpc/master-service.ts";
import type { ReplyOf, RequestOf } from "../rpc/method.ts";
import type { Core } from "./core.ts";

type Request<K extends keyof MasterMethods> = RequestOf<MasterMethods[K]>;
type Reply<K extends keyof MasterMethods> = ReplyOf<MasterMethods[K]>;

export class SessionService {
  readonly #core: Core;
  readonly #timeoutMs: number;

  constructor({ core, timeoutMs }: { readonly core: Core; readonly timeoutMs: number }) {
    this.#core = core;
    this.#timeoutMs = timeoutMs;
  }

  async openSession(request: Request<"openSession">): Promise<Reply<"openSession">> {
    const { proposer } = this.#leading();
    const timeoutMs = this.#timeoutMs;
    const { client } = request;
    const done = await proposer.propose({ kind: "open-session", timeoutMs, client, timeMs: proposer.nowMs() });
    return { sessionId: done.sessionId, expiresAfterMs: timeoutMs };
  }

  /** Throws `not-found` when the session has expired. */
  async keepSession(request: Request<"keepSession">): Promise<Reply<"keepSession">> {
    const { proposer } = this.#leading();
    const { sessionId } = request;
    const done = await proposer.propose({ kind: "renew-sessions", sessionIds: [sessionId], timeMs: proposer.nowMs() });
    if (done.unknown.length > 0) {
      throw new HeadpondError("not-found", `session ${sessionId} has expired: open another`);
    }
    return { expiresAfterMs: this.#timeoutMs };
  }

  async closeSession(request: Request<"closeSession">): Promise<Reply<"closeSession">> {
    const { proposer } = this.#leading();
    await proposer.propose({ kind: "close-session", sessionId: request.sessionId, timeMs: proposer.nowMs() });
    return {};
  }

  #leading(): Core {
    this.#core.requireLeader();
    return this.#core;
  }
}
