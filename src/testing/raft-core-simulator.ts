/**
 * A whole cluster of consensus cores in one thread: one seed, one history. The network loses, delays, repeats and reorders
 * messages and is cut in two, one way or between two members only; disks are slow, hang and lose what was not flushed;
 * processes pause, crash and start again; clocks differ; members come and go, leadership is handed over, logs are cut;
 * clients propose and read. An oracle checks everything after every step (raft-core-oracle.ts). Then all faults end, and
 * the cluster must come to rest with everything decided.
 */

import { AssertionError } from "../base/assert.ts";
import { Random } from "../base/random.ts";
import { configurationOf, isJoint, type MembershipChange, membersOf } from "../raft/membership.ts";
import { Raft } from "../raft/raft.ts";
import { defaultRaftConfig, type Message, type NodeId, type RaftLimits } from "../raft/types.ts";
import { EventQueue } from "./event-queue.ts";
import { type Counts, type RaftClass, SimulatedNode, type World } from "./raft-core-node.ts";
import { payloadOf, RaftOracle, Violation } from "./raft-core-oracle.ts";

export type SimulationOptions = {
  readonly seed: number;
  /** Simulated milliseconds with faults. */
  readonly ticks: number;
  /** A core with a planted bug, to test the simulator. */
  readonly Raft?: RaftClass;
  /** Fixed instead of drawn: where to look for something. */
  readonly profile?: Partial<Profile>;
};

export type SimulationResult = {
  readonly seed: number;
  readonly ticks: number;
  readonly violation: string | undefined;
  readonly leaders: number;
  readonly committed: number;
  readonly counts: Counts;
};

/** A message that may end somebody's leadership. */
const challenges: ReadonlySet<Message["type"]> = new Set(["pre-vote", "vote", "timeout-now"]);

const healTicksMax = 15_000;

export function simulate(options: SimulationOptions): SimulationResult {
  return new Simulation(options).run();
}

/** How hard this history is: drawn from the seed. Means in milliseconds; `Infinity`: never. */
export type Profile = ReturnType<typeof drawProfile>;

function drawProfile(random: Random) {
  const every = (chance: number, ...meansMs: readonly number[]): number =>
    random.chance(chance) ? random.pick(meansMs) : Number.POSITIVE_INFINITY;
  return {
    size: random.pick([1, 2, 3, 3, 3, 4, 5, 5]),
    loss: random.pick([0, 0, 0.01, 0.05, 0.2]),
    repeat: random.pick([0, 0.01, 0.1, 0.3]),
    delayMs: random.pick([1, 1, 3, 10, 40, 120]),
    /** Some messages come much later. */
    straggle: random.pick([0, 0.005, 0.05, 0.2]),
    flushMs: random.pick([0, 1, 4, 30, 120]),
    proposeMs: random.pick([8, 20, 60]),
    /** Clients fall silent for so long now and then: then members that are cut off have no shorter logs. */
    lullMs: every(0.6, 300, 1500),
    readMs: random.pick([10, 40]),
    cutMs: every(0.7, 400, 1200, 4000),
    crashMs: every(0.7, 250, 1200, 4000),
    downMs: random.pick([5, 50, 400, 2000]),
    pauseMs: every(0.6, 600, 3000),
    hangMs: every(0.4, 2000, 6000),
    changeMs: every(0.6, 300, 1500),
    transferMs: every(0.5, 300, 2000),
    checkpointMs: every(0.7, 60, 300, 1500),
    /** How often the leader is cut off just when somebody tries to take its place, or a voter crashes when it has voted. */
    malice: random.pick([0, 0.2, 1]),
    /** How often a voter restarts just before it is asked for a pre-vote. Only for those who look for what it then forgets. */
    forgetful: 0,
    payloadBytes: random.pick([4, 20, 200]),
    keepEntries: random.pick([0, 5, 50]),
  };
}

class Simulation {
  readonly #options: SimulationOptions;
  readonly #random: Random;
  readonly #profile: Profile;
  readonly #events = new EventQueue();
  readonly #oracle = new RaftOracle();
  readonly #nodes = new Map<NodeId, SimulatedNode>();
  readonly #cut = new Set<string>();
  /** Cut off for a moment, from everybody. */
  readonly #isolated = new Set<NodeId>();
  readonly #counts: Counts = {
    events: 0,
    proposed: 0,
    acknowledged: 0,
    refused: 0,
    unknown: 0,
    leaseReads: 0,
    quorumReads: 0,
    refusedReads: 0,
    installs: 0,
    crashes: 0,
    changes: 0,
    transfers: 0,
  };
  #payloads = 0;
  #isHealed = false;

  constructor(options: SimulationOptions) {
    this.#options = options;
    this.#random = new Random(options.seed);
    this.#profile = { ...drawProfile(this.#random), ...options.profile };
  }

  run(): SimulationResult {
    const { seed, ticks } = this.#options;
    let violation: string | undefined;
    try {
      this.#start();
      while (this.#events.step(ticks));
      this.#heal();
    } catch (error) {
      if (!(error instanceof Violation) && !(error instanceof Error && error.name === new AssertionError("").name))
        throw error;
      violation = `after ${Math.round(this.#events.nowMs)} ticks: ${error.name}: ${error.message}`;
    }
    const { leaderCount: leaders, commitIndex: committed } = this.#oracle;
    return { seed, ticks: this.#events.nowMs, violation, leaders, committed, counts: this.#counts };
  }

  #start(): void {
    const { size } = this.#profile;
    const limits: RaftLimits = {
      messageBytes: 400,
      inflightMessages: this.#random.pick([1, 4, 64]),
      inflightBytes: 4000,
      uncommittedBytes: this.#random.pick([500, 20_000]),
      applyBytes: 1000,
      pendingReads: 50,
    };
    const world: World = {
      Raft: this.#options.Raft ?? Raft,
      events: this.#events,
      oracle: this.#oracle,
      random: this.#random,
      config: { ...defaultRaftConfig, snapshotTimeoutMs: 500 },
      limits,
      send: (message, state) => this.#send(message, state),
      holds: (id, index, term) => this.#nodes.get(id)?.disk.holds(index, term) ?? false,
      counts: this.#counts,
      flushMs: () => (this.#isHealed ? 1 : this.#random.float() * this.#profile.flushMs),
    };
    // Two or three more than the cluster begins with: they may join.
    const ids = Array.from({ length: Math.max(4, size + 2) }, (_, i) => `m${i + 1}`);
    const format = configurationOf(ids.slice(0, size));
    for (const [i, id] of ids.entries()) {
      this.#nodes.set(id, new SimulatedNode(id, i < size ? format : configurationOf([]), world));
    }
    const p = this.#profile;
    this.#often(p.proposeMs, () => this.#propose());
    this.#often(p.readMs, () => this.#any().read());
    this.#often(p.checkpointMs, () =>
      (this.#random.chance(0.5) ? this.#someLeader() : this.#any()).saveCheckpoint(p.keepEntries),
    );
    this.#often(p.cutMs, () => this.#cutNetwork());
    this.#often(p.crashMs, () => this.#crash());
    this.#often(p.pauseMs, () => this.#pause());
    this.#often(p.hangMs, () => this.#any().hang(this.#events.nowMs + this.#random.between(50, 1500)));
    this.#often(p.changeMs, () => this.#change());
    this.#often(p.transferMs, () => this.#transfer());
  }

  /** Again and again until the healing, with random waits of this mean. */
  #often(meanMs: number, run: () => void): void {
    if (meanMs === Number.POSITIVE_INFINITY) return;
    const next = (): void => {
      this.#events.after(-meanMs * Math.log(1 - this.#random.float()), () => {
        if (this.#isHealed) return;
        run();
        next();
      });
    };
    next();
  }

  #any(): SimulatedNode {
    return this.#random.pick([...this.#nodes.values()]);
  }

  /** Whoever thinks that it leads; several may. */
  #leaders(): SimulatedNode[] {
    return [...this.#nodes.values()].filter((node) => node.isUp && node.raft.role === "leader");
  }

  #someLeader(): SimulatedNode {
    const leaders = this.#leaders();
    return leaders.length > 0 ? this.#random.pick(leaders) : this.#any();
  }

  #propose(): void {
    const { lullMs } = this.#profile;
    if (lullMs < Number.POSITIVE_INFINITY && Math.floor(this.#events.nowMs / lullMs) % 2 === 1) return;
    const bytes = this.#random.between(4, this.#profile.payloadBytes);
    const node = this.#random.chance(0.9) ? this.#someLeader() : this.#any();
    node.propose(payloadOf(++this.#payloads, bytes));
  }

  #send(message: Message, state: number): void {
    const { loss, repeat, straggle, delayMs } = this.#profile;
    const random = this.#random;
    const times = !this.#isHealed && random.chance(repeat) ? 2 : 1;
    const isCut = this.#isolated.has(message.from) || this.#isolated.has(message.to);
    const failed = isCut || this.#cut.has(`${message.from}>${message.to}`) || (!this.#isHealed && random.chance(loss));
    if (challenges.has(message.type)) this.#isolateLeader(message.from);
    if (
      message.type === "pre-vote" &&
      !this.#isHealed &&
      this.#profile.forgetful > 0 &&
      random.chance(this.#profile.forgetful)
    ) {
      this.#restart(message.to);
    }
    if (message.type === "vote-reply" && message.granted && random.chance(this.#isHealed ? 0 : this.#profile.malice)) {
      const voter = this.#nodes.get(message.from);
      this.#events.after(0, () => voter?.isUp === true && this.#crashOne(voter));
    }
    if (message.type === "snapshot") this.#reportSnapshot(message, failed);
    else if (failed && random.chance(0.1)) {
      this.#events.after(1, () => this.#nodes.get(message.from)?.tell((raft) => raft.unreachable(message.to)));
    }
    if (failed) return;
    for (let i = 0; i < times; i++) {
      let wait = this.#isHealed ? 1 : 0.2 + random.float() * delayMs;
      if (!this.#isHealed && random.chance(straggle)) wait += random.between(0, 1500);
      this.#events.after(wait, () => this.#nodes.get(message.to)?.receive(message, state));
    }
  }

  /** A leader that does not hear of its successor goes on as long as it may. */
  #isolateLeader(challenger: NodeId): void {
    const random = this.#random;
    if (this.#isHealed || !random.chance(this.#profile.malice)) return;
    const leader = this.#leaders()[0];
    if (leader === undefined || this.#isolated.has(leader.id)) return;
    // The message of a leader that hands over must get out.
    this.#events.after(challenger === leader.id ? this.#profile.delayMs : 0, () => this.#isolated.add(leader.id));
    const endMs = random.between(20, 400);
    for (let wait = 5; wait < endMs; wait += 15) this.#events.after(wait, () => leader.read());
    this.#events.after(endMs + this.#profile.delayMs, () => this.#isolated.delete(leader.id));
  }

  /** The journal tells what became of a transfer, but not always. */
  #reportSnapshot({ from, to }: Message, failed: boolean): void {
    if (this.#random.chance(0.3)) return;
    this.#events.after(this.#random.between(1, 60), () => {
      this.#nodes.get(from)?.tell((raft) => (failed ? raft.snapshotFailed(to) : raft.snapshotSent(to)));
    });
  }

  #cutNetwork(): void {
    const random = this.#random;
    this.#cut.clear();
    const leader = this.#leaders()[0]?.id;
    const ids = random.shuffle([...this.#nodes.keys()]);
    // Somebody who does not hear the leader, though others do.
    if (leader !== undefined && random.chance(0.5)) ids.sort((a, b) => Number(b === leader) - Number(a === leader));
    const kind = random.pick(["none", "halves", "leader", "one-way", "pair", "pair", "pair"]);
    const size = kind === "halves" ? random.between(1, ids.length - 1) : 1;
    const group = kind === "leader" && leader !== undefined ? [leader] : ids.slice(0, size);
    if (kind === "pair") {
      for (const way of [`${ids[0]}>${ids[1]}`, `${ids[1]}>${ids[0]}`]) this.#cut.add(way);
    } else if (kind !== "none") {
      const ways = kind === "one-way" ? [random.pick([0, 1])] : [0, 1];
      for (const a of group) {
        for (const b of ids.filter((id) => !group.includes(id))) {
          for (const way of ways) this.#cut.add(way === 0 ? `${a}>${b}` : `${b}>${a}`);
        }
      }
    }
  }

  #crash(): void {
    const all = this.#random.chance(0.1);
    for (const node of all ? this.#nodes.values() : [this.#random.chance(0.4) ? this.#someLeader() : this.#any()]) {
      if (node.isUp) this.#crashOne(node);
    }
  }

  #crashOne(node: SimulatedNode): void {
    node.crash();
    this.#events.after(this.#random.between(1, this.#profile.downMs), () => {
      if (node.isUp) return;
      node.start();
      this.#isolateLeader(node.id);
    });
  }

  /** So fast that what is on its way finds it again. */
  #restart(id: NodeId): void {
    const node = this.#nodes.get(id);
    this.#events.after(0, () => node?.isUp === true && node.crash());
    this.#events.after(0.1, () => node?.isUp === false && node.start());
  }

  #pause(): void {
    const node = this.#random.chance(0.6) ? this.#someLeader() : this.#any();
    if (!node.isUp || node.isPaused) return;
    node.pause();
    this.#events.after(this.#random.between(5, this.#random.pick([100, 600, 2000])), () => node.thaw());
  }

  #change(): void {
    const random = this.#random;
    const node = this.#someLeader();
    if (!node.isUp) return;
    const ids = [...this.#nodes.keys()];
    const count = random.between(1, 3);
    const changes = random
      .shuffle(ids)
      .slice(0, count)
      .map((id): MembershipChange => {
        return { type: random.pick(["add-voter", "add-voter", "add-learner", "remove"] as const), id };
      });
    node.tell((raft, nowMs) => {
      if (raft.changeMembership(changes, nowMs).accepted) this.#counts.changes++;
    });
  }

  #transfer(): void {
    this.#someLeader().tell((raft, nowMs) => {
      const target = this.#random.pick(raft.status.configuration.voters.concat("m1"));
      if (raft.transfer(target, nowMs).accepted) this.#counts.transfers++;
    });
  }

  /** Ends all faults; then whatever is proposed must be decided everywhere, and reads be answered. */
  #heal(): void {
    this.#isHealed = true;
    this.#cut.clear();
    for (const node of this.#nodes.values()) {
      node.hang(0);
      if (!node.isUp) node.start();
      node.thaw();
    }
    this.#isolated.clear();
    // First nobody asks for anything: what was under way must come to its end by itself.
    this.#await("rest", () => this.#isAtRest(0));
    const target = this.#oracle.commitIndex + 1;
    const { leaseReads, quorumReads } = this.#counts;
    this.#await("a proposal and a read", () => {
      for (const leader of this.#leaders()) {
        if (this.#oracle.commitIndex < target) leader.propose(payloadOf(++this.#payloads, 8));
        leader.read();
      }
      return this.#counts.leaseReads + this.#counts.quorumReads > leaseReads + quorumReads && this.#isAtRest(target);
    });
  }

  #await(what: string, isDone: () => boolean): void {
    const untilMs = this.#events.nowMs + healTicksMax;
    while (this.#events.nowMs < untilMs) {
      if (isDone()) return;
      const stopMs = this.#events.nowMs + 100;
      while (this.#events.step(stopMs));
    }
    const members = [...this.#nodes.values()].map((node) => node.raft.describe());
    const peers = this.#leaders().flatMap((node) =>
      node.raft.status.peers.map(({ id, progress }) => `${id} ${progress}`),
    );
    throw new Violation(`liveness: no ${what} within ${healTicksMax} ticks\n${[...members, ...peers].join("\n")}`);
  }

  #isAtRest(target: number): boolean {
    const leaders = this.#leaders();
    const [leader] = leaders;
    if (leader === undefined || leaders.length > 1 || this.#oracle.commitIndex < target) return false;
    const { configuration, lastIndex, commitIndex, hasCommitted } = leader.raft.status;
    if (isJoint(configuration) || !hasCommitted || commitIndex < lastIndex) return false;
    return membersOf(configuration).every((id) => {
      const node = this.#nodes.get(id);
      return node !== undefined && node.appliedIndex === lastIndex && node.raft.leader === leader.id;
    });
  }
}
