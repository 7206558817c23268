/**
 * The election of the shared journal's primary by ZooKeeper (docs/shared-journal.md, docs/formats/zookeeper.md). It gives liveness only:
 * whom it names tries, and storage decides whose writes count.
 *
 * Each candidate watches the one before it, so the death of one is noticed by one. The list is read again, behind a `sync`, after every
 * event and every reconnection. A lost connection ends no candidacy; an expired session does, and a new one begins at once, under the
 * same mark. While ZooKeeper is away a leader stays one and nobody else becomes one.
 */

import { HeadpondError, isHeadpondError, toHeadpondError } from "../base/errors.ts";
import type { Logger } from "../io/logger.ts";
import type { Metrics } from "../io/metrics.ts";
import { parseAddress } from "../rpc/address.ts";
import type { SessionState } from "../zookeeper/session.ts";
import type { ZooKeeper } from "../zookeeper/zookeeper.ts";
import type { Candidate, Election, ElectionView } from "./election.ts";
import {
  type CandidateData,
  type CandidateNode,
  electionPaths,
  isNextInLine,
  type LeaderData,
  nodeBefore,
  type Ranking,
  rank,
} from "./election-nodes.ts";
import { ElectionRecords } from "./election-records.ts";
import { LeaderProbe } from "./leader-probe.ts";
import {
  defaultZooKeeperElectionLimits,
  type ZooKeeperElectionLimits,
  type ZooKeeperElectionOptions,
} from "./zookeeper-election-options.ts";

type Yield = { readonly id: string | undefined; readonly settle: (error?: HeadpondError) => void };

const roundsMax = 20;

export class ZooKeeperElection implements Election {
  readonly #options: ZooKeeperElectionOptions;
  readonly #limits: ZooKeeperElectionLimits;
  readonly #logger: Logger;
  readonly #listeners: ((view: ElectionView) => void)[] = [];
  readonly #closing = new AbortController();
  #view: ElectionView = { shouldLead: false, leaderId: undefined, candidates: [], absent: [], connected: false };
  #viewText = "";
  #loop: Promise<void> | undefined;
  #zookeeper: ZooKeeper | undefined;
  #records: ElectionRecords | undefined;
  #mark: string;
  #ranking: Ranking | undefined;
  /** The ranking is of this connection: what happened since would have been told. */
  #isFresh = false;
  /** The list is to be read again, at once or when its time has come. */
  #mustList = true;
  #listDueMs = 0;
  /** The leader seems gone, and the list says so or nothing. */
  #isHinted = false;
  #knownDueMs = 0;
  #known: readonly CandidateData[] = [];
  #problem: HeadpondError | undefined;
  /** That this master leads, as it said itself; storage let it claim this epoch. */
  #announced: number | undefined;
  #yield: Yield | undefined;
  #probe: { readonly mark: string; readonly rpc: string; readonly probe: LeaderProbe } | undefined;
  #shouldSinceMs: number | undefined;
  #patienceMs: number;
  #wake: () => void = () => {};
  #isDirty = false;
  #onLooked: () => void = () => {};
  #countHint: () => void = () => {};
  #countSession: () => void = () => {};

  constructor(options: ZooKeeperElectionOptions) {
    this.#options = options;
    this.#limits = { ...defaultZooKeeperElectionLimits, ...options.limits };
    this.#logger = options.logger.child({ part: "election" });
    this.#patienceMs = this.#limits.patienceMs;
    this.#mark = options.newMark();
    if (options.metrics !== undefined) this.#count(options.metrics);
  }

  get view(): ElectionView {
    return this.#view;
  }

  onChange(listener: (view: ElectionView) => void): void {
    this.#listeners.push(listener);
  }

  /** Rejects with `invalid` when it is known at once that another cluster's masters are there, and with `denied`. */
  async start(): Promise<void> {
    const looked = new Promise<void>((resolve) => (this.#onLooked = resolve));
    this.#loop = this.#run();
    await Promise.race([looked, this.#options.clock.sleep(this.#limits.startWaitMs, this.#closing.signal)]);
    if (this.#problem === undefined) return;
    const problem = this.#problem;
    await this.close();
    throw problem;
  }

  announce(epoch: number): void {
    this.#announced = epoch;
    this.#mustList = true;
    this.#patienceMs = this.#limits.patienceMs;
    this.#stir();
  }

  async yieldTo(id: string | undefined, signal?: AbortSignal): Promise<void> {
    if (id !== undefined) {
      if (!this.#view.connected) {
        throw new HeadpondError("unavailable", `ZooKeeper does not answer: ${id} cannot be made the next leader now`, {
          retryable: false,
        });
      }
      const target = this.#ranking?.order.find((node) => node.id === id);
      if (target === undefined) throw new HeadpondError("not-found", `${id} does not take part in the election now`);
      if (target.mark === this.#mark) return;
    }
    this.#yield?.settle();
    const { clock } = this.#options;
    const waiting = new AbortController();
    const done = new Promise<void>((resolve, reject) => {
      this.#yield = { id, settle: (error) => (error === undefined ? resolve() : reject(error)) };
    });
    this.#announced = undefined;
    this.#publish();
    this.#stir();
    const stop = AbortSignal.any([waiting.signal, this.#closing.signal, ...(signal === undefined ? [] : [signal])]);
    const late = clock.sleep(id === undefined ? this.#limits.yieldWaitMs : Number(2 ** 31 - 1), stop);
    try {
      await Promise.race([done, late]);
    } finally {
      waiting.abort(new Error("answered"));
      late.catch(() => {});
      done.catch(() => {});
    }
  }

  async forget(id: string): Promise<void> {
    const records = this.#records;
    if (records === undefined || !this.#view.connected) {
      throw new HeadpondError("unavailable", `ZooKeeper does not answer: ${id} cannot be taken out now`);
    }
    if (this.#view.candidates.some((candidate) => candidate.id === id)) {
      throw new HeadpondError("invalid", `${id} takes part: stop it first`);
    }
    if (!this.#known.some((candidate) => candidate.id === id)) {
      throw new HeadpondError("not-found", `${id} is no master of this cluster`);
    }
    await records.forget(id);
    this.#known = this.#known.filter((candidate) => candidate.id !== id);
    this.#publish();
  }

  async close(): Promise<void> {
    this.#closing.abort(new Error("the election was closed"));
    this.#announced = undefined;
    this.#yield?.settle();
    this.#probe?.probe.close();
    this.#wake();
    // Its node goes with the session, at once.
    await this.#zookeeper?.close();
    await this.#loop;
  }

  async #run(): Promise<void> {
    const { connect, clock } = this.#options;
    const { signal } = this.#closing;
    while (!signal.aborted) {
      const zookeeper = connect();
      this.#countSession();
      this.#zookeeper = zookeeper;
      const { root, acl } = this.#options;
      const records = new ElectionRecords({
        zookeeper,
        acl,
        paths: electionPaths(root),
        onStale: (what) => this.#stale(what),
      });
      this.#records = records;
      this.#mustList = true;
      const forgetState = zookeeper.onState(() => {
        // What was read is as old as the connection that it came by.
        this.#mustList = true;
        this.#isFresh = false;
        this.#publish();
        this.#stir();
      });
      await this.#takePart(zookeeper, records);
      forgetState();
      await zookeeper.close();
      this.#records = undefined;
      this.#isFresh = false;
      this.#publish();
      if (zookeeper.state !== "auth-failed" || signal.aborted) continue;
      this.#problem = new HeadpondError("denied", "ZooKeeper does not accept who this master says it is");
      this.#looked();
      this.#publish();
      await clock.sleep(this.#limits.problemRetryMs, signal).catch(() => {});
    }
  }

  /** As long as the session lasts. */
  async #takePart(zookeeper: ZooKeeper, records: ElectionRecords): Promise<void> {
    const { clusterId } = this.#options;
    const { problemRetryMs, retryMs } = this.#limits;
    let isPrepared = false;
    while (!this.#closing.signal.aborted && !isOver(zookeeper.state)) {
      this.#isDirty = false;
      let waitMs = this.#limits.lookEveryMs;
      if (zookeeper.state === "connected") {
        try {
          if (!isPrepared) await records.prepare(clusterId);
          isPrepared = true;
          await this.#round(records);
          this.#looked();
          waitMs = Math.max(1, this.#listDueMs - this.#options.clock.monotonicMs());
        } catch (error) {
          waitMs = this.#failed(toHeadpondError(error), zookeeper) ? problemRetryMs : retryMs;
        }
      }
      await this.#stirred(waitMs);
    }
  }

  /** Whether it is more than a request that was lost. */
  #failed(error: HeadpondError, zookeeper: ZooKeeper): boolean {
    this.#mustList = true;
    const isProblem = !error.retryable && !isOver(zookeeper.state);
    if (isProblem) {
      this.#isFresh = false;
      this.#logger.error("this master cannot take part in the election", { error });
      this.#problem = error;
      this.#looked();
    } else {
      this.#logger.debug("the election could not be looked at", { error });
    }
    this.#publish();
    return isProblem;
  }

  /** Brings what ZooKeeper says of this master up to date, reads what it says of the others, and follows what is to be followed from it. */
  async #round(records: ElectionRecords): Promise<void> {
    const { clock } = this.#options;
    for (let rounds = 0; rounds < roundsMax; rounds++) {
      if (this.#yield !== undefined) await this.#stepBack(records, this.#yield);
      await records.enter(this.#mark, this.#candidateData());
      const isListed = this.#mustList || clock.monotonicMs() >= this.#listDueMs;
      if (isListed) {
        this.#mustList = false;
        // Who leads knows all at once; the others in time.
        await records.list(this.#announced !== undefined);
        this.#listWithin(this.#limits.lookEveryMs, true);
      }
      const { nodes } = records;
      const own = nodes.find(({ name }) => name === records.own);
      if (own === undefined) {
        // It was made after the list; or somebody has removed it, who wants this master behind the others.
        if (isListed && records.own === undefined) this.#mark = this.#options.newMark();
        this.#mustList = true;
        continue;
      }
      if (!(await this.#clear(records, nodes, own))) continue;
      const leader = await records.leader();
      if (await this.#tell(records, leader)) continue;
      const ranking = rank(records.nodes, leader);
      const before = nodeBefore(ranking.order, this.#mark);
      if (before !== undefined && !(await records.watch(before.name))) {
        this.#mustList = true;
        continue;
      }
      const isHinted = this.#probe?.probe.isGone === true && isNextInLine(ranking, this.#mark);
      const isNews = (isHinted || before === undefined) && !this.#view.shouldLead;
      // Nobody tries to lead by what may be old.
      if (isNews && !isListed) {
        this.#mustList = true;
        continue;
      }
      await this.#lookForKnown(records);
      this.#ranking = ranking;
      this.#isFresh = true;
      this.#isHinted = isHinted;
      this.#problem = undefined;
      this.#watchLeader(ranking);
      this.#publish();
      this.#loseOrKeepPatience(ranking);
      if (this.#yield === undefined) return;
    }
    throw new HeadpondError("unavailable", `ZooKeeper: the masters came and went for ${roundsMax} rounds`);
  }

  #stale(what: "list" | "leader"): void {
    if (what === "list") this.#mustList = true;
    // The old leader may be gone; all hear of it at the same time, and need not ask at the same time.
    else this.#listWithin(this.#limits.lookEveryMs / 2);
    this.#stir();
  }

  /** Not later than it was due before, unless it has just been read. */
  #listWithin(durationMs: number, isRead = false): void {
    const { clock, random } = this.#options;
    const dueMs = clock.monotonicMs() + durationMs * (0.5 + random.float() / 2);
    this.#listDueMs = isRead ? dueMs : Math.min(dueMs, this.#listDueMs);
  }

  async #lookForKnown(records: ElectionRecords): Promise<void> {
    const nowMs = this.#options.clock.monotonicMs();
    if (nowMs < this.#knownDueMs) return;
    this.#known = await records.known();
    this.#knownDueMs = nowMs + this.#limits.lookEveryMs;
  }

  /** Removes nodes of this master that are of an earlier session or process. False: the own one says what is not so any more. */
  async #clear(records: ElectionRecords, nodes: readonly CandidateNode[], own: CandidateNode): Promise<boolean> {
    const { id, rpc, http, featureLevel, incarnation } = this.#candidateData();
    for (const node of nodes) {
      if (node.name === own.name) continue;
      if (node.incarnation === incarnation) await records.removeNode(node.name);
      else if (node.id === id) this.#logger.warn("another master has the same id", { id, rpc: node.rpc });
    }
    const isSame = own.id === id && own.rpc === rpc && own.http === http && own.featureLevel === featureLevel;
    if (isSame) return true;
    records.renew();
    this.#mustList = true;
    return false;
  }

  /** Says that this master leads, if it does and that is not written there. True: look again. */
  async #tell(records: ElectionRecords, leader: LeaderData | undefined): Promise<boolean> {
    const epoch = this.#announced;
    if (epoch === undefined || (leader?.epoch === epoch && leader.mark === this.#mark)) return false;
    if (leader !== undefined && leader.epoch > epoch) {
      this.#logger.info("another master has claimed a later epoch", { id: leader.id, epoch: leader.epoch });
      this.#announced = undefined;
      return false;
    }
    const { id } = this.#candidateData();
    await records.setLeader({ id, mark: this.#mark, epoch, successor: undefined });
    this.#isHinted = false;
    return true;
  }

  async #stepBack(records: ElectionRecords, wish: Yield): Promise<void> {
    const { id } = wish;
    const nodes = id === undefined ? [] : await records.list(false);
    const leader = id === undefined ? undefined : await records.leader();
    const target = nodes.find((node) => node.id === id);
    if (id !== undefined && target === undefined) {
      this.#settleYield(wish, new HeadpondError("not-found", `${id} does not take part in the election now`));
      return;
    }
    this.#mark = this.#options.newMark();
    this.#mustList = true;
    const self = this.#candidateData();
    const before = leader ?? { id: self.id, mark: "", epoch: 0 };
    const data = target === undefined ? undefined : { ...before, successor: target.mark };
    try {
      await records.stepBack(this.#mark, self, data);
      this.#settleYield(wish);
    } catch (error) {
      // Without a name it is meant until it is done; with one, whoever asked for it has to ask again.
      if (id !== undefined) this.#settleYield(wish, toHeadpondError(error));
      else if (isHeadpondError(error, "not-found")) return;
      throw error;
    }
  }

  #settleYield(wish: Yield, error?: HeadpondError): void {
    if (this.#yield === wish) this.#yield = undefined;
    wish.settle(error);
  }

  /** The next in line looks whether the leader still answers. */
  #watchLeader(ranking: Ranking): void {
    const { network, clock, logger, software, clusterId } = this.#options;
    const { leader } = ranking;
    const wanted = isNextInLine(ranking, this.#mark) && leader !== undefined && leader.rpc !== "" ? leader : undefined;
    const current = this.#probe;
    if (current?.mark === wanted?.mark && current?.rpc === wanted?.rpc) return;
    current?.probe.close();
    this.#probe = undefined;
    if (wanted === undefined) return;
    const { mark, rpc } = wanted;
    const probe = new LeaderProbe({
      network,
      clock,
      logger: this.#logger ?? logger,
      address: parseAddress(rpc),
      self: { software, role: "master", name: this.#candidateData().id, clusterId },
      limits: this.#limits.probe,
      onHint: (isGone) => {
        if (isGone) this.#countHint();
        else this.#isHinted = false;
        // Followed only after another look, withdrawn at once.
        this.#mustList = true;
        this.#publish();
        this.#stir();
      },
    });
    this.#probe = { mark, rpc, probe };
  }

  /** Who should lead, and does not get to it, must not keep the others from trying. */
  #loseOrKeepPatience({ order }: Ranking): void {
    const nowMs = this.#options.clock.monotonicMs();
    const isAlone = order.every(({ mark }) => mark === this.#mark);
    if (isAlone || this.#announced !== undefined || order[0]?.mark !== this.#mark) {
      this.#shouldSinceMs = undefined;
      return;
    }
    this.#shouldSinceMs ??= nowMs;
    if (nowMs - this.#shouldSinceMs < this.#patienceMs) return;
    this.#logger.warn("this master should lead and does not get to it: the others may try", {
      afterMs: this.#patienceMs,
    });
    this.#shouldSinceMs = undefined;
    this.#patienceMs = Math.min(this.#limits.patienceMsMax, this.#patienceMs * 2);
    this.#yield = { id: undefined, settle: () => {} };
  }

  #publish(): void {
    const connected = this.#zookeeper?.state === "connected" && this.#isFresh;
    const order = this.#ranking?.order ?? [];
    const shouldLead = this.#shouldLead(connected);
    const newest = new Map<string, CandidateNode>();
    for (const node of order) if ((newest.get(node.id)?.number ?? -1) < node.number) newest.set(node.id, node);
    const candidates = [...newest.values()].map(asCandidate);
    const absent = this.#known.filter(({ id }) => !newest.has(id)).map(asCandidate);
    const leaderId = shouldLead ? this.#candidateData().id : order[0]?.id;
    this.#view = { shouldLead, leaderId, candidates, absent, connected, problem: this.#problem?.message };
    const text = JSON.stringify(this.#view);
    if (text === this.#viewText) return;
    this.#viewText = text;
    for (const listener of this.#listeners) listener(this.#view);
  }

  #shouldLead(connected: boolean): boolean {
    if (this.#closing.signal.aborted || this.#yield !== undefined) return false;
    if (this.#announced !== undefined) return true;
    const ranking = this.#ranking;
    if (!connected || ranking === undefined) return false;
    if (ranking.order[0]?.mark === this.#mark) return true;
    return this.#isHinted;
  }

  #candidateData(): CandidateData {
    const { candidate, incarnation } = this.#options;
    return { ...candidate(), incarnation };
  }

  #looked(): void {
    this.#onLooked();
  }

  /** There is something to do. */
  #stir(): void {
    this.#isDirty = true;
    this.#wake();
  }

  async #stirred(timeoutMs: number): Promise<void> {
    if (this.#isDirty || this.#closing.signal.aborted) return;
    await new Promise<void>((resolve) => {
      const timer = this.#options.clock.timer(timeoutMs, resolve);
      this.#wake = () => {
        timer.clear();
        resolve();
      };
    });
    this.#wake = () => {};
  }

  #count(metrics: Metrics): void {
    const isConnected = (): number => (this.#view.connected ? 1 : 0);
    metrics.gauge("headpond_election_connected", "1 while ZooKeeper answers.", isConnected);
    metrics.gauge("headpond_election_candidates", "Masters that take part.", () => this.#view.candidates.length);
    const countHint = metrics.counter(
      "headpond_election_hints_total",
      "Times the leader seemed gone to the next in line.",
    );
    const countSession = metrics.counter(
      "headpond_election_sessions_total",
      "Sessions with ZooKeeper that were begun.",
    );
    this.#countHint = () => countHint();
    this.#countSession = () => countSession();
  }
}

function asCandidate({ id, rpc, http, featureLevel }: CandidateData): Candidate {
  return { id, rpc, http, featureLevel };
}

function isOver(state: SessionState): boolean {
  return state !== "connecting" && state !== "connected";
}
