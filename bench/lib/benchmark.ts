/** What a benchmark is, and the small statistics that all of them use. */

export type BenchmarkSize = "full" | "quick" | "smoke";

/** One JSON line (surface.md). `ratio` is `value` over the value of `against` in the same run. */
export type Result = {
  readonly system: string;
  readonly metric: string;
  readonly value: number;
  readonly unit: string;
  readonly ratio?: number;
  readonly against?: string;
  readonly runs: number;
  readonly conditions: string;
};

export type BenchmarkContext = {
  readonly size: BenchmarkSize;
  /** The one metric that is asked for; undefined: all. */
  readonly only: string | undefined;
  /** Where the page goes that some benchmarks can write. */
  readonly report?: string | undefined;
  readonly emit: (result: Result) => void;
  /** Progress, for people. */
  readonly note: (text: string) => void;
};

export type Benchmark = {
  readonly name: string;
  readonly description: string;
  run(context: BenchmarkContext): Promise<void>;
};

export function bySize<T>(size: BenchmarkSize, choices: Readonly<Record<BenchmarkSize, T>>): T {
  return choices[size];
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1
    ? (sorted[middle] as number)
    : ((sorted[middle - 1] as number) + (sorted[middle] as number)) / 2;
}

export function percentile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN;
}

/** Three significant digits: more would be noise. */
export function round(value: number): number {
  return value === 0 ? 0 : Number(value.toPrecision(3));
}

/**
 * Runs `task(0) ... task(count - 1)`, `outstanding` of them at once.
 * @returns seconds
 */
export async function runOutstanding(
  count: number,
  outstanding: number,
  task: (index: number) => Promise<unknown>,
): Promise<number> {
  const began = performance.now();
  let next = 0;
  const lane = async (): Promise<void> => {
    while (next < count) await task(next++);
  };
  await Promise.all(Array.from({ length: Math.min(outstanding, count) }, lane));
  return (performance.now() - began) / 1000;
}
