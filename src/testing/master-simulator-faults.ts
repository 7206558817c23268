/**
 * What goes wrong in a simulated cluster of masters, when, and the operator who puts it right: starts what ended, and replaces members
 * whose disks were lost by new ones. No more is broken at once than the product promises to survive: of the voters that
 * count, a majority keeps its disks.
 */

import type { HeadpondError } from "../base/errors.ts";
import type { Random } from "../base/random.ts";
import type { MemberChange } from "../journal/journal.ts";
import type { SimulatedClient } from "./master-simulator-client.ts";
import { asOurs, type Machine, type SharedStorage } from "./master-simulator-machine.ts";
import type { MasterOracle } from "./master-simulator-oracle.ts";
import type { Profile } from "./master-simulator-profile.ts";
import type { SimNetwork } from "./sim-network.ts";
import { StoreTroubles } from "./sim-shared-store.ts";
import type { SimWorld } from "./sim-world.ts";

const unlimitedBytes = 2 ** 50;
const operatorMs = 200;
const patienceMs = 4000;

export type MasterFaultsOptions = {
  readonly world: SimWorld;
  readonly network: SimNetwork;
  readonly oracle: MasterOracle;
  readonly machines: readonly Machine[];
  readonly clients: SimulatedClient[];
  readonly profile: Profile;
  readonly newClient: () => void;
  /** As the configuration files of the masters have them for ever. */
  readonly founders: () => Readonly<Record<string, string>>;
  readonly shared: SharedStorage | undefined;
};

export class MasterFaults {
  readonly #options: MasterFaultsOptions;
  readonly #random: Random;
  readonly counts = {
    ends: 0,
    kills: 0,
    stops: 0,
    powerLosses: 0,
    pauses: 0,
    hangs: 0,
    wipes: 0,
    rots: 0,
    cuts: 0,
    resets: 0,
    changes: 0,
    transfers: 0,
    checkpoints: 0,
    elections: 0,
    installs: 0,
    rebuilds: 0,
    outages: 0,
    misled: 0,
  };
  #isHealed = false;
  #ids = 100;
  #isChanging = false;
  /** Members that are to go: their disks are lost. */
  readonly #lost = new Set<string>();
  /** Who is to be a voter in the end, whatever happens meanwhile. */
  #voters: number;

  constructor(options: MasterFaultsOptions) {
    this.#options = options;
    this.#random = options.world.random;
    this.#voters = options.profile.size;
  }

  begin(): void {
    const { profile: p, world, oracle, machines, clients, newClient, network } = this.#options;
    const random = this.#random;
    const often = (meanMs: number, run: () => void): void => world.often(meanMs, () => !this.#isHealed, run);
    often(p.cutMs, () => this.#cut());
    often(p.resetMs, () => {
      this.counts.resets += network.reset(0.3);
    });
    often(p.killMs, () => this.#kill(this.#any(0.5)));
    often(p.stopMs, () => {
      const machine = this.#any(0.5);
      this.counts.stops++;
      machine.stop(() => this.#startLater(machine));
    });
    often(p.powerMs, () => this.#losePower(random.chance(p.powerOfAll) ? [...machines] : [this.#any(0.4)]));
    often(p.pauseMs, () => this.#pause());
    often(p.hangMs, () => this.#hang());
    often(p.flushFailsMs, () => {
      this.#any(0.4).troubles.failsNextFlush = true;
    });
    often(p.fullMs, () => this.#fill());
    often(p.wipeMs, () => this.#wipe());
    if (this.#options.shared === undefined) {
      often(p.rotMs, () => this.#rot());
      often(p.changeMs, () => this.#change());
    } else this.#troubleStorage(this.#options.shared, often);
    often(p.transferMs, () => this.#transfer());
    often(p.checkpointMs, () => {
      this.counts.checkpoints++;
      this.#any(0.3)
        .journal?.checkpoint()
        .catch(() => {});
    });
    often(p.wallJumpMs, () => this.#any(0.5).life?.process.clock.jumpWall(random.between(-3_600_000, 3_600_000)));
    often(p.clientDeathMs, () => {
      const client = random.pick(clients);
      if (random.chance(0.5)) {
        client.process.pause();
        world.events.after(random.between(10, 3000), () => client.process.thaw());
        return;
      }
      client.process.kill();
      client.active = 0;
      newClient();
    });
    const operate = (): void => {
      this.#operate();
      oracle.checkPromptness(machines);
      world.events.after(operatorMs, operate);
    };
    world.events.after(operatorMs, operate);
  }

  /** Storage is away for all or for one; the election is away, or misleads. */
  #troubleStorage({ troubles, elections }: SharedStorage, often: (meanMs: number, run: () => void) => void): void {
    const { world, machines } = this.#options;
    const random = this.#random;
    often(random.pick([800, 3000]), () => {
      const away = random.pick([troubles, this.#any(0.7).storeTroubles]);
      const durationMs = random.between(20, random.pick([200, 1500, 3000]));
      this.counts.outages++;
      world.note(`storage is away for ${durationMs}`);
      away.downUntilMs = world.nowMs + durationMs;
      for (const machine of machines) machine.lastTroubleMs = Math.max(machine.lastTroubleMs, away.downUntilMs);
    });
    often(random.pick([400, 2000]), () => {
      this.counts.misled++;
      elections.mislead();
    });
    often(random.pick([2000, 8000]), () => {
      elections.downUntilMs = world.nowMs + random.between(100, 2000);
    });
  }

  heal(): void {
    const { machines, clients, network, shared } = this.#options;
    this.#isHealed = true;
    for (const troubles of [shared?.troubles, ...machines.map(({ storeTroubles }) => storeTroubles)]) {
      if (troubles !== undefined) Object.assign(troubles, new StoreTroubles());
    }
    if (shared !== undefined) shared.elections.downUntilMs = 0;
    Object.assign(network.troubles, { delayMs: 1, stall: 0 });
    network.troubles.cuts.clear();
    for (const machine of machines) {
      Object.assign(machine.troubles, { flushMs: 1, hungUntilMs: 0, failsNextFlush: false });
      machine.disk.capacityBytes = unlimitedBytes;
      machine.life?.process.thaw();
      machine.regainPower();
      machine.start();
    }
    for (const client of clients) client.process.thaw();
    network.wake();
  }

  /** Nothing is left to be done by the operator. */
  isSettled(leader: Machine): boolean {
    const members = leader.journal?.cluster.members() ?? [];
    return !this.#isChanging && this.#lost.size === 0 && members.every(({ voter }) => voter);
  }

  /** A master's process ended by itself. */
  ended(machine: Machine, reason: HeadpondError): void {
    const { world, oracle } = this.#options;
    this.counts.ends++;
    world.note(`${machine.id} ended: ${reason.code} ${reason.message}`);
    if (machine.isSpoilt && reason.code === "corrupt") {
      this.#replace(machine);
      return;
    }
    const hasExcuse = /EIO|ENOSPC/.test(reason.message) || reason.code === "no-space";
    if (!hasExcuse) {
      oracle.fail(`${machine.id} ended without a reason from outside: ${reason.stack ?? reason.message}`);
      return;
    }
    // What the failed flush was to make durable may or may not be on the disk.
    void machine.losePower().then(() => this.#startLater(machine));
  }

  #any(leaderProbability: number): Machine {
    const { machines } = this.#options;
    const leaders = machines.filter(({ journal }) => journal?.role === "leader");
    return this.#random.pick(leaders.length > 0 && this.#random.chance(leaderProbability) ? leaders : machines);
  }

  #leader(): Machine | undefined {
    const leaders = this.#options.machines.filter(({ journal }) => journal?.role === "leader");
    return leaders.length === 0 ? undefined : this.#random.pick(leaders);
  }

  #startLater(machine: Machine): void {
    const { world, profile } = this.#options;
    world.events.after(this.#random.between(1, profile.downMs), () => {
      machine.regainPower();
      machine.start();
    });
  }

  #kill(machine: Machine): void {
    if (!machine.isUp) return;
    this.counts.kills++;
    this.#options.world.note(`${machine.life?.process.name} is killed`);
    machine.kill();
    this.#startLater(machine);
  }

  #losePower(machines: readonly Machine[]): void {
    for (const machine of machines) {
      if (!machine.isUp) continue;
      this.counts.powerLosses++;
      this.#options.world.note(`${machine.life?.process.name} loses power`);
      void machine.losePower().then(() => this.#startLater(machine));
    }
  }

  #pause(): void {
    const { world } = this.#options;
    const machine = this.#any(0.6);
    const { life } = machine;
    if (life === undefined || life.process.isPaused) return;
    this.counts.pauses++;
    const durationMs = this.#random.between(5, this.#random.pick([100, 600, 2000]));
    world.note(`${life.process.name} is paused for ${durationMs}`);
    life.process.pause();
    machine.lastTroubleMs = world.nowMs + durationMs;
    world.events.after(durationMs, () => life.process.thaw());
  }

  #hang(): void {
    const { world } = this.#options;
    const machine = this.#any(0.6);
    const durationMs = this.#random.between(50, 1500);
    this.counts.hangs++;
    world.note(`the disk of ${machine.id} hangs for ${durationMs}`);
    machine.troubles.hungUntilMs = world.nowMs + durationMs;
    machine.lastTroubleMs = world.nowMs + durationMs;
  }

  #fill(): void {
    const { world } = this.#options;
    const machine = this.#any(0.5);
    const durationMs = this.#random.between(100, 3000);
    world.note(`the disk of ${machine.id} is full for ${durationMs}`);
    machine.disk.capacityBytes = machine.disk.usedBytes + this.#random.between(0, 20_000);
    machine.lastTroubleMs = world.nowMs + durationMs;
    world.events.after(durationMs, () => {
      machine.disk.capacityBytes = unlimitedBytes;
    });
  }

  #cut(): void {
    const { network, machines, clients, world } = this.#options;
    const random = this.#random;
    const { cuts } = network.troubles;
    cuts.clear();
    const hosts = random.shuffle(machines.filter(({ isUp }) => isUp).map(({ host }) => host));
    const leader = this.#leader()?.host;
    if (leader !== undefined && random.chance(0.5)) hosts.sort((a, b) => Number(b === leader) - Number(a === leader));
    const kind = random.pick(["none", "halves", "leader", "one-way", "pair", "bridge", "clients"] as const);
    const way = (from: string, to: string): void => void cuts.add(`${from}>${to}`);
    const both = (a: string, b: string): void => {
      way(a, b);
      way(b, a);
    };
    const [first = "", second = ""] = hosts;
    if (kind === "pair") both(first, second);
    // Two halves that only one member joins.
    if (kind === "bridge") {
      const half = Math.ceil((hosts.length - 1) / 2);
      for (const a of hosts.slice(1, 1 + half)) for (const b of hosts.slice(1 + half)) both(a, b);
    }
    if (kind === "halves" || kind === "leader" || kind === "one-way") {
      const count = kind === "halves" ? random.between(1, Math.max(1, hosts.length - 1)) : 1;
      const outwards = random.chance(0.5);
      for (const a of hosts.slice(0, count)) {
        for (const b of hosts.slice(count)) {
          if (kind !== "one-way") both(a, b);
          else if (outwards) way(a, b);
          else way(b, a);
        }
      }
    }
    if (kind === "clients") {
      for (const { process } of clients)
        if (random.chance(0.5)) both(process.name, random.chance(0.5) ? first : second);
    }
    this.counts.cuts++;
    world.note(`cut: ${kind} ${hosts.join(" ")}`);
    network.wake();
  }

  /** Whether the cluster survives the loss of one more disk: those that are lost or damaged already are counted. */
  #mayLose(machine: Machine): boolean {
    const members = this.#leader()?.journal?.cluster.members();
    if (members === undefined || this.#isChanging || !machine.isUp || machine.isSpoilt) return false;
    const isBad = (id: string): boolean =>
      id === machine.id || this.#lost.has(id) || this.#options.machines.some((one) => one.id === id && one.isSpoilt);
    const voters = members.filter(({ voter }) => voter);
    return voters.filter(({ id }) => isBad(id)).length <= (voters.length - 1) / 2;
  }

  /** A disk is lost for good: a new master comes in its place. */
  #wipe(): void {
    const machine = this.#any(0.3);
    if (this.#options.shared !== undefined) {
      this.#wipeCopy(machine);
      return;
    }
    if (!this.#mayLose(machine)) return;
    this.counts.wipes++;
    this.#replace(machine);
  }

  /** What is on the own disk is a copy of what is in the store: the master comes back under its name. */
  #wipeCopy(machine: Machine): void {
    const { world, oracle } = this.#options;
    if (!machine.isUp) return;
    this.counts.wipes++;
    world.note(`the disk of ${machine.id} is lost`);
    void machine
      .losePower()
      .then(() => machine.wipe(machine.id))
      .then(() => machine.format(undefined))
      .then(() => {
        oracle.wiped(machine);
        this.#startLater(machine);
      });
  }

  #replace(machine: Machine): void {
    const { world, oracle } = this.#options;
    const before = machine.id;
    const isMistaken = this.#random.chance(this.#options.profile.comesBackUnderItsName);
    const comesBackAs = isMistaken ? before : `m${++this.#ids}`;
    world.note(`the disk of ${before} is lost, ${comesBackAs} comes in its place`);
    this.#lost.add(before);
    machine.isSpoilt = isMistaken;
    void machine
      .losePower()
      .then(() => machine.wipe(comesBackAs))
      .then(() => machine.format(isMistaken ? this.#options.founders() : undefined))
      .then(() => {
        oracle.wiped(machine);
        this.#startLater(machine);
      });
    // The operator notices, and does what the masters tell him.
    if (isMistaken) world.events.after(this.#random.between(500, 3000), () => this.#giveNewName(machine));
  }

  #giveNewName(machine: Machine): void {
    const { oracle, world } = this.#options;
    this.#lost.add(machine.id);
    const comesBackAs = `m${++this.#ids}`;
    world.note(`${machine.id} is ${comesBackAs} from now on`);
    machine.isSpoilt = false;
    void machine
      .losePower()
      .then(() => machine.wipe(comesBackAs))
      .then(() => machine.format(undefined))
      .then(() => {
        oracle.wiped(machine);
        this.#startLater(machine);
      });
  }

  /** A bit changes on a disk, in what was durable long ago: whoever reads it must notice. */
  #rot(): void {
    const machine = this.#any(0.3);
    if (!this.#mayLose(machine)) return;
    this.#kill(machine);
    void machine.rot(this.#random).then((where) => {
      if (where === undefined) return;
      this.counts.rots++;
      machine.isSpoilt = true;
      this.#options.world.note(`a bit of ${machine.id} rots in ${where}`);
    });
  }

  /** The operator adds, removes or demotes somebody for no reason. */
  #change(): void {
    const random = this.#random;
    const { machines, profile } = this.#options;
    const leader = this.#leader();
    if (leader?.journal === undefined || this.#isChanging) return;
    const members = leader.journal.cluster.members();
    const outside = machines.filter(
      ({ id, isUp, isSpoilt }) => isUp && !isSpoilt && !members.some((member) => member.id === id),
    );
    if (random.chance(0.5) && outside.length > 0 && members.length < profile.size + 2) {
      const { id, peerAddress: address } = random.pick(outside);
      this.#ask(leader, { kind: "add", id, address });
    } else if (members.filter(({ voter }) => voter).length > Math.max(2, this.#voters - 1)) {
      const id = random.pick(members).id;
      this.#ask(leader, { kind: "remove", id });
    }
  }

  #ask(leader: Machine, change: MemberChange): void {
    const { world } = this.#options;
    const { journal, life } = leader;
    if (journal === undefined || life === undefined) return;
    this.#isChanging = true;
    this.counts.changes++;
    world.note(`${leader.id} is asked to ${change.kind} ${change.id}`);
    const patience = new AbortController();
    world.events.after(patienceMs, () => patience.abort(new Error("the operator lost patience")));
    let isOver = false;
    const end = (text: string): void => {
      if (isOver) return;
      isOver = true;
      this.#isChanging = false;
      world.note(`${change.kind} ${change.id}: ${text}`);
    };
    // A master that dies answers nobody.
    life.process.onDeath(() => world.events.after(1, () => end("it died")));
    world.events.after(patienceMs + 500, () => end("no answer"));
    journal.cluster.changeMembers(change, patience.signal).then(
      () => end("done"),
      (error: unknown) => {
        const { code, message } = asOurs(error);
        end(`${code} ${message}`);
      },
    );
  }

  #transfer(): void {
    const leader = this.#leader();
    if (leader?.journal === undefined) return;
    const members = leader.journal.cluster.members();
    const target = this.#random.chance(0.5) ? undefined : this.#random.pick(members).id;
    this.counts.transfers++;
    this.#options.world.note(`${leader.id} is asked to hand over to ${target ?? "anybody"}`);
    leader.journal.cluster.transferLeadership(target).catch(() => {});
  }

  /** Puts right what can be: lost members go, machines that are no members join, learners become voters. */
  #operate(): void {
    const { machines, profile } = this.#options;
    const leader = this.#leader();
    if (leader?.journal === undefined || this.#isChanging || this.#options.shared !== undefined) return;
    const members = leader.journal.cluster.members();
    for (const id of this.#lost) if (!members.some((member) => member.id === id)) this.#lost.delete(id);
    const gone = members.find(({ id }) => this.#lost.has(id));
    if (gone !== undefined) {
      this.#ask(leader, { kind: "remove", id: gone.id });
      return;
    }
    const learner = members.find(({ voter }) => !voter);
    if (learner !== undefined) {
      this.#ask(leader, { kind: "promote", id: learner.id });
      return;
    }
    if (members.length >= profile.size) return;
    const fresh = machines.find(
      ({ id, isUp, isSpoilt }) => isUp && !isSpoilt && !members.some((member) => member.id === id),
    );
    if (fresh !== undefined) this.#ask(leader, { kind: "add", id: fresh.id, address: fresh.peerAddress });
  }
}
