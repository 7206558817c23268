/**
 * The masters themselves, as RPC shows and changes them: who they are and how far they have come, joining, promotion, removal,
 * handing over. Changes are for the leader. Each may be asked for again when its outcome is not known: what is so already is
 * answered with `changed: false`.
 */

import type { MasterStatus } from "../base/cluster.ts";
import { formatHostPort, parseHostPort } from "../base/config.ts";
import { HeadpondError } from "../base/errors.ts";
import { type ClusterId, type MasterId, parseMasterId } from "../base/ids.ts";
import type { Clock } from "../io/clock.ts";
import type { JournalCluster, JournalMember } from "../journal/journal.ts";
import type { MasterMethods } from "../rpc/master-service.ts";
import type { ReplyOf, RequestOf } from "../rpc/method.ts";
import type { Core } from "./core.ts";

type Request<K extends keyof MasterMethods> = RequestOf<MasterMethods[K]>;
type Reply<K extends keyof MasterMethods> = ReplyOf<MasterMethods[K]>;

export type MemberServiceDependencies = {
  readonly core: Core;
  readonly clusterId: ClusterId;
  readonly id: MasterId;
  /** `host:port`, as others should use it; known once the master listens. */
  readonly addresses: () => { readonly rpc: string; readonly http: string };
  readonly clock: Clock;
};

/** A digest costs as much as has changed since the last one: pages that refresh themselves do not get a new one each time. */
const digestKeptMs = 250;

export class MemberService {
  readonly #deps: MemberServiceDependencies;
  #digest = { atMs: Number.NEGATIVE_INFINITY, index: -1, text: "" };

  constructor(dependencies: MemberServiceDependencies) {
    this.#deps = dependencies;
  }

  members(): Reply<"members"> {
    const { core, clusterId } = this.#deps;
    return { clusterId, members: this.statuses(), commitIndex: core.journal.status().commitIndex };
  }

  /** Every master; of the local journal this one. */
  statuses(): MasterStatus[] {
    const { core, id, addresses } = this.#deps;
    const { role, commitIndex } = core.journal.status();
    const { rpc, http } = addresses();
    const appliedIndex = core.namespace.applied.index;
    const lagEntries = Math.max(0, commitIndex - appliedIndex);
    const own = { id, address: rpc, http, role, appliedIndex, lagEntries, ...this.#digestNow(), reachable: true };
    const { cluster } = core.journal;
    if (cluster === undefined) return [{ ...own, voter: true }];
    return cluster.members().map((member) => {
      const status = statusOf(member, commitIndex);
      return member.id === id ? { ...status, ...own } : status;
    });
  }

  async addMember(request: Request<"addMember">, signal: AbortSignal): Promise<Reply<"addMember">> {
    const cluster = this.#leading();
    const id = parseMasterId(request.id);
    const address = formatHostPort(parseHostPort(request.address));
    const present = cluster.members().find((member) => member.id === id);
    if (present !== undefined) {
      if (present.address === address) return { changed: false };
      throw new HeadpondError(
        "already-exists",
        `${id} is a member at ${present.address}: ids are not used again, take another for the master at ${address}`,
      );
    }
    await cluster.changeMembers({ kind: "add", id, address }, signal);
    return { changed: true };
  }

  async promoteMember(request: Request<"promoteMember">, signal: AbortSignal): Promise<Reply<"promoteMember">> {
    const cluster = this.#leading();
    const member = memberOf(cluster, request.id);
    if (member.voter) return { changed: false };
    await cluster.changeMembers({ kind: "promote", id: member.id }, signal);
    return { changed: true };
  }

  async removeMember(request: Request<"removeMember">, signal: AbortSignal): Promise<Reply<"removeMember">> {
    const cluster = this.#leading();
    const members = cluster.members();
    const member = members.find(({ id }) => id === request.id);
    if (member === undefined) return { changed: false };
    if (member.voter) refuseWithoutMajority(members, member);
    await cluster.changeMembers({ kind: "remove", id: member.id }, signal);
    return { changed: true };
  }

  async transferLeadership(
    request: Request<"transferLeadership">,
    signal: AbortSignal,
  ): Promise<Reply<"transferLeadership">> {
    const cluster = this.#leading();
    if (request.id !== undefined) {
      const member = memberOf(cluster, request.id);
      if (!member.voter) throw new HeadpondError("invalid", `${member.id} is a learner: promote it first`);
      if (member.leader) return { leader: member.id };
    } else if (cluster.members().filter(({ voter }) => voter).length === 1) {
      throw new HeadpondError("invalid", "there is no other voter to hand over to: add a master first");
    }
    await cluster.transferLeadership(request.id, signal);
    const leader = cluster.members().find((member) => member.leader);
    return leader === undefined ? {} : { leader: leader.id };
  }

  #digestNow(): { readonly digestIndex: number; readonly digest: string } {
    const { core, clock } = this.#deps;
    const { index } = core.namespace.applied;
    const nowMs = clock.monotonicMs();
    if (this.#digest.index !== index && nowMs - this.#digest.atMs >= digestKeptMs) {
      this.#digest = { atMs: nowMs, index, text: core.namespace.digest() };
    }
    return { digestIndex: this.#digest.index, digest: this.#digest.text };
  }

  #leading(): JournalCluster {
    const { core } = this.#deps;
    const { cluster } = core.journal;
    if (cluster === undefined) {
      throw new HeadpondError(
        "unsupported",
        "the journal of this cluster is for one master: `headpond journal migrate --to raft` makes one that can have several",
      );
    }
    core.requireLeader();
    return cluster;
  }
}

/** A removal that the voters who are left cannot decide would end all changes until the dead ones are back. */
function refuseWithoutMajority(members: readonly JournalMember[], removed: JournalMember): void {
  const left = members.filter(({ id, voter }) => voter && id !== removed.id);
  if (left.length === 0) {
    throw new HeadpondError("invalid", `${removed.id} is the only voter: add another master before it is removed`);
  }
  const dead = left.filter(({ reachable, leader }) => !reachable && !leader);
  if (left.length - dead.length > left.length / 2) return;
  throw new HeadpondError(
    "invalid",
    `without ${removed.id} no majority would live: ${dead.map(({ id }) => id).join(", ")} cannot be reached. ` +
      "Bring it back, or remove it first",
  );
}

function memberOf(cluster: JournalCluster, id: string): JournalMember {
  const members = cluster.members();
  const member = members.find((candidate) => candidate.id === id);
  if (member !== undefined) return member;
  const known = members.map((candidate) => candidate.id).join(", ");
  throw new HeadpondError("not-found", `${id} is no member of the cluster: there are ${known}`);
}

function statusOf(member: JournalMember, commitIndex: number): MasterStatus {
  const { id, address, rpc, http, voter, leader, appliedIndex = 0, digest = "", digestIndex, reachable } = member;
  return {
    id: id as MasterId,
    address: rpc ?? address,
    role: leader ? "leader" : "standby",
    appliedIndex,
    digest,
    ...(digestIndex === undefined ? {} : { digestIndex }),
    lagEntries: Math.max(0, commitIndex - appliedIndex),
    voter,
    ...(address === "" ? {} : { journalAddress: address }),
    ...(http === undefined ? {} : { http }),
    reachable,
  };
}
