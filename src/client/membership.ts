/**
 * The masters of a cluster, for those who operate it: who they are, joining, promotion, removal, handing over. The calls that
 * change something are repeated until their outcome is known, which is harmless: the masters answer what is so already.
 */

import { masterService } from "../rpc/master-service.ts";
import type { ReplyOf, RequestOf } from "../rpc/method.ts";
import type { CallOptions, MasterCalls } from "./master-calls.ts";

const methods = masterService.methods;

export class Membership {
  readonly #masters: MasterCalls;

  constructor(masters: MasterCalls) {
    this.#masters = masters;
  }

  /** As the master that answers knows them. */
  members(options: CallOptions = {}): Promise<ReplyOf<typeof methods.members>> {
    return this.#masters.call(methods.members, {}, { ...options, readOnly: true });
  }

  /** As a learner. `address` is that of its journal. False: it is a member already. */
  async add(id: string, address: string, options: CallOptions = {}): Promise<boolean> {
    return (
      await this.#masters.call(methods.addMember, { id, address }, { ...options, retryUnknown: true, isLong: true })
    ).changed;
  }

  /** Waits until the learner has caught up. False: it votes already. */
  async promote(id: string, options: CallOptions = {}): Promise<boolean> {
    return (await this.#masters.call(methods.promoteMember, { id }, { ...options, retryUnknown: true, isLong: true }))
      .changed;
  }

  /** False: there is no such member. */
  async remove(id: string, options: CallOptions = {}): Promise<boolean> {
    return (await this.#masters.call(methods.removeMember, { id }, { ...options, retryUnknown: true, isLong: true }))
      .changed;
  }

  /** A step of a move to another journal, of the master that answers: give the client one, and `follow: false`. */
  move(
    request: RequestOf<typeof methods.journalMove>,
    options: CallOptions = {},
  ): Promise<ReplyOf<typeof methods.journalMove>> {
    return this.#masters.call(methods.journalMove, request, {
      ...options,
      ...(request.step === "report" ? { readOnly: true } : { retryUnknown: true, isLong: true }),
    });
  }

  /** To `id`, or to the most advanced voter. Resolves with the id of who leads then, as far as the old leader knows. */
  async transfer(id: string | undefined, options: CallOptions = {}): Promise<string | undefined> {
    const request = id === undefined ? {} : { id };
    return (await this.#masters.call(methods.transferLeadership, request, options)).leader;
  }
}
