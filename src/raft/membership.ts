/**
 * Who votes and who only listens. An entry of the log carries a whole configuration, and a member goes by the last one
 * in its log, committed or not; so a truncated log, a snapshot or a restart never leave it with a wrong one. Voters
 * change by way of a joint configuration, whatever the change; learners alone change in one step.
 */

import { assert, present } from "../base/assert.ts";
import { HeadpondError } from "../base/errors.ts";
import type { Configuration, LoggedConfiguration, MemberDescription, NodeId } from "./types.ts";

export type MembershipChange =
  /** A voter that is added as a learner is demoted, a learner that is added as a voter promoted. */
  | { readonly type: "add-voter" | "add-learner"; readonly id: NodeId; readonly member?: MemberDescription }
  /** Only describes a member anew. */
  | { readonly type: "describe"; readonly id: NodeId; readonly member: MemberDescription }
  | { readonly type: "remove"; readonly id: NodeId };

export function configurationOf(voters: readonly NodeId[], learners: readonly NodeId[] = []): Configuration {
  return { voters: [...voters].sort(), outgoing: [], learners: [...learners].sort(), members: {} };
}

export function isJoint({ outgoing }: Configuration): boolean {
  return outgoing.length > 0;
}

export function isVoter({ voters, outgoing }: Configuration, id: NodeId): boolean {
  return voters.includes(id) || outgoing.includes(id);
}

export function membersOf({ voters, outgoing, learners }: Configuration): NodeId[] {
  return [...new Set([...voters, ...outgoing, ...learners])].sort();
}

/** What the leader appends first: the joint configuration, or the final one if no voter changes. Throws `invalid`. */
export function changed(from: Configuration, changes: readonly MembershipChange[]): Configuration {
  assert(!isJoint(from), "a joint configuration is left before the next change");
  const voters = new Set(from.voters);
  const learners = new Set(from.learners);
  const members: Record<NodeId, MemberDescription> = { ...from.members };
  for (const change of changes) {
    const { id } = change;
    if (id === "") throw new HeadpondError("invalid", "a member needs an id");
    const isMember = voters.has(id) || learners.has(id);
    if (!isMember && (change.type === "remove" || change.type === "describe")) {
      throw new HeadpondError("invalid", `${id} is no member and cannot be ${change.type}d`);
    }
    if (change.type !== "describe") {
      voters.delete(id);
      learners.delete(id);
    }
    if (change.type === "add-voter") voters.add(id);
    else if (change.type === "add-learner") learners.add(id);
    if (change.type === "remove") delete members[id];
    else if (change.member !== undefined) members[id] = change.member;
  }
  if (voters.size === 0) throw new HeadpondError("invalid", "a cluster without voters decides nothing: keep one");
  const to = { voters: [...voters].sort(), outgoing: [], learners: [...learners].sort(), members };
  if (sameConfiguration(from, to)) throw new HeadpondError("invalid", `nothing changes: ${describeConfiguration(to)}`);
  return sameIds(from.voters, to.voters) ? to : { ...to, outgoing: from.voters };
}

/** The configuration behind a joint one. */
export function withoutOutgoing(joint: Configuration): Configuration {
  return { ...joint, outgoing: [] };
}

export function encodeConfiguration(configuration: Configuration): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(configurationToJson(configuration)));
}

/** In one order: equal configurations have equal bytes. */
export function configurationToJson({ voters, outgoing, learners, members }: Configuration): Configuration {
  const byId = Object.entries(members).sort(([a], [b]) => (a < b ? -1 : 1));
  return { voters, outgoing, learners, members: Object.fromEntries(byId.map(([id, member]) => [id, inOrder(member)])) };
}

/** Throws `corrupt`. */
export function decodeConfiguration(payload: Uint8Array): Configuration {
  try {
    return configurationFromJson(JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(payload)));
  } catch (cause) {
    throw new HeadpondError("corrupt", `an entry of ${payload.length} bytes is no configuration`, { cause });
  }
}

/** Throws an error that names what is wrong. */
export function configurationFromJson(json: unknown): Configuration {
  const value = (json ?? {}) as Record<string, unknown>;
  const { members } = value;
  if (typeof members !== "object" || members === null) throw new Error("members");
  const entries = Object.entries(members).map(([id, member]) => [id, descriptionOf(id, member)] as const);
  return {
    voters: idsOf(value, "voters"),
    outgoing: idsOf(value, "outgoing"),
    learners: idsOf(value, "learners"),
    members: Object.fromEntries(entries),
  };
}

/** `(m1 m2 m3)`, joint `(m1 m2 m4)&&(m1 m2 m3)`, with learners `(m1) learners(m2)`. */
export function describeConfiguration({ voters, outgoing, learners }: Configuration): string {
  const joint = outgoing.length > 0 ? `&&(${outgoing.join(" ")})` : "";
  return `(${voters.join(" ")})${joint}${learners.length > 0 ? ` learners(${learners.join(" ")})` : ""}`;
}

/** The configurations that the log holds, beginning with the one of its snapshot. */
export class Membership {
  #history: LoggedConfiguration[];

  /** `history`: by rising index; the first is that of the snapshot, or what the cluster was formatted with (index 0). */
  constructor(history: readonly LoggedConfiguration[]) {
    assert(history.length > 0, "a member knows the configuration of its snapshot");
    this.#history = [...history];
  }

  get current(): Configuration {
    return this.#last.configuration;
  }

  /** Of the entry that brought the current one. */
  get index(): number {
    return this.#last.index;
  }

  /**
   * Whether `id` votes in the current configuration or in one that it may still replace: a leader that wrote its own
   * removal and lost power has the longest log, and can alone bring the removal to an end.
   */
  isVoterSince(commitIndex: number, id: NodeId): boolean {
    const first = this.#history.findLastIndex((item) => item.index <= commitIndex);
    return this.#history.slice(Math.max(0, first)).some(({ configuration }) => isVoter(configuration, id));
  }

  append(index: number, configuration: Configuration): void {
    assert(index > this.index, `configuration ${index} follows ${this.index}`);
    this.#history.push({ index, configuration });
  }

  /** Forgets what entries from `index` on brought. Whether anything was. */
  truncate(index: number): boolean {
    const before = this.#history.length;
    while (this.#history.length > 1 && this.index >= index) this.#history.pop();
    return this.#history.length < before;
  }

  reset(index: number, configuration: Configuration): void {
    this.#history = [{ index, configuration }];
  }

  /** In force at an entry that is not cut away; `undefined` before that. */
  at(index: number): Configuration | undefined {
    return this.#history.findLast((item) => item.index <= index)?.configuration;
  }

  /** Forgets what was in force only before `index`. */
  forgetBefore(index: number): void {
    const keep = this.#history.findLastIndex((item) => item.index <= index);
    if (keep > 0) this.#history.splice(0, keep);
  }

  get #last(): LoggedConfiguration {
    return present(this.#history.at(-1), "a membership has a configuration");
  }
}

function sameConfiguration(a: Configuration, b: Configuration): boolean {
  return (
    sameIds(a.voters, b.voters) &&
    sameIds(a.learners, b.learners) &&
    JSON.stringify(configurationToJson(a).members) === JSON.stringify(configurationToJson(b).members)
  );
}

function inOrder({ address, incarnation, rpc, http }: MemberDescription): MemberDescription {
  return {
    address,
    incarnation,
    ...(rpc === undefined ? {} : { rpc }),
    ...(http === undefined ? {} : { http }),
  };
}

function descriptionOf(id: NodeId, value: unknown): MemberDescription {
  const { address, incarnation, rpc, http } = (value ?? {}) as Partial<Record<keyof MemberDescription, unknown>>;
  if (typeof address !== "string" || typeof incarnation !== "string") throw new Error(`member ${id}`);
  const member = { address, incarnation };
  return {
    ...member,
    ...(typeof rpc === "string" ? { rpc } : {}),
    ...(typeof http === "string" ? { http } : {}),
  };
}

function sameIds(a: readonly NodeId[], b: readonly NodeId[]): boolean {
  return a.length === b.length && a.every((id) => b.includes(id));
}

function idsOf(value: Record<string, unknown>, name: string): NodeId[] {
  const ids = value[name];
  if (!Array.isArray(ids) || ids.some((id) => typeof id !== "string")) throw new Error(name);
  return ids as NodeId[];
}
