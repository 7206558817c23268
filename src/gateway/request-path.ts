/** Percent-encoded names in a URL's path. Decoding happens once, after splitting, so that no escape can add a part. */

import { HeadpondError } from "../base/errors.ts";
import { type Path, parsePath } from "../base/path.ts";

/** The decoded parts of an undecoded path; a trailing slash makes no part. Throws `invalid` on bad escapes. */
export function decodeParts(path: string): readonly string[] {
  return path
    .split("/")
    .filter((part) => part !== "")
    .map((part) => decodePart(part));
}

/** As a Headpond path. Throws `invalid`: `..` in any spelling, NUL, an encoded slash, text that is not UTF-8. */
export function decodePath(path: string): Path {
  const parts = decodeParts(path);
  for (const part of parts) {
    if (part.includes("/"))
      throw new HeadpondError("invalid", `${JSON.stringify(path)} has an encoded slash in a name`);
  }
  return parsePath(`/${parts.join("/")}`);
}

export function encodePath(path: string): string {
  return path.split("/").map(encodeURIComponent).join("/");
}

function decodePart(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch (error) {
    throw new HeadpondError("invalid", `${JSON.stringify(part)} is not percent-encoded UTF-8`, { cause: error });
  }
}
