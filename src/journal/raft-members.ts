/**
 * The other masters: who they are, where they are reached, what they reported, and the changes that this master, while
 * it leads, makes to the membership. Descriptions (incarnation, addresses) are kept up to date by the leader itself.
 */

import { HeadpondError } from "../base/errors.ts";
import type { Clock } from "../io/clock.ts";
import type { Logger } from "../io/logger.ts";
import type { Address } from "../io/network.ts";
import { isJoint, isVoter, type MembershipChange, membersOf } from "../raft/membership.ts";
import type { Raft } from "../raft/raft.ts";
import type { Configuration, MemberDescription, NodeId } from "../raft/types.ts";
import type { JournalCluster, JournalMember, MemberChange } from "./journal.ts";
import type { PeerIdentity, PeerReport, Peers } from "./peers.ts";
import type { RaftIdentity } from "./raft-identity.ts";

export type RaftMembersOptions = {
  readonly core: Raft;
  readonly peers: Peers;
  readonly identity: RaftIdentity;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Stands for election as soon as a majority is connected. */
  readonly succeeds: boolean;
  readonly software: string;
  readonly featureLevel: number;
  readonly limits: RaftMembersLimits;
  readonly addresses: () => { readonly rpc: string; readonly http: string };
  /** What this master says of its state. */
  readonly state: () => Pick<PeerReport, "appliedIndex" | "digestIndex" | "digest" | "fresh" | "full">;
  /** The core has something to do. */
  readonly wake: () => void;
};

export type RaftMembersLimits = {
  /** Reports go out so often, and when something in them changes but the applied index. */
  readonly reportEveryMs: number;
  /** So often it is looked whether something has changed that is to be reported or written down. */
  readonly lookEveryMs: number;
  /** Who was not heard of for so long is not reachable. */
  readonly silentMs: number;
  /** A learner that lacks no more entries than this has caught up. */
  readonly caughtUpEntries: number;
  /** A change of members is given up when it could not begin, or is unknown when it did not end, for so long. */
  readonly changeTimeoutMs: number;
};

export const defaultRaftMembersLimits: RaftMembersLimits = {
  reportEveryMs: 1000,
  lookEveryMs: 50,
  silentMs: 3000,
  caughtUpEntries: 1000,
  changeTimeoutMs: 10_000,
};

type Reported = { readonly report: PeerReport; readonly atMs: number };

export class RaftMembers implements Omit<JournalCluster, "freshnessMs"> {
  readonly #options: RaftMembersOptions;
  readonly #reports = new Map<NodeId, Reported>();
  readonly #connected = new Set<NodeId>();
  readonly #listeners: (() => void)[] = [];
  /** What waits for the core to get somewhere; each looks after every turn. */
  readonly #watchers = new Set<() => void>();
  #configuration: Configuration | undefined;
  #leader: NodeId | undefined;
  #reported: PeerReport | undefined;
  #reportedAtMs = Number.NEGATIVE_INFINITY;
  #lookedAtMs = Number.NEGATIVE_INFINITY;
  #isShortOfSpace = false;
  #closed = false;
  #succeeds: boolean;

  constructor(options: RaftMembersOptions) {
    this.#options = options;
    this.#succeeds = options.succeeds;
  }

  members(): readonly JournalMember[] {
    const { core, identity, clock, limits } = this.#options;
    const { configuration } = core.configuration;
    const nowMs = clock.monotonicMs();
    const self = this.#ownReport();
    return membersOf(configuration).map((id) => {
      const described = configuration.members[id];
      const isSelf = id === identity.self.id;
      const heard = this.#reports.get(id);
      const report = isSelf ? self : heard?.report;
      const hasDigest = report !== undefined && report.digestIndex > 0;
      return {
        id,
        address: described?.address ?? "",
        rpc: known(report?.rpc) ?? described?.rpc,
        http: known(report?.http) ?? described?.http,
        voter: isVoter(configuration, id),
        leader: id === core.leader,
        appliedIndex: report?.appliedIndex,
        digestIndex: hasDigest ? report.digestIndex : undefined,
        digest: hasDigest ? report.digest : undefined,
        featureLevel: report?.featureLevel,
        reachable: isSelf || (this.#connected.has(id) && nowMs - (heard?.atMs ?? 0) < limits.silentMs),
      };
    });
  }

  onMembersChange(listener: () => void): void {
    this.#listeners.push(listener);
  }

  /** Where clients find a member. */
  rpcOf(id: NodeId | undefined): string | undefined {
    const { core, identity, addresses } = this.#options;
    if (id === undefined) return undefined;
    if (id === identity.self.id) return known(addresses().rpc);
    return known(this.#reports.get(id)?.report.rpc) ?? core.configuration.configuration.members[id]?.rpc;
  }

  /** Whether so many voters have full disks that nothing could be committed. */
  get isShortOfSpace(): boolean {
    return this.#isShortOfSpace;
  }

  connected(peer: PeerIdentity): void {
    this.#connected.add(peer.id);
  }

  disconnected(id: NodeId): void {
    this.#connected.delete(id);
  }

  reported(id: NodeId, report: PeerReport): void {
    const before = this.#reports.get(id)?.report;
    this.#reports.set(id, { report, atMs: this.#options.clock.monotonicMs() });
    if (before?.full !== report.full) this.#countFull();
    const { rpc, http, featureLevel } = report;
    if (before?.rpc !== rpc || before.http !== http || before.featureLevel !== featureLevel) this.#notify();
  }

  /** After every turn of the core: connects whom it has as members now, and looks whether changes are done. */
  turn(): void {
    const { core } = this.#options;
    const { configuration } = core.configuration;
    const isNew = configuration !== this.#configuration;
    if (isNew) {
      this.#configuration = configuration;
      this.#connect(configuration);
      this.#countFull();
    }
    if (isNew || core.leader !== this.#leader) {
      this.#leader = core.leader;
      this.#notify();
    }
    for (const watcher of this.#watchers) watcher();
  }

  /** With every tick: tells the others about this master, and, while it leads, the log about all. */
  tick(): void {
    const { clock, peers, limits } = this.#options;
    const nowMs = clock.monotonicMs();
    for (const watcher of this.#watchers) watcher();
    if (this.#succeeds) this.#succeed(nowMs);
    if (nowMs - this.#lookedAtMs < limits.lookEveryMs) return;
    this.#lookedAtMs = nowMs;
    const report = this.#ownReport();
    if (nowMs - this.#reportedAtMs >= limits.reportEveryMs || !sameReport(report, this.#reported)) {
      this.#reportedAtMs = nowMs;
      this.#reported = report;
      peers.report(report);
    }
    this.#describe();
  }

  async changeMembers(change: MemberChange, signal?: AbortSignal): Promise<void> {
    const { id } = change;
    switch (change.kind) {
      case "add":
        parseAddress(change.address);
        return this.#change({ type: "add-learner", id, member: { address: change.address, incarnation: "" } }, signal);
      case "promote":
        await this.#caughtUp(id, signal);
        return this.#change({ type: "add-voter", id }, signal);
      case "remove":
        return this.#change({ type: "remove", id }, signal);
      default:
        return change satisfies never;
    }
  }

  /** Of a leader that is about to go: tries to leave the others a leader. */
  async handOver(timeoutMs: number): Promise<void> {
    const { core, clock, wake } = this.#options;
    const target = this.#successor;
    if (target === undefined || !core.transfer(target, clock.monotonicMs()).accepted) return;
    wake();
    await this.until(() => core.role !== "leader", timeoutMs);
  }

  /** Hands over to anybody who can, if this master leads and has not done so yet. */
  giveUpLeading(): void {
    const { core, clock, wake } = this.#options;
    const target = core.role === "leader" ? this.#successor : undefined;
    if (target !== undefined && core.transfer(target, clock.monotonicMs()).accepted) wake();
  }

  async transferLeadership(id: string | undefined, signal?: AbortSignal): Promise<void> {
    const { core, clock, identity, wake, limits } = this.#options;
    const self = identity.self.id;
    const target = id ?? this.#successor;
    if (target === undefined) {
      if (core.role !== "leader") throw this.notLeader();
      throw new HeadpondError("unavailable", `${self} cannot hand over: no other voter is connected`);
    }
    const outcome = core.transfer(target, clock.monotonicMs());
    wake();
    if (!outcome.accepted) {
      if (outcome.reason === "not-leader") throw this.notLeader();
      throw new HeadpondError(outcome.reason === "invalid" ? "invalid" : "overloaded", outcome.message);
    }
    const done = (): boolean => core.role !== "leader" && core.leader !== undefined && core.leader !== self;
    if (await this.until(done, limits.changeTimeoutMs, signal)) return;
    throw new HeadpondError("timeout", `leadership was not taken over by ${target} in time: ask again`);
  }

  /** The voter that has most, of those that are there and have room. */
  get #successor(): NodeId | undefined {
    const { core } = this.#options;
    const { voters } = core.configuration.configuration;
    const isFull = (id: NodeId): boolean => this.#reports.get(id)?.report.full === true;
    const candidates = core.status.peers.filter(
      ({ id }) => voters.includes(id) && this.#connected.has(id) && !isFull(id),
    );
    return candidates.sort((a, b) => b.matchIndex - a.matchIndex)[0]?.id;
  }

  notLeader(): HeadpondError {
    const { core, identity } = this.#options;
    const leader = this.rpcOf(core.leader);
    const where = core.leader === undefined ? "there is no leader at the moment" : `${core.leader} does`;
    return new HeadpondError("not-leader", `${identity.self.id} does not lead, ${where}`, {
      details: leader === undefined || core.leader === identity.self.id ? {} : { leader },
    });
  }

  /** Nothing is waited for any more. */
  close(): void {
    this.#closed = true;
    for (const watcher of this.#watchers) watcher();
  }

  async #change(change: MembershipChange, signal: AbortSignal | undefined): Promise<void> {
    const { core, clock, limits } = this.#options;
    let outcome = core.changeMembership([change], clock.monotonicMs());
    this.#options.wake();
    // The leader describes members by itself, and a new one has to commit first: that is over soon.
    const began = await this.until(
      () => {
        if (!outcome.accepted && (outcome.reason === "pending-change" || outcome.reason === "not-ready")) {
          outcome = core.changeMembership([change], clock.monotonicMs());
          if (outcome.accepted) this.#options.wake();
        }
        return outcome.accepted || (outcome.reason !== "pending-change" && outcome.reason !== "not-ready");
      },
      limits.changeTimeoutMs,
      signal,
    );
    if (!outcome.accepted) {
      if (outcome.reason === "not-leader") throw this.notLeader();
      if (outcome.reason === "invalid") throw new HeadpondError("invalid", outcome.message);
      if (outcome.reason === "timeout" || !began) throw new HeadpondError("overloaded", outcome.message);
      throw new HeadpondError("overloaded", outcome.message);
    }
    const { index, term } = outcome;
    const isDone = (): boolean => {
      const { index: at, configuration } = core.configuration;
      return at >= index && core.commitIndex >= at && !isJoint(configuration);
    };
    const isOver = (): boolean => isDone() || core.term !== term || core.role !== "leader";
    await this.until(isOver, limits.changeTimeoutMs, signal);
    if (isDone()) return;
    throw new HeadpondError(
      "unknown-outcome",
      `the change of ${change.id} was begun and not seen to end: look at the members before you ask again`,
    );
  }

  async #caughtUp(id: NodeId, signal: AbortSignal | undefined): Promise<void> {
    const { core, limits, logger } = this.#options;
    const lag = (): number | undefined => {
      const peer = core.status.peers.find((other) => other.id === id);
      if (peer === undefined) return undefined;
      // It votes only when it knows the membership that names its disk, however short the log is.
      const { index, configuration } = core.configuration;
      const knowsItself = peer.matchIndex >= index && configuration.members[id]?.incarnation !== "";
      return knowsItself ? core.lastIndex - peer.matchIndex : Number.POSITIVE_INFINITY;
    };
    if (core.role !== "leader") throw this.notLeader();
    if (lag() === undefined) throw new HeadpondError("invalid", `${id} is no member: add it first`);
    logger.info("a learner catches up", { id, entries: lag() });
    // As long as it takes, unless whoever asks gives up.
    await this.until(
      () => core.role !== "leader" || (lag() ?? 0) <= limits.caughtUpEntries,
      Number.POSITIVE_INFINITY,
      signal,
    );
    if (core.role !== "leader") throw this.notLeader();
  }

  /** Resolves when the condition holds, true, or the time is over, false. Rejects when the signal fires. */
  until(condition: () => boolean, timeoutMs: number, signal?: AbortSignal): Promise<boolean> {
    const { clock } = this.#options;
    const endMs = clock.monotonicMs() + timeoutMs;
    return new Promise((resolve, reject) => {
      const look = (): void => {
        const holds = condition();
        const isOver = holds || this.#closed || signal?.aborted === true || clock.monotonicMs() >= endMs;
        if (!isOver) return;
        this.#watchers.delete(look);
        if (holds) resolve(true);
        else if (this.#closed) reject(new HeadpondError("unavailable", "the journal was closed"));
        else if (signal?.aborted === true) reject(signal.reason as Error);
        else resolve(false);
      };
      this.#watchers.add(look);
      look();
    });
  }

  /** Brings what the log says of the members up to date: disks that were met, addresses that changed. */
  #describe(): void {
    const { core, identity, clock, wake } = this.#options;
    if (core.role !== "leader" || !core.hasCommitted) return;
    const { index, configuration } = core.configuration;
    if (isJoint(configuration) || index > core.commitIndex) return;
    const changes: MembershipChange[] = [];
    for (const id of membersOf(configuration)) {
      const before = configuration.members[id] ?? { address: "", incarnation: "" };
      const isSelf = id === identity.self.id;
      const report = isSelf ? this.#options.addresses() : this.#reports.get(id)?.report;
      const rpc = known(report?.rpc) ?? before.rpc;
      const http = known(report?.http) ?? before.http;
      const member: MemberDescription = {
        address: before.address,
        incarnation: isSelf ? identity.self.incarnation : identity.incarnationOf(id, configuration),
        ...(rpc === undefined ? {} : { rpc }),
        ...(http === undefined ? {} : { http }),
      };
      const isSame =
        member.incarnation === before.incarnation && member.rpc === before.rpc && member.http === before.http;
      if (!isSame) changes.push({ type: "describe", id, member });
    }
    if (changes.length > 0 && core.changeMembership(changes, clock.monotonicMs()).accepted) wake();
  }

  #succeed(nowMs: number): void {
    const { core, identity, wake } = this.#options;
    const { voters } = core.configuration.configuration;
    const there = voters.filter((id) => id === identity.self.id || this.#connected.has(id));
    if (core.leader !== undefined) this.#succeeds = false;
    if (!this.#succeeds || core.role !== "follower" || there.length * 2 <= voters.length) return;
    core.campaign(nowMs);
    wake();
  }

  #countFull(): void {
    const { voters } = this.#options.core.configuration.configuration;
    const full = voters.filter((id) => this.#reports.get(id)?.report.full === true).length;
    this.#isShortOfSpace = (voters.length - full) * 2 <= voters.length && full > 0;
  }

  #connect(configuration: Configuration): void {
    const { peers, identity, logger } = this.#options;
    const others = new Map<NodeId, Address>();
    for (const id of membersOf(configuration)) {
      const address = configuration.members[id]?.address;
      if (id === identity.self.id || address === undefined) continue;
      try {
        others.set(id, parseAddress(address));
      } catch {
        logger.warn("a member cannot be reached: its address is none", { id, address });
      }
    }
    peers.setMembers(others);
  }

  #ownReport(): PeerReport {
    const { addresses, software, featureLevel, state } = this.#options;
    return { ...addresses(), ...state(), software, featureLevel };
  }

  #notify(): void {
    for (const listener of this.#listeners) listener();
  }
}

function known(text: string | undefined): string | undefined {
  return text === "" ? undefined : text;
}

/** All but the applied index, which changes all the time. */
function sameReport(a: PeerReport, b: PeerReport | undefined): boolean {
  return (
    a.rpc === b?.rpc &&
    a.http === b.http &&
    a.digestIndex === b.digestIndex &&
    a.digest === b.digest &&
    a.fresh === b.fresh &&
    a.full === b.full
  );
}

/** `host:port`, IPv6 in brackets. Throws `invalid`. */
export function parseAddress(text: string): Address {
  const match = /^(?:\[([^\]]+)\]|([^:]+)):([0-9]{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  const host = match?.[1] ?? match?.[2];
  if (host === undefined || port > 65_535) {
    throw new HeadpondError("invalid", `"${text}" is no address: write host:port, e.g. 10.0.0.7:7072`);
  }
  return { host, port };
}
