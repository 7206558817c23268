/**
 * Plays a scenario of the consensus core: a text of commands, each followed by what it brought about. Nothing happens
 * but by a command: messages wait until they are delivered, writes until they are flushed, time until it passes. So a
 * scenario reads as the story of a protocol, and a change of the protocol shows as a change of the story.
 *
 *   # a comment
 *   > add-nodes 3
 *   > campaign 1
 *   1 role pre-candidate term=0 leader=nobody
 *   1→2 pre-vote term=1 last=0/0
 *
 * The commands are explained in docs/raft.md.
 */

import { present } from "../base/assert.ts";
import { HeadpondError } from "../base/errors.ts";
import { Random } from "../base/random.ts";
import { describeMessage, describeReady } from "../raft/describe.ts";
import { configurationOf, type MembershipChange } from "../raft/membership.ts";
import { Raft } from "../raft/raft.ts";
import {
  type Configuration,
  defaultRaftLimits,
  type Entry,
  type Message,
  type NodeId,
  type RaftConfig,
  type RaftLimits,
} from "../raft/types.ts";
import { RaftDisk } from "./raft-disk.ts";

const config: RaftConfig = { tickMs: 10, heartbeatMs: 30, electionTimeoutMs: 100, leaseMs: 90, snapshotTimeoutMs: 200 };
const roundsMax = 200;

type Member = { readonly disk: RaftDisk; raft: Raft | undefined; paused: boolean; hung: boolean };

/** The text with what really happens in place of what it says. */
export function playScenario(text: string): string {
  const player = new Player();
  const lines: string[] = [];
  for (const line of text.split("\n")) {
    const isKept = line === "" || line.startsWith("#");
    if (isKept) lines.push(line);
    if (line.startsWith("> ")) lines.push(line, ...player.run(line.slice(2)));
  }
  return lines.join("\n");
}

class Player {
  readonly #members = new Map<NodeId, Member>();
  readonly #cut = new Set<string>();
  #limits: RaftLimits = defaultRaftLimits;
  #format: Configuration = configurationOf([]);
  #network: Message[] = [];
  #nowMs = 10_000;
  #out: string[] = [];

  run(command: string): readonly string[] {
    this.#out = [];
    const [name = "", ...args] = command.split(/\s+/);
    this.#perform(name, args);
    return this.#out;
  }

  #perform(name: string, args: readonly string[]): void {
    const [first = "", second = ""] = args;
    switch (name) {
      case "limits":
        for (const [key, value] of args.map((arg) => arg.split("="))) {
          this.#limits = { ...this.#limits, [key ?? ""]: Number(value) };
        }
        return;
      case "add-nodes": {
        const ids = Array.from({ length: Number(first) }, (_, i) => String(this.#members.size + i + 1));
        const learners = second.startsWith("learners=") ? second.slice(9).split(",") : [];
        this.#format = configurationOf(
          ids.filter((id) => !learners.includes(id)),
          learners,
        );
        for (const id of ids) this.#add(id, second === "empty" ? configurationOf([]) : this.#format);
        return;
      }
      case "swap":
        return this.#swap(first);
      case "elect":
        return this.#elect(first);
      case "log":
        return this.#writeLog(first, args.slice(1));
      case "campaign":
        return this.#tell(first, (raft) => raft.campaign(this.#nowMs));
      case "propose":
        return this.#propose(first, args.slice(1));
      case "read":
        return this.#tell(first, (raft) => raft.readIndex(Number(second), this.#nowMs));
      case "transfer":
        return this.#tell(first, (raft) => this.#refusal(raft.transfer(second, this.#nowMs)));
      case "change":
        return this.#tell(first, (raft) => {
          this.#refusal(raft.changeMembership(args.slice(1).map(parseChange), this.#nowMs));
        });
      case "tick":
        for (let i = 0; i < Number(second || 1); i++) this.#tick(first);
        return;
      case "wait":
        this.#nowMs += Number(first);
        return;
      case "deliver":
        return this.#deliver(first, Number(second || Number.POSITIVE_INFINITY));
      case "drop":
        return this.#drop(first);
      case "repeat":
        this.#network.push(...this.#network.filter((message) => travels(message, first)));
        return;
      case "flush":
        this.#flush(first);
        return;
      case "begin-flush":
        this.#member(first).disk.beginFlush();
        return;
      case "stabilize":
        return this.#stabilize(args);
      case "cut":
        for (const link of args) this.#cut.add(link);
        return;
      case "heal":
        this.#cut.clear();
        return;
      case "pause":
      case "thaw":
        this.#member(first).paused = name === "pause";
        return;
      case "hang":
      case "unhang":
        this.#member(first).hung = name === "hang";
        return;
      case "crash":
        this.#member(first).disk.crash(new Random(Number(second || 1)));
        this.#member(first).raft = undefined;
        return;
      case "restart":
        return this.#start(first, this.#nowMs);
      case "checkpoint":
        return this.#checkpoint(first, Number(second || 0));
      case "forge-snapshot": {
        const [term = 0, index = 0] = (args[2] ?? "").split("/").map(Number);
        const envelope = { from: first, to: second, term: this.#raft(first).term };
        const snapshot = { index, term, configuration: this.#format };
        this.#network.push({ type: "snapshot", ...envelope, snapshot, sentAtMs: this.#nowMs });
        return;
      }
      case "snapshot-failed":
        return this.#tell(first, (raft) => raft.snapshotFailed(second));
      case "snapshot-sent":
        return this.#tell(first, (raft) => raft.snapshotSent(second));
      case "unreachable":
        return this.#tell(first, (raft) => raft.unreachable(second));
      case "status":
        return this.#status(args);
      default:
        throw new HeadpondError("invalid", `no command ${JSON.stringify(name)}`);
    }
  }

  #add(id: NodeId, format: Configuration): void {
    this.#members.set(id, { disk: new RaftDisk(format), raft: undefined, paused: false, hung: false });
    this.#start(id, this.#nowMs - 1000);
  }

  /** As if it had been running for long, unless `restartedAtMs` is now. */
  #start(id: NodeId, restartedAtMs: number): void {
    const member = this.#member(id);
    const { disk } = member;
    member.raft = new Raft({
      id,
      config,
      limits: this.#limits,
      random: new Random(Number(id)),
      storage: disk,
      hardState: disk.hardState,
      configurations: disk.configurations,
      appliedIndex: disk.checkpoint.point.index,
      restartedAtMs,
    });
    member.raft.tick(this.#nowMs);
  }

  /** Puts entries of the given terms, `1x3 4x2`, on the disk, as if written in former lives; `term=7` is the hard state's. */
  #writeLog(id: NodeId, args: readonly string[]): void {
    const terms = args
      .filter((arg) => !arg.startsWith("term="))
      .flatMap((arg) => {
        const [term = 0, count = 1] = arg.split("x").map(Number);
        return Array.from({ length: count }, () => term);
      });
    const entries = terms.map((term, i): Entry => {
      return { index: i + 1, term, kind: "command", payload: new TextEncoder().encode(`${term}.${i + 1}`) };
    });
    const term = Number(args.find((arg) => arg.startsWith("term="))?.slice(5) ?? terms.at(-1) ?? 0);
    const { disk } = this.#member(id);
    disk.write({ token: 0, hardState: { term, vote: undefined }, truncateFrom: undefined, entries });
    disk.beginFlush();
    disk.endFlush();
    this.#start(id, this.#nowMs - 1000);
  }

  /** An election and all that follows from it, without the telling. */
  #elect(id: NodeId): void {
    this.#tell(id, (raft) => raft.campaign(this.#nowMs));
    this.#stabilize([]);
    this.#out = [this.#raft(id).describe()];
  }

  #propose(id: NodeId, payloads: readonly string[]): void {
    this.#tell(id, (raft) => {
      const encoded = payloads.map((payload) => new TextEncoder().encode(payload));
      this.#refusal(raft.propose(encoded, this.#nowMs));
    });
  }

  #refusal(outcome: { readonly accepted: boolean; readonly reason?: string; readonly message?: string }): void {
    if (outcome.accepted) return;
    this.#out.push(`refused: ${outcome.reason}${outcome.message === undefined ? "" : `: ${outcome.message}`}`);
  }

  #tick(which: string): void {
    this.#nowMs += config.tickMs;
    const ids = which === "all" ? [...this.#members.keys()] : which.split(",");
    for (const id of ids) this.#tell(id, (raft) => raft.tick(this.#nowMs));
  }

  #tell(id: NodeId, run: (raft: Raft) => void): void {
    const member = this.#member(id);
    if (member.raft === undefined || member.paused) return;
    try {
      run(member.raft);
      this.#take(id, member, member.raft);
    } catch (error) {
      if (!(error instanceof Error) || error.name !== "AssertionError") throw error;
      this.#out.push(`${id} halts: ${error.message}`);
      member.raft = undefined;
    }
  }

  #take(id: NodeId, member: Member, raft: Raft): void {
    const ready = raft.ready();
    for (const line of describeReady({ ...ready, messages: [] })) this.#out.push(`${id} ${line}`);
    if (ready.append !== undefined) member.disk.write(ready.append);
    if (ready.install !== undefined) member.disk.install({ point: ready.install, state: 0 });
    for (const message of ready.messages) {
      const isCut = this.#cut.has(`${message.from}>${message.to}`);
      this.#out.push(`${describeMessage(message)}${isCut ? " (lost)" : ""}`);
      if (!isCut) this.#network.push(message);
    }
    const last = ready.committed.at(-1);
    if (last === undefined) return;
    raft.applied(last.index);
    this.#take(id, member, raft);
  }

  #deliver(link: string, count: number): void {
    const messages = this.#network.filter((message) => travels(message, link) && this.#isAwake(message.to));
    const now = messages.slice(0, count);
    this.#network = this.#network.filter((message) => !now.includes(message));
    for (const message of now) this.#tell(message.to, (raft) => raft.step(message, this.#nowMs));
  }

  #drop(link: string): void {
    this.#network = this.#network.filter((message) => !travels(message, link));
  }

  /** What is under way on the link overtakes: last sent, first delivered. */
  #swap(link: string): void {
    const swapped = this.#network.filter((message) => travels(message, link)).reverse();
    this.#network = this.#network.filter((message) => !travels(message, link)).concat(swapped);
  }

  #isAwake(id: NodeId): boolean {
    const member = this.#members.get(id);
    return member !== undefined && !member.paused;
  }

  /** Ends the writes of one member. Whether there were any. */
  #flush(id: NodeId): boolean {
    const member = this.#member(id);
    if (member.raft === undefined || member.hung || member.disk.isIdle) return false;
    if (!member.disk.isFlushing) member.disk.beginFlush();
    const { token, installed } = member.disk.endFlush();
    if (token !== undefined) this.#out.push(`${id} has written #${token}`);
    if (installed !== undefined) this.#out.push(`${id} has installed ${installed.point.term}/${installed.point.index}`);
    this.#tell(id, (raft) => {
      if (token !== undefined) raft.appended(token, this.#nowMs);
      if (installed !== undefined) raft.snapshotInstalled(installed.point.index, this.#nowMs);
    });
    return true;
  }

  /** Delivers and flushes, among some or all, until nothing moves. */
  #stabilize(ids: readonly NodeId[]): void {
    const involved = ids.length > 0 ? ids : [...this.#members.keys()];
    for (let round = 0; round < roundsMax; round++) {
      let moved = false;
      for (const id of involved) {
        moved = this.#flush(id) || moved;
        const before = this.#network.length;
        if (!this.#network.some((message) => message.to === id && involved.includes(message.from))) continue;
        for (const from of involved) this.#deliver(`${from}>${id}`, Number.POSITIVE_INFINITY);
        moved ||= this.#network.length !== before || this.#isAwake(id);
      }
      if (!moved) return;
    }
    throw new HeadpondError("internal", `not stable after ${roundsMax} rounds`);
  }

  #checkpoint(id: NodeId, keep: number): void {
    const { disk } = this.#member(id);
    const raft = this.#raft(id);
    const index = raft.status.appliedIndex;
    const term = present(disk.term(index), "what is applied is on the disk");
    const configuration = present(raft.configurationAt(index), "the configuration of the state is known");
    disk.save({ point: { index, term, configuration }, state: 0 }, index - keep);
  }

  #status(ids: readonly NodeId[]): void {
    for (const id of ids.length > 0 ? ids : this.#members.keys()) {
      const { raft } = this.#member(id);
      this.#out.push(raft === undefined ? `${id} is down` : raft.describe());
      for (const peer of raft?.status.peers ?? []) this.#out.push(`  ${peer.id} ${peer.progress}`);
    }
  }

  #raft(id: NodeId): Raft {
    return present(this.#member(id).raft, `node ${id} is up`);
  }

  #member(id: NodeId): Member {
    return present(this.#members.get(id), `there is no node ${id}`);
  }
}

/** `1>2`: one link; `2`: all to 2; nothing: all. */
function travels({ from, to }: Message, link: string): boolean {
  return link === "" || link === to || link === `${from}>${to}`;
}

function parseChange(text: string): MembershipChange {
  const [type = "", id = ""] = text.split(":");
  if (type !== "add-voter" && type !== "add-learner" && type !== "remove") {
    throw new HeadpondError("invalid", `no change of members ${JSON.stringify(text)}`);
  }
  return { type, id };
}
