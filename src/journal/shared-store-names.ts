/** What may be a name in a shared store: refused here, alike for all stores, so that none meets a name that another could not hold. */

import { HeadpondError } from "../base/errors.ts";

const nameBytesMax = 200;
/** A leading dot is for what a store keeps beside the objects. */
const partPattern = /^[a-z0-9-][a-z0-9.-]*$/;

/** Throws `invalid`. */
export function checkSharedName(name: string): void {
  if (name.length <= nameBytesMax && name.split("/").every((part) => partPattern.test(part))) return;
  throw new HeadpondError(
    "invalid",
    `${JSON.stringify(name.slice(0, nameBytesMax))} is no name of a shared object: parts of a-z, 0-9, "-" and ".", ${nameBytesMax} bytes at most`,
  );
}

export function isSharedPart(part: string): boolean {
  return partPattern.test(part);
}

/** `a/b/` and `a/b` are the same prefix of a listing. Throws `invalid`. */
export function checkedPrefix(prefix: string): string {
  const name = prefix.endsWith("/") ? prefix.slice(0, -1) : prefix;
  checkSharedName(name);
  return name;
}

/** `a/b/c` → `a/b`; `""` for a name at the top. */
export function parentOfName(name: string): string {
  return name.slice(0, Math.max(0, name.lastIndexOf("/")));
}
