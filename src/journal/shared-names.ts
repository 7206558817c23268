/**
 * Names and places in the shared log (docs/formats/shared-log.md). Numbers have 16 digits, so that a listing is in order.
 */

/** A slot of the log, or, with slot 0, the beginning of an epoch. */
export type Place = { readonly epoch: number; readonly slot: number };

/** Where a reader stands: what it reads next, and the index of the last entry before. */
export type Cursor = Place & { readonly index: number };

export const clusterName = "cluster";
export const checkpointsPrefix = "checkpoints/";
export const epochsPrefix = "epochs/";
export const statesPrefix = "states/";
export const digestsPrefix = "digests/";

export function epochName(epoch: number): string {
  return `${epochsPrefix}${digits(epoch)}`;
}

/** All slots of an epoch are below it. */
export function epochPrefix(epoch: number): string {
  return `log/${digits(epoch)}/`;
}

export function slotName({ epoch, slot }: Place): string {
  return `${epochPrefix(epoch)}${digits(slot)}`;
}

export function recordName(number: number): string {
  return `${checkpointsPrefix}${digits(number)}`;
}

/** `random`: hexadecimal digits. */
export function stateName(index: number, random: string): string {
  return `${statesPrefix}${digits(index)}-${random}`;
}

/** `who`: a hash of a master's id in hexadecimal digits, for ids have letters that names have not. */
export function digestName(index: number, who: string): string {
  return `${digestsPrefix}${digits(index)}-${who}`;
}

/** The number that the last part of a name is or begins with. */
export function numberOf(name: string): number | undefined {
  const match = /(?:^|\/)([0-9]{16})(?:-[0-9a-f]+)?$/.exec(name);
  return match === null ? undefined : Number(match[1]);
}

export function isAtOrBefore(a: Place, b: Place): boolean {
  return a.epoch < b.epoch || (a.epoch === b.epoch && a.slot <= b.slot);
}

function digits(number: number): string {
  return String(number).padStart(16, "0");
}
