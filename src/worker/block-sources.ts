/** The sources of a block, one attempt each: a peer, somebody who holds it, the under store. What a failure means is decided by who asked. */

import { HeadpondError, isHeadpondError } from "../base/errors.ts";
import type { MountId, WorkerId } from "../base/ids.ts";
import type { Logger } from "../io/logger.ts";
import { equalBytes } from "./cached-file.ts";
import type { Fill } from "./fill.ts";
import type { FillBuffers } from "./fill-buffers.ts";
import type { Members } from "./members.ts";
import { changedContent, type OriginDependencies, readOrigin } from "./origin-source.ts";
import type { PeerClient } from "./peer-client.ts";
import { Reception } from "./reception.ts";
import { Slots } from "./slots.ts";

export type SourceLimits = {
  /** Blocks read from one under store at once. */
  readonly originReadsMax: number;
  /** Blocks taken from peers at once. */
  readonly peerReadsMax: number;
  /** Blocks on their way to the disk past the page cache at once; while the disk has so many, others go through the page cache. */
  readonly directWritesMax: number;
};

export type SourceEvents = {
  readonly onOriginBlock: (fill: Fill) => void;
  readonly onPeerBlock: (fill: Fill, worker: WorkerId) => void;
  /** A peer's bytes did not match its checksum. */
  readonly onLie: (fill: Fill, worker: WorkerId) => void;
};

export type SourceDependencies = {
  readonly logger: Logger;
  readonly members: Members;
  readonly buffers: FillBuffers;
  readonly peers: PeerClient;
  readonly origin: OriginDependencies;
  readonly limits: SourceLimits;
  /** Checked blocks that are written outside of the slot they were read in, so that the next one can be read meanwhile. */
  readonly writesBesideMax: number;
  readonly events: SourceEvents;
};

export type PeerQuestion = {
  readonly worker: WorkerId;
  /** Better owners that could not be asked. */
  readonly skipped: readonly WorkerId[];
  readonly heldOnly: boolean;
  /** Whose claim the block is. Then room is made only when bytes come: the peer may wait for its own neighbour. */
  readonly claimant?: WorkerId;
  /** Ends this attempt. */
  readonly signal?: AbortSignal;
};

export class BlockSources {
  readonly #deps: SourceDependencies;
  readonly #signal: AbortSignal;
  /** By mount: an under store that hangs keeps its own slots only. */
  readonly #originSlots = new Map<MountId, Slots>();
  readonly #peerSlots: Slots;
  #directWrites = 0;
  #writesBeside = 0;

  /** `signal`: ends everything. */
  constructor(dependencies: SourceDependencies, signal: AbortSignal) {
    this.#deps = dependencies;
    this.#signal = signal;
    this.#peerSlots = new Slots({ name: "peer reads", limit: dependencies.limits.peerReadsMax });
  }

  /** Runs `receive` with what the fill takes up, and gives it back in the end. */
  async with(fill: Fill, receive: (reception: Reception) => Promise<void>): Promise<void> {
    const reception = new Reception(
      fill,
      {
        buffers: this.#deps.buffers,
        commit: (stored, buffer, checksum) => this.#commit(stored, buffer, checksum),
        writeBeside: () => this.#writeBeside(),
      },
      this.#signal,
    );
    try {
      await receive(reception);
    } finally {
      reception.giveUp();
    }
  }

  /** Takes the block, or what is missing of it, from a peer. */
  async fromPeer(reception: Reception, question: PeerQuestion): Promise<void> {
    const { members, events } = this.#deps;
    const { fill } = reception;
    const { worker } = question;
    const address = members.address(worker);
    if (address === undefined) throw new HeadpondError("unavailable", `worker ${worker} is not in the list`);
    const isClaimed = question.claimant !== undefined;
    const makeRoom = async (): Promise<void> => {
      fill.awaitsRoom = true;
      try {
        await reception.takeSlot(this.#peerSlots);
        await reception.takeBuffer();
      } finally {
        fill.awaitsRoom = false;
      }
    };
    if (!isClaimed) await makeRoom();
    askAgainForTheLastByte(fill);
    const checksum = await this.#ask(fill, address, question, isClaimed ? makeRoom : undefined);
    await reception.store(checksum);
    events.onPeerBlock(fill, worker);
  }

  /** `signal`: ends this attempt; what has come stays. */
  async fromOrigin(reception: Reception, signal?: AbortSignal): Promise<void> {
    const { fill } = reception;
    await reception.takeSlot(this.#originSlotsOf(fill));
    await reception.takeBuffer();
    if (fill.file.isStale) throw changedContent(fill);
    askAgainForTheLastByte(fill);
    const both = signal === undefined ? this.#signal : AbortSignal.any([this.#signal, signal]);
    await readOrigin(fill, this.#deps.origin, both);
    await reception.store(fill.digest());
    this.#deps.events.onOriginBlock(fill);
  }

  async #ask(
    fill: Fill,
    address: string,
    question: PeerQuestion,
    onHead: (() => Promise<void>) | undefined,
  ): Promise<Uint8Array> {
    const { members, peers, events, logger } = this.#deps;
    const { worker } = question;
    const firstBytes = fill.filledBytes;
    fill.asking = worker;
    try {
      const isWatched = question.claimant !== undefined && question.claimant !== worker;
      const request = { ...question, address, workersVersion: members.version, by: members.self, isWatched };
      const signal = question.signal ? AbortSignal.any([this.#signal, question.signal]) : this.#signal;
      const claimed = await peers.readBlock(onHead ? { ...request, onHead } : request, fill, signal);
      members.trust(worker);
      const checksum = fill.digest();
      if (equalBytes(checksum, claimed)) return checksum;
      const { id } = fill.file;
      logger.error("a peer gave a block that does not match its checksum: it is taken from elsewhere", {
        id,
        block: fill.block,
        worker,
        firstBytes,
      });
      events.onLie(fill, worker);
      throw new HeadpondError("corrupt", `block ${fill.block} of ${id} from ${worker} is damaged`);
    } catch (error) {
      // Wrong bytes are wrong from somewhere on: none of them counts.
      if (isHeadpondError(error, "corrupt")) fill.rewind(0);
      // A broken stream may be one block's trouble: only who shows no sign of life is passed over by all.
      const broken = fill.phase === "filling" && isHeadpondError(error, "unavailable", "timeout");
      if (broken && !(await peers.isAlive(address))) members.suspect(worker);
      throw error;
    } finally {
      fill.asking = undefined;
    }
  }

  #originSlotsOf({ file }: Fill): Slots {
    const { mountId } = file.descriptor;
    let slots = this.#originSlots.get(mountId);
    if (slots === undefined) {
      slots = new Slots({ name: `origin reads of mount ${mountId}`, limit: this.#deps.limits.originReadsMax });
      this.#originSlots.set(mountId, slots);
    }
    return slots;
  }

  /** Past the page cache while the disk keeps up: a tenth of the CPU. Else memory takes it, and the reader's pace is not the disk's. */
  async #commit(fill: Fill, buffer: Buffer, checksum: Uint8Array): Promise<void> {
    const direct = this.#directWrites < this.#deps.limits.directWritesMax;
    if (direct) this.#directWrites++;
    try {
      await fill.file.commit(fill.block, buffer, checksum, { direct });
    } finally {
      if (direct) this.#directWrites--;
    }
  }

  #writeBeside(): (() => void) | undefined {
    if (this.#writesBeside >= this.#deps.writesBesideMax) return undefined;
    this.#writesBeside++;
    return () => void this.#writesBeside--;
  }
}

/** All bytes came, and then the stream broke before the checksum: nobody gives an empty rest. */
function askAgainForTheLastByte(fill: Fill): void {
  if (fill.filledBytes > 0 && fill.filledBytes === fill.length) fill.rewind(fill.length - 1);
}
