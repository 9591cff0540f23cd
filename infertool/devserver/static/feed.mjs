// What the dashboard knows, apart from the page: counts, the rate, and rows that wait for the next frame.

const RATE_WINDOW_MS = 3000;

// The newest `limit` items since the last `take`, so that a tab in the background does not grow.
export class Newest {
  constructor(limit) {
    this.limit = limit;
    this.items = [];
  }

  add(item) {
    this.items.push(item);
    // Cut rarely: shifting at every item would cost more than the few extra ones.
    if (this.items.length >= 2 * this.limit) this.items = this.items.slice(-this.limit);
  }

  take() {
    const taken = this.items.slice(-this.limit);
    this.items = [];
    return taken;
  }
}

// Events per second over the last three seconds, in buckets of 100 ms.
export class Rate {
  constructor() {
    this.buckets = new Map();
  }

  count(nowMs) {
    const bucket = Math.floor(nowMs / 100);
    this.buckets.set(bucket, (this.buckets.get(bucket) ?? 0) + 1);
  }

  perSecond(nowMs) {
    const oldest = Math.floor((nowMs - RATE_WINDOW_MS) / 100);
    let sum = 0;
    for (const [bucket, count] of this.buckets) {
      if (bucket <= oldest) this.buckets.delete(bucket);
      else sum += count;
    }
    return sum / (RATE_WINDOW_MS / 1000);
  }
}

export function result(payload, now) {
  const prediction = payload.prediction ?? {};
  return {
    request: text(payload.request_id ?? payload.event_id),
    class: text(prediction.class ?? prediction.value),
    confidence: number(prediction.confidence),
    ms: number(payload.processing_ms),
    time: time(payload.completed_at, now),
  };
}

export function failure(payload, now) {
  return {
    kind: "failed",
    title: text(payload.error_type ?? "failure"),
    detail: text(payload.error),
    request: text(payload.request_id ?? payload.event_id),
    time: time(payload.failed_at, now),
  };
}

export function alert(payload, now) {
  const measured = [payload.value, payload.threshold].filter((part) => part !== undefined);
  return {
    kind: payload.state === "resolved" ? "resolved" : "firing",
    title: text(payload.rule ?? "alert"),
    detail: [text(payload.state), measured.map(text).join(" of ")].filter(Boolean).join(": "),
    request: "",
    time: time(payload.since, now),
  };
}

// Any JSON as a short text.
export function text(value) {
  if (value === undefined || value === null) return "";
  const whole = typeof value === "string" ? value : JSON.stringify(value);
  return whole.length > 300 ? `${whole.slice(0, 300)}…` : whole;
}

function number(value) {
  return typeof value === "number" && Number.isFinite(value) ? value : null;
}

function time(stamp, now) {
  const date = new Date(typeof stamp === "string" ? stamp : now);
  return (Number.isNaN(date.getTime()) ? now : date).toLocaleTimeString("en-GB");
}
