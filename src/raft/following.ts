/**
 * How a member takes over the log of its leader: entries that continue what both share, or a snapshot where that is no
 * longer possible. What contradicts a committed entry ends the process: some member has lost what it acknowledged, and
 * going on would spread that.
 */

import { assert } from "../base/assert.ts";
import type { RaftLog } from "./log.ts";
import { decodeConfiguration, type Membership } from "./membership.ts";
import type { Outbox } from "./outbox.ts";
import type { Message, NodeId, SnapshotPoint } from "./types.ts";

type Of<Type extends Message["type"]> = Extract<Message, { readonly type: Type }>;

export class Following {
  readonly #id: NodeId;
  readonly #log: RaftLog;
  readonly #membership: Membership;
  readonly #outbox: Outbox;
  #installing: Of<"snapshot"> | undefined;
  #isInstallNew = false;

  constructor(options: {
    readonly id: NodeId;
    readonly log: RaftLog;
    readonly membership: Membership;
    readonly outbox: Outbox;
  }) {
    this.#id = options.id;
    this.#log = options.log;
    this.#membership = options.membership;
    this.#outbox = options.outbox;
  }

  /** A snapshot is about to replace state and log: neither changes meanwhile. */
  get isInstalling(): boolean {
    return this.#installing !== undefined;
  }

  onAppend(message: Of<"append">): void {
    const { prevIndex, prevTerm, entries, sentAtMs } = message;
    if (this.isInstalling) return;
    if (prevIndex < this.#log.commit) return this.#acknowledge(message, this.#log.commit);
    if (!this.#log.matches(prevIndex, prevTerm)) {
      const { index: hintIndex, term: hintTerm } = this.#log.lastOfTerm(prevIndex, prevTerm);
      const reply = { type: "append-reject", prevIndex, hintIndex, hintTerm, sentAtMs } as const;
      return this.#outbox.send({ ...reply, ...this.#answerTo(message) });
    }
    const { added, truncatedFrom } = this.#log.merge(entries);
    if (truncatedFrom !== undefined) this.#membership.truncate(truncatedFrom);
    for (const { index, kind, payload } of added) {
      if (kind === "configuration") this.#membership.append(index, decodeConfiguration(payload));
    }
    const lastIndex = prevIndex + entries.length;
    this.#log.commitTo(Math.min(message.commit, lastIndex));
    this.#acknowledge(message, lastIndex);
  }

  onSnapshot(message: Of<"snapshot">): void {
    if (this.isInstalling) return;
    const { from, snapshot } = message;
    const { index, term } = snapshot;
    const ownTerm = this.#log.term(index);
    if (index <= this.#log.commit) {
      assert(
        ownTerm === undefined || ownTerm === term,
        `snapshot ${term}/${index} from ${from} contradicts entry ${ownTerm}/${index}, which is committed`,
      );
      return this.#acknowledge(message, this.#log.commit);
    }
    if (ownTerm === term) {
      this.#log.commitTo(index);
      return this.#acknowledge(message, index);
    }
    this.#installing = message;
    this.#isInstallNew = true;
  }

  takeInstall(): SnapshotPoint | undefined {
    const isNew = this.#isInstallNew;
    this.#isInstallNew = false;
    return isNew ? this.#installing?.snapshot : undefined;
  }

  /** State and log have been replaced. Told to the sender if it still leads. */
  installed(index: number): void {
    const message = this.#installing;
    assert(message?.snapshot.index === index, `no snapshot at ${index} is being installed`);
    this.#installing = undefined;
    this.#log.restore(index);
    this.#membership.reset(index, message.snapshot.configuration);
    this.#acknowledge(message, index);
  }

  discarded(index: number): void {
    if (this.#installing?.snapshot.index === index) this.#installing = undefined;
  }

  #acknowledge(message: Of<"append" | "snapshot">, index: number): void {
    this.#outbox.hold({ type: "append-ok", ...this.#answerTo(message), index, sentAtMs: message.sentAtMs });
  }

  /** In the term of the question: held until it is true, an answer is dropped when that term is over. */
  #answerTo({ from, term }: Message): { readonly from: NodeId; readonly to: NodeId; readonly term: number } {
    return { from: this.#id, to: from, term };
  }
}
