// Events second by second, for the plots and the figures. Times are milliseconds of one steady clock.

export const SECONDS = 300;
const RATE_SECONDS = 3;
const LATENCY_SECONDS = 60;
const MAX_SAMPLES = 200;
// What is longer than a day, or negative (a clock was set back), is shown in the list, but is no measure.
const LONGEST_MS = 86_400_000;

export class Series {
  constructor() {
    this.buckets = new Map();
    this.results = 0;
    this.failures = 0;
  }

  result(ms, nowMs) {
    this.results += 1;
    const bucket = this.#bucket(nowMs);
    bucket.results += 1;
    if (ms !== null && ms >= 0 && ms <= LONGEST_MS) sample(bucket, ms);
  }

  failure(nowMs) {
    this.failures += 1;
    this.#bucket(nowMs).failures += 1;
  }

  // Events a second, over the last three whole seconds.
  rate(nowMs) {
    let sum = 0;
    for (const bucket of this.#last(RATE_SECONDS, nowMs)) sum += bucket ? bucket.results + bucket.failures : 0;
    return sum / RATE_SECONDS;
  }

  // Percentiles of the last minute, or null without a measure.
  latency(nowMs) {
    const samples = this.#last(LATENCY_SECONDS, nowMs).flatMap((bucket) => bucket?.samples ?? []);
    return percentiles(samples);
  }

  // The last five minutes, oldest first: {results, failures, p50, p99} or undefined for each whole second.
  points(nowMs) {
    const oldest = Math.floor(nowMs / 1000) - SECONDS;
    for (const [second, bucket] of this.buckets) {
      if (second < oldest) this.buckets.delete(second);
      else if (second < Math.floor(nowMs / 1000)) close(bucket);
    }
    return this.#last(SECONDS, nowMs);
  }

  #bucket(nowMs) {
    const second = Math.floor(nowMs / 1000);
    let bucket = this.buckets.get(second);
    if (!bucket) {
      bucket = { results: 0, failures: 0, samples: [], measured: 0, p50: null, p99: null };
      this.buckets.set(second, bucket);
    }
    return bucket;
  }

  #last(count, nowMs) {
    const end = Math.floor(nowMs / 1000);
    return Array.from({ length: count }, (_, index) => this.buckets.get(end - count + index));
  }
}

// Keeps at most 200 measures of a second, each with the same chance.
function sample(bucket, ms) {
  bucket.measured += 1;
  if (bucket.samples.length < MAX_SAMPLES) {
    bucket.samples.push(ms);
    return;
  }
  const place = Math.floor(Math.random() * bucket.measured);
  if (place < MAX_SAMPLES) bucket.samples[place] = ms;
}

function close(bucket) {
  if (bucket.p50 === null && bucket.samples.length) Object.assign(bucket, percentiles(bucket.samples));
}

function percentiles(samples) {
  if (!samples.length) return null;
  const sorted = [...samples].sort((a, b) => a - b);
  return { p50: at(sorted, 0.5), p99: at(sorted, 0.99) };
}

function at(sorted, share) {
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
}

