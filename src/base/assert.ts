/** Assertions are for our own mistakes: a failed one is a defect of Headpond, and the process should end. */

export class AssertionError extends Error {
  override readonly name = "AssertionError";
}

/** `message` as a function where many are checked: to put a text together costs more than most checks. */
export function assert(condition: unknown, message: string | (() => string)): asserts condition {
  if (!condition) throw new AssertionError(typeof message === "string" ? message : message());
}

/** The value, which cannot be absent here. */
export function present<T>(value: T | undefined | null, message: string): T {
  if (value === undefined || value === null) throw new AssertionError(message);
  return value;
}

/** For the end of an exhaustive switch. */
export function unreachable(value: never): never {
  throw new AssertionError(`unreachable: ${JSON.stringify(value)}`);
}
