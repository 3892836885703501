// The text of /metrics, as far as the page draws it.

export class Exposition {
  #lines = new Map<string, [string, number][]>();

  constructor(text: string) {
    for (const line of text.split('\n')) {
      const found = /^([a-z_]+)(?:\{(.*)\})? (\S+)/.exec(line);
      if (!found) continue;
      const [, name = '', labels = '', value] = found;
      const lines = this.#lines.get(name) ?? [];
      lines.push([labels, Number(value)]);
      this.#lines.set(name, lines);
    }
  }

  sum(metric: string): number {
    return (this.#lines.get(metric) ?? []).reduce((sum, [, value]) => sum + value, 0);
  }

  /** The values of a metric by one of its labels. */
  by(metric: string, label: string): [string, number][] {
    const sums = new Map<string, number>();
    for (const [labels, value] of this.#lines.get(metric) ?? []) {
      const key = new RegExp(`(?:^|,)${label}="([^"]*)"`).exec(labels)?.[1] ?? '';
      sums.set(key, (sums.get(key) ?? 0) + value);
    }
    return [...sums];
  }

  /** The buckets of a histogram by their upper bound, each with all that is below it. */
  buckets(metric: string): Map<number, number> {
    const bounds = this.by(`${metric}_bucket`, 'le');
    return new Map(bounds.map(([bound, count]) => [bound === '+Inf' ? Infinity : Number(bound), count]));
  }
}

/** Below which value a share of what came between two moments is; nothing if nothing came. */
export function quantile(now: Map<number, number>, before: Map<number, number>, share: number): number | null {
  const counts = [...now].map(([bound, count]) => [bound, count - (before.get(bound) ?? 0)] as const);
  counts.sort(([one], [other]) => one - other);
  const all = counts.at(-1)?.[1] ?? 0;
  if (all <= 0) return null;
  let [from, below] = [0, 0];
  for (const [bound, count] of counts) {
    if (count >= share * all) {
      if (bound === Infinity) return from;
      return from + ((share * all - below) / (count - below)) * (bound - from);
    }
    [from, below] = [bound, count];
  }
  return from;
}
