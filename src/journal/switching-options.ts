/** What a journal that can move to another one is made of. */

import type { HeadpondError } from "../base/errors.ts";
import type { Clock } from "../io/clock.ts";
import type { Disk } from "../io/disk.ts";
import type { Logger } from "../io/logger.ts";
import type { Journal, StateMachine } from "./journal.ts";
import type { JournalType, MoveMarks, MoveSettings, PreparedFile } from "./migration.ts";
import { defaultMoveCopyLimits, type MoveCopyLimits } from "./move-copy.ts";
import type { MoveTarget } from "./move-target.ts";

/** A journal as a master's directory and configuration have it. */
export type JournalPlace = {
  readonly type: JournalType;
  readonly directory: string;
  readonly generation: number;
  /** Over the configuration's; empty unless a move brought it. */
  readonly settings: MoveSettings;
  /** It takes the place of another one at this moment, which this master led or followed; `undefined`: it is a start. */
  readonly succession: "led" | "followed" | undefined;
};

export type InnerJournal<Result> = {
  readonly journal: Journal<Result>;
  /** Why it must not be relied on; undefined: it can. */
  readonly alarm: () => string | undefined;
  /** What is to be closed after it. */
  readonly release?: () => Promise<void>;
};

export type SwitchingJournalOptions<Result> = {
  readonly disk: Disk;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly id: string;
  /** The master's directory. */
  readonly master: string;
  readonly machine: StateMachine<Result>;
  readonly marks: MoveMarks;
  /** What the proposer of an entry gets that came behind the mark, and so did not happen. */
  readonly voidResult: Result;
  readonly current: JournalPlace;
  /** Makes a journal over `machine`; it is not started. */
  readonly open: (place: JournalPlace, machine: StateMachine<Result>) => Promise<InnerJournal<Result>>;
  /** Where the log of a new journal is made. Throws when the plan makes no sense on this master. */
  readonly openTarget: (plan: PreparedFile, directory: string) => Promise<MoveTarget>;
  readonly newIncarnation: () => string;
  readonly limits?: Partial<SwitchingLimits>;
  readonly onFatal: (error: HeadpondError) => void;
};

export type SwitchingLimits = {
  /** So long the old journal stays open for those who are behind. */
  readonly lingerMs: number;
  /** A copy that lacks no more entries than this is level. */
  readonly levelEntries: number;
  /** Proposals held back between the mark's proposal and its fate; more are refused. */
  readonly heldMax: number;
  /** Between looks at what cannot tell by itself. */
  readonly lookMs: number;
  readonly copy: MoveCopyLimits;
};

export const defaultSwitchingLimits: SwitchingLimits = {
  lingerMs: 30_000,
  levelEntries: 1000,
  heldMax: 65_536,
  lookMs: 50,
  copy: defaultMoveCopyLimits,
};
