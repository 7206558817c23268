/**
 * Where a missing block comes from, decided from what is known; pure. Within an egress domain all workers rank each other by the
 * same hash over the same versioned list, so all name the same owner; only the owner reads the under store.
 */

import type { WorkerId } from "../base/ids.ts";

export type SourceQuestion = {
  /** Undefined: the asker keeps nothing of the file, and is nobody's owner. */
  readonly self: WorkerId | undefined;
  /** The live workers of this domain, the best owner first; may lack `self` while it registers. */
  readonly order: readonly WorkerId[];
  /** Workers that failed for this block, or do not answer anybody now. */
  readonly avoid: ReadonlySet<WorkerId>;
  /** The peers are not to be trusted with this file: its digest did not match. */
  readonly originOnly: boolean;
};

export type SourceChoice =
  | { readonly kind: "peer"; readonly worker: WorkerId; readonly skipped: readonly WorkerId[] }
  /** `firstOwner`: by rank alone; false: because those before us cannot be asked, so somebody may hold the block. */
  | { readonly kind: "origin"; readonly firstOwner: boolean };

export function chooseSource({ self, order, avoid, originOnly }: SourceQuestion): SourceChoice {
  if (originOnly) return { kind: "origin", firstOwner: true };
  const skipped: WorkerId[] = [];
  for (const worker of order) {
    if (worker === self) return { kind: "origin", firstOwner: skipped.length === 0 };
    if (!avoid.has(worker)) return { kind: "peer", worker, skipped };
    skipped.push(worker);
  }
  return { kind: "origin", firstOwner: order.length === 0 };
}

/** Whether an asker that found `skipped` dead has come to the right one. */
export function takesItselfForOwner(
  self: WorkerId,
  order: readonly WorkerId[],
  skipped: ReadonlySet<WorkerId>,
): boolean {
  const first = order.find((worker) => !skipped.has(worker));
  return first === undefined || first === self;
}
