// Events that are kept, and which of them a list shows: bounded, filtered, pausable.

// The newest `limit` records, oldest first. Each record has a growing `number`.
export class Kept {
  constructor(limit, records = []) {
    this.limit = limit;
    this.records = records;
    this.head = 0;
  }

  get length() {
    return this.records.length - this.head;
  }

  // The record at `index`, counted from the newest.
  newest(index) {
    return this.records[this.records.length - 1 - index];
  }

  add(record) {
    this.records.push(record);
    if (this.length > this.limit) this.#forgetOldest();
  }

  forgetBefore(number) {
    while (this.length && this.records[this.head].number < number) this.#forgetOldest();
  }

  toArray() {
    return this.records.slice(this.head);
  }

  #forgetOldest() {
    this.records[this.head] = undefined;
    this.head += 1;
    // Moving the array at every event would cost more than the few empty places.
    if (this.head >= 1000) {
      this.records = this.records.slice(this.head);
      this.head = 0;
    }
  }
}

// What a list shows of what is kept. While it is paused, records are kept and counted, and the list stays as it is.
export class View {
  constructor(limit) {
    this.limit = limit;
    this.kept = new Kept(limit);
    this.shown = new Kept(limit);
    this.matches = () => true;
    this.frozen = null;
    this.waiting = 0;
    this.added = 0;
    this.numbers = 0;
  }

  get length() {
    return this.shown.length;
  }

  // How many records the filter chooses from.
  get available() {
    return this.frozen ? this.frozen.length : this.kept.length;
  }

  newest(index) {
    return this.shown.newest(index);
  }

  add(record) {
    record.number = this.numbers++;
    this.kept.add(record);
    if (this.frozen) {
      this.waiting += 1;
      return;
    }
    if (this.matches(record)) {
      this.shown.add(record);
      this.added += 1;
    }
    this.shown.forgetBefore(this.numbers - this.limit);
  }

  pause() {
    this.frozen = this.kept.toArray();
  }

  resume() {
    this.frozen = null;
    this.waiting = 0;
    this.#choose();
  }

  filter(matches) {
    this.matches = matches;
    this.#choose();
  }

  // How many records came on top since the last call; a list that is scrolled down moves by so many rows.
  takeAdded() {
    const added = this.added;
    this.added = 0;
    return added;
  }

  #choose() {
    const newest = this.length ? this.newest(0).number : -1;
    this.shown = new Kept(this.limit, (this.frozen ?? this.kept.toArray()).filter(this.matches));
    this.added = 0;
    while (this.added < this.length && this.newest(this.added).number > newest) this.added += 1;
  }
}
