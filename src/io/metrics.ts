/**
 * Counters, gauges and histograms in Prometheus text. Names are `headpond_<part>_<what>_<unit>[_total]`. Each process
 * has one registry, made where it is wired together and passed on by constructor.
 */

import { Counter, Gauge, Histogram, Registry } from "prom-client";

export type Labels = Readonly<Record<string, string>>;

export class Metrics {
  readonly #registry: Registry;
  readonly #replaces: boolean;

  constructor(registry = new Registry(), replaces = false) {
    this.#registry = registry;
    this.#replaces = replaces;
  }

  /** The same registry for a part that takes the place of another of its kind: what has a name already is replaced. */
  replacing(): Metrics {
    return new Metrics(this.#registry, true);
  }

  /** A value that only grows. `add` with labels as declared. */
  counter(name: string, help: string, labelNames: readonly string[] = []): (amount?: number, labels?: Labels) => void {
    this.#make(name);
    const counter = new Counter({ name, help, labelNames: [...labelNames], registers: [this.#registry] });
    return (amount = 1, labels) => (labels === undefined ? counter.inc(amount) : counter.inc(labels, amount));
  }

  /** A value that is read when somebody asks: `read` is called at each scrape. */
  gauge(name: string, help: string, read: () => number): void {
    this.#make(name);
    new Gauge({
      name,
      help,
      registers: [this.#registry],
      collect() {
        this.set(read());
      },
    });
  }

  /** As `gauge`, one value per label set. */
  gaugeVector(
    name: string,
    help: string,
    labelNames: readonly string[],
    read: () => Iterable<{ readonly labels: Labels; readonly value: number }>,
  ): void {
    this.#make(name);
    new Gauge({
      name,
      help,
      labelNames: [...labelNames],
      registers: [this.#registry],
      collect() {
        this.reset();
        for (const { labels, value } of read()) this.set(labels, value);
      },
    });
  }

  /** Distribution of a value; `buckets` are upper bounds in the metric's unit. */
  histogram(
    name: string,
    help: string,
    buckets: readonly number[],
    labelNames: readonly string[] = [],
  ): (value: number, labels?: Labels) => void {
    this.#make(name);
    const histogram = new Histogram({
      name,
      help,
      buckets: [...buckets],
      labelNames: [...labelNames],
      registers: [this.#registry],
    });
    return (value, labels) => (labels === undefined ? histogram.observe(value) : histogram.observe(labels, value));
  }

  #make(name: string): void {
    if (this.#replaces) this.#registry.removeSingleMetric(name);
  }

  /** The Prometheus text exposition of everything. */
  async text(): Promise<string> {
    return this.#registry.metrics();
  }

  get contentType(): string {
    return this.#registry.contentType;
  }
}
