/**
 * Takes away what nobody needs any more: slots that the checkpoint before the newest covers, states that only older records name, digests that
 * are compared. Any master may do it, several at once, at any time later, or never: what a listing does not show stays, and harms nobody.
 */

import { digestsPrefix, epochPrefix, isAtOrBefore, numberOf, recordName, statesPrefix } from "./shared-names.ts";
import type { SharedObjects } from "./shared-objects.ts";
import { recordOf, type SharedRecords } from "./shared-records.ts";

const listedAtOnce = 1000;
/** Removals under way at once. */
const removalsAtOnce = 8;
/** An epoch that a record this far back had covered has nothing any more that is worth a listing. */
const recordsBack = 3;

/** How many objects were removed. */
export async function collectGarbage(
  objects: SharedObjects,
  records: SharedRecords,
  signal: AbortSignal,
): Promise<number> {
  const { newest, before } = records;
  if (newest === undefined || before === undefined) return 0;
  let removed = 0;
  const firstEpoch = await epochOfRecord(objects, before.number - recordsBack, signal);
  for (let epoch = firstEpoch; epoch <= before.upTo.epoch; epoch++) {
    removed += await removeBelow(objects, epochPrefix(epoch), signal, (slot) =>
      isAtOrBefore({ epoch, slot }, before.upTo),
    );
  }
  // A state that is being brought in has a higher index than the records there are, or its record will not count.
  removed += await removeBelow(objects, statesPrefix, signal, (index) => index < before.index);
  removed += await removeBelow(objects, digestsPrefix, signal, (index) => index <= before.index);
  return removed;
}

async function epochOfRecord(objects: SharedObjects, number: number, signal: AbortSignal): Promise<number> {
  const name = recordName(Math.max(1, number));
  const found = await objects.read(name, signal);
  const record = found === undefined ? undefined : recordOf(name, Math.max(1, number), found);
  // The first record says where the log begins only if another journal precedes it.
  return record === undefined || (number < 1 && record.begins !== true) ? 1 : record.upTo.epoch;
}

async function removeBelow(
  objects: SharedObjects,
  prefix: string,
  signal: AbortSignal,
  isGarbage: (number: number) => boolean,
): Promise<number> {
  const { store } = objects;
  let removed = 0;
  for (let after = ""; ; ) {
    const page = await objects.repeat(() => store.list(prefix, after, listedAtOnce, signal), signal);
    const garbage = page.filter(({ name }) => isGarbage(numberOf(name) ?? Number.POSITIVE_INFINITY));
    for (let at = 0; at < garbage.length; at += removalsAtOnce) {
      const some = garbage.slice(at, at + removalsAtOnce);
      await Promise.all(some.map(({ name }) => objects.repeat(() => store.remove(name, signal), signal)));
      removed += some.length;
    }
    // Names are in order: behind one that stays nothing goes.
    if (page.length < listedAtOnce || garbage.length < page.length) return removed;
    after = page.at(-1)?.name ?? "";
  }
}
