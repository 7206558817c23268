/**
 * Headpond paths: absolute, `/`-separated, valid Unicode, compared byte for byte (no case folding, no normalisation).
 * Every path that enters goes through `parsePath` once; inside, a `Path` is trusted.
 */

import { HeadpondError } from "./errors.ts";
import type { Brand } from "./ids.ts";

/** `"/"` or `"/a/b"`: no empty, `.` or `..` part, no trailing slash. */
export type Path = Brand<string, "Path">;

/** As on Linux: bytes of UTF-8, not characters. */
export const nameBytesMax = 255;
export const pathBytesMax = 4096;

export const rootPath = "/" as Path;

/** Checks and normalises (`//` and `.` collapse, a trailing slash goes). Throws `invalid`; `..` is refused, not resolved. */
export function parsePath(text: string): Path {
  if (isPlain(text)) return text as Path;
  if (!text.startsWith("/")) throw new HeadpondError("invalid", `path ${quote(text)} is not absolute: begin it with /`);
  if (utf8Length(text) > pathBytesMax) {
    throw new HeadpondError("invalid", `path ${quote(text)} is longer than ${pathBytesMax} bytes`);
  }
  const names: string[] = [];
  for (const name of text.split("/")) {
    if (name === "" || name === ".") continue;
    checkName(name);
    names.push(name);
  }
  return `/${names.join("/")}` as Path;
}

/**
 * Whether `text` is a path as it stands, seen in one pass: printable ASCII, no empty name, none that begins with a dot,
 * none too long. Every request has a path, and nearly all are such.
 */
function isPlain(text: string): boolean {
  if (text.charCodeAt(0) !== slashCode || text.length > pathBytesMax) return false;
  let nameStart = 1;
  for (let i = 1; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code === slashCode) {
      if (i === nameStart || i - nameStart > nameBytesMax) return false;
      nameStart = i + 1;
    } else if (code < 0x20 || code > 0x7e || (code === dotCode && i === nameStart)) {
      return false;
    }
  }
  // The root ends where its first name would begin; any other path that does has a slash at its end.
  return text.length === 1 || (nameStart < text.length && text.length - nameStart <= nameBytesMax);
}

const slashCode = 0x2f;
const dotCode = 0x2e;

/** One part of a path. Throws `invalid`. */
export function checkName(name: string): void {
  if (name === "" || name === "." || name === "..") {
    throw new HeadpondError("invalid", `${quote(name)} cannot be a name: paths are absolute and have no . or .. parts`);
  }
  if (name.includes("/")) throw new HeadpondError("invalid", `name ${quote(name)} contains a slash`);
  if (name.includes("\0")) throw new HeadpondError("invalid", `name ${quote(name)} contains a NUL`);
  if (!name.isWellFormed()) throw new HeadpondError("invalid", `name ${quote(name)} is not valid Unicode`);
  if (name.length > nameBytesMax / 3 && utf8Length(name) > nameBytesMax) {
    throw new HeadpondError("invalid", `name ${quote(name)} is longer than ${nameBytesMax} bytes`);
  }
}

export function pathNames(path: Path): readonly string[] {
  return path === "/" ? [] : path.slice(1).split("/");
}

/** Where the slash before the last name is. A loop, because names are short and `lastIndexOf` is a call into the engine. */
export function lastSlash(path: Path): number {
  let at = path.length - 1;
  while (at > 0 && path.charCodeAt(at) !== slashCode) at--;
  return at;
}

/** The parent, or undefined of the root. */
export function parentPath(path: Path): Path | undefined {
  if (path === "/") return undefined;
  const slash = lastSlash(path);
  return (slash === 0 ? "/" : path.slice(0, slash)) as Path;
}

/** The last name; `""` of the root. */
export function baseName(path: Path): string {
  return path.slice(lastSlash(path) + 1);
}

export function joinPath(parent: Path, name: string): Path {
  return (parent === "/" ? `/${name}` : `${parent}/${name}`) as Path;
}

/** Whether `path` is `ancestor` or lies below it. */
export function isWithin(path: Path, ancestor: Path): boolean {
  return ancestor === "/" || path === ancestor || path.startsWith(`${ancestor}/`);
}

/** `path` below `ancestor`, without a leading slash; `""` when they are equal. */
export function relativePath(path: Path, ancestor: Path): string {
  return ancestor === "/" ? path.slice(1) : path.slice(ancestor.length + 1);
}

const utf8 = new TextEncoder();

function utf8Length(text: string): number {
  return utf8.encode(text).length;
}

function quote(text: string): string {
  return JSON.stringify(text.length > 80 ? `${text.slice(0, 77)}...` : text);
}
